// The product of a single row with weights that are read where they lie: packing them would take longer.
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

// sums += a W over `count` k, for columns whose neighbours are neighbours in memory.
template <class Format, Index count, class S, class Place>
FASTLSTM_INLINE void add_rows(const S* a, const S* W, Index row, Range columns, Index limit, const Place& place) {
  Vec<S> factors[count];
#pragma GCC unroll 8
  for (Index k = 0; k < count; ++k) factors[k] = Format::factor(broadcast(a[k]));
  Index u = columns.begin;
  for (; u + kLanes<S> <= min_of(columns.end, limit); u += kLanes<S>) {
    S* const sums = place(u);
    Vec<S> sum = load(sums);
#pragma GCC unroll 8
    for (Index k = 0; k < count; ++k) sum += factors[k] * Format::factor(load(W + k * row + u));
    store(sums, sum);
  }
  if (u < columns.end) {
    S* const sums = place(u);
    Vec<S> sum = load(sums);
    for (Index k = 0; k < count; ++k) sum += factors[k] * Format::factor(load_partial(W + k * row + u, limit - u));
    store(sums, sum);
  }
}

// sums += a W for `squares` vectors of columns from u on, where rows that are neighbours are neighbours in memory.
template <class Format, Index squares, class S, class Runs, class Place>
FASTLSTM_INLINE void add_columns(const S* W, Index column, const Runs& runs, Index u, Index limit, const Place& place) {
  Vec<S> sum[squares];
#pragma GCC unroll 4
  for (Index s = 0; s < squares; ++s) sum[s] = load(place(u + s * kLanes<S>));
  runs([&](const S* a, Index row, Index depth) {
    for (Index k = 0; k < depth; k += kLanes<S>) {
#pragma GCC unroll 4
      for (Index s = 0; s < squares; ++s) {
        const Index first = u + s * kLanes<S>;
        Vec<S> square[kLanes<S>];
        load_transposed(W + first * column + row + k, column, limit - first, depth - k, square);
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes<S>; ++i) {
          if (k + i < depth) sum[s] += Format::factor(broadcast(a[k + i])) * Format::factor(square[i]);
        }
      }
    }
  });
#pragma GCC unroll 4
  for (Index s = 0; s < squares; ++s) store(place(u + s * kLanes<S>), sum[s]);
}

// sums += a W, where element (k, u) of W is W[k * row + u * column], one of the strides is 1, and columns from `limit`
// on are zero. runs(body) calls body(where a's elements lie, k of the first, how many) for all k; place(u) is where the
// sums of a vector of columns stand. They are summed over k in the order of the runs, which is that of the tiles: the
// same bits where words are numbers.
template <class Format, class S, class Runs, class Place>
void add_single_row(const S* W, Index row, Index column, const Runs& runs, Range columns, Index limit,
                    const Place& place) {
  if (column == 1) {
    runs([&](const S* a, Index first, Index depth) {
      constexpr Index kRows = 8;
      Index k = 0;
      for (; k + kRows <= depth; k += kRows)
        add_rows<Format, kRows>(a + k, W + (first + k) * row, row, columns, limit, place);
      for (; k < depth; ++k) add_rows<Format, 1>(a + k, W + (first + k) * row, row, columns, limit, place);
    });
  } else {
    constexpr Index kSquares = 4;
    Index u = columns.begin;
    for (; u + kSquares * kLanes<S> <= columns.end; u += kSquares * kLanes<S>) {
      add_columns<Format, kSquares>(W, column, runs, u, limit, place);
    }
    for (; u < columns.end; u += kLanes<S>) add_columns<Format, 1>(W, column, runs, u, limit, place);
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
