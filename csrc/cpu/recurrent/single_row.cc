// Products of a single row of one instruction set.
#include "single_row.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// sums += a W over `count` k, for columns whose neighbours are neighbours in memory.
template <class Format, Index count, class S>
FASTLSTM_INLINE void add_rows(const S* a, const S* W, Index row, Range columns, Index limit,
                              const UnitPlaces<S>& place) {
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
template <class Format, Index squares, class S, class Runs>
FASTLSTM_INLINE void add_columns(const S* W, Index column, const Runs& runs, Index u, Index limit,
                                 const UnitPlaces<S>& place) {
  Vec<S> sum[squares];
#pragma GCC unroll 4
  for (Index s = 0; s < squares; ++s) sum[s] = load(place(u + s * kLanes<S>));
  runs([&](const S* a, Index row, Index depth) {
    for (Index k = 0; k < depth; k += kLanes<S>) {
      const Index left = depth - k;
#pragma GCC unroll 4
      for (Index s = 0; s < squares; ++s) {
        const Index first = u + s * kLanes<S>;
        Vec<S> square[kLanes<S>];
        load_transposed(W + first * column + row + k, column, limit - first, left, square);
        if (left >= kLanes<S>) {
#pragma GCC unroll 16
          for (Index i = 0; i < kLanes<S>; ++i)
            sum[s] += Format::factor(broadcast(a[k + i])) * Format::factor(square[i]);
        } else {
#pragma GCC unroll 16
          for (Index i = 0; i < kLanes<S>; ++i) {
            if (i < left) sum[s] += Format::factor(broadcast(a[k + i])) * Format::factor(square[i]);
          }
        }
      }
    }
  });
#pragma GCC unroll 4
  for (Index s = 0; s < squares; ++s) store(place(u + s * kLanes<S>), sum[s]);
}

// kWidth is that of a's blocks, or 0 for any: where it is a vector, as the LSTM's with AVX-512, a loop falls away.
template <class Format, Index kWidth, class S>
void add_single_row_of(const Operand<S>& a, const Index* gate_rows, const Weights<S>& W, Range columns, Index limit,
                       const UnitPlaces<S>& sums) {
  const Index width = kWidth > 0 ? kWidth : a.width;
  // Calls body(where some elements of a lie, k of the first, how many) for all k.
  const auto runs = [&](const auto& body) {
    const S* block = a.data;
    for (Index k = 0; k < a.depth; k += width, block += a.block_stride) {
      for (int gate = 0; gate < a.gates; ++gate) {
        body(block + gate * width, gate_rows[gate] + k, min_of(width, a.depth - k));
      }
    }
  };
  if (W.column == 1) {
    runs([&](const S* a, Index first, Index depth) {
      constexpr Index kRows = 8;
      Index k = 0;
      for (; k + kRows <= depth; k += kRows)
        add_rows<Format, kRows>(a + k, W.data + (first + k) * W.row, W.row, columns, limit, sums);
      for (; k < depth; ++k) add_rows<Format, 1>(a + k, W.data + (first + k) * W.row, W.row, columns, limit, sums);
    });
  } else {
    constexpr Index kSquares = 4;
    Index u = columns.begin;
    for (; u + kSquares * kLanes<S> <= columns.end; u += kSquares * kLanes<S>) {
      add_columns<Format, kSquares>(W.data, W.column, runs, u, limit, sums);
    }
    for (; u < columns.end; u += kLanes<S>) add_columns<Format, 1>(W.data, W.column, runs, u, limit, sums);
  }
}

}  // namespace

template <class Format, class S>
void add_single_row(const Operand<S>& a, const Index* gate_rows, const Weights<S>& W, Range columns, Index limit,
                    const UnitPlaces<S>& sums) {
  constexpr Index kVector = kLanes<S>;
  if (kVector == 16 && a.width == kVector) {
    return add_single_row_of<Format, kVector>(a, gate_rows, W, columns, limit, sums);
  }
  add_single_row_of<Format, 0>(a, gate_rows, W, columns, limit, sums);
}

template <class Format, class S>
void add_single_row(const Operand<S>& a, const Weights<S>* W, const UnitPlaces<S>* sums, Index count, Range columns,
                    Index limit) {
  constexpr Index kRows = 8;
  const S* block = a.data;
  for (Index first = 0; first < a.depth; first += a.width, block += a.block_stride) {
    const Index depth = min_of(a.width, a.depth - first), whole = depth / kRows * kRows;
    for (Index k = 0; k < whole; k += kRows) {
      for (Index g = 0; g < count; ++g)
        add_rows<Format, kRows>(block + k, W[g].data + (first + k) * W->row, W->row, columns, limit, sums[g]);
    }
    for (Index k = whole; k < depth; ++k) {
      for (Index g = 0; g < count; ++g)
        add_rows<Format, 1>(block + k, W[g].data + (first + k) * W->row, W->row, columns, limit, sums[g]);
    }
  }
}

#if !FASTLSTM_ONLY_BF16
template void add_single_row<Exact<float>, float>(const Operand<float>&, const Index*, const Weights<float>&, Range,
                                                  Index, const UnitPlaces<float>&);
template void add_single_row<Exact<double>, double>(const Operand<double>&, const Index*, const Weights<double>&, Range,
                                                    Index, const UnitPlaces<double>&);
template void add_single_row<Exact<float>, float>(const Operand<float>&, const Weights<float>*,
                                                  const UnitPlaces<float>*, Index, Range, Index);
template void add_single_row<Exact<double>, double>(const Operand<double>&, const Weights<double>*,
                                                    const UnitPlaces<double>*, Index, Range, Index);
#endif
template void add_single_row<Bf16, float>(const Operand<float>&, const Weights<float>*, const UnitPlaces<float>*, Index,
                                          Range, Index);
template void add_single_row<Bf16, float>(const Operand<float>&, const Index*, const Weights<float>&, Range, Index,
                                          const UnitPlaces<float>&);

}  // namespace fastlstm::FASTLSTM_ISA
