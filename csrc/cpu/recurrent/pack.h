// Weights, inputs and states, from the arrays' order to that of the products.
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

// Columns [first, first + width) of gate block j of a plane of W (depth, G), as a panel [words(depth)][width]; zeros
// beside the units, and everywhere if W is null.
template <class Format, class S, class P, class Word>
void pack_gates(const P& plan, const Weights<S>& W, Index depth, int plane, Index j, Index first, Index width,
                Word* packed) {
  if (W.data == nullptr) {
    for (Index k = 0; k < words<Format>(depth) * width; k += kLanes<Word>) store(packed + k, Vec<Word>{});
    return;
  }
  for (Index run = first; run < first + width;) {  // of neighbours in a row of W
    const Index run_end = min_of(first + width, (run / P::kUnits + 1) * P::kUnits);
    const Index unit = j * P::kUnits + run % P::kUnits;
    const S* const source = W.data + (plan.gate_column(plane * P::kGates + run / P::kUnits) + unit) * W.column;
    pack_panel<Format>(Strided<S>{source, W.row, W.column}, depth, plan.H - unit, run_end - run, packed + (run - first),
                       PackedRows{width});
    run = run_end;
  }
}

// All panels of gate block j, one behind the other.
template <class Format, class S, class P, class Word>
void pack_gate_block(const P& plan, const Weights<S>& W, Index depth, Index j, Word* packed) {
  for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
    pack_gates<Format>(plan, W, depth, 0, j, panel, width, packed + panel * words<Format>(depth));
  });
}

// The transpose of rows [first, first + width) of W (count, G), as a panel of words along units: plane after plane,
// block after block, gate after gate, [words][width] each, in the order of the gate buffer. Rows from count on are
// zero.
template <class Format, class S, class P, class Word>
void pack_transposed_gates(const P& plan, const Weights<S>& W, Index count, Index first, Index width, Word* packed) {
  const Index whole = plan.H / P::kUnits * P::kUnits;
  for (Index plane = 0; plane < P::kPlanes; ++plane) {
    const Range parts[] = {{0, whole}, {whole, plan.H}};
    for (const Range& units : parts) {
      const Index depth = units.end - units.begin;
      const Index run = words<Format>(min_of(depth, P::kUnits)) * width;  // a gate's words in a block
      const PackedRows rows{width, P::kGates * run, P::kLog2Units - __builtin_ctz(Format::kDepth)};
      for (Index gate = 0; gate < P::kGates; ++gate) {
        const Index column = plan.gate_column(plane * P::kGates + gate) + units.begin;
        const S* const source = W.data + column * W.column + first * W.row;
        pack_panel<Format>(Strided<S>{source, W.column, W.row}, depth, count - first, width, packed + gate * run, rows);
      }
      packed += P::kGates * words<Format>(depth) * width;
    }
  }
}

// `count` rows of vectors to blocks [columns / kUnits][words(T N)][kUnits] of words along rows; `range` counts words.
// vector_at(row, column) is a vector of a row.
template <class Format, class P, class Word, class VectorAt>
void pack_along_rows(const P& plan, Index count, Range range, Index columns, Word* packed, const VectorAt& vector_at) {
  using S = typename P::S;
  const Index all = words<Format>(plan.rows);
  for (Index word = range.begin; word < range.end; ++word) {
    for (Index column = 0; column < columns; column += kLanes<S>) {
      const auto numbers = [&](Index i) {
        const Index row = word * Format::kDepth + i;
        return row < count ? vector_at(row, column) : Vec<S>{};
      };
      store(packed + P::state_place(all, word, column), Format::join(numbers(0), numbers(Format::kDepth - 1)));
    }
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
