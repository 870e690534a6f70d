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
                       width);
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
  for (Index plane = 0; plane < P::kPlanes; ++plane) {
    for (Index j = 0; j < plan.blocks; ++j) {
      const Index units = min_of(P::kUnits, plan.H - j * P::kUnits);
      for (Index gate = plane * P::kGates; gate < (plane + 1) * P::kGates; ++gate) {
        const S* const source = W.data + (plan.gate_column(gate) + j * P::kUnits) * W.column + first * W.row;
        pack_panel<Format>(Strided<S>{source, W.column, W.row}, units, count - first, width, packed, width);
        packed += words<Format>(units) * width;
      }
    }
  }
}

// Rows of inputs, in the order of processing, to blocks [D / kUnits][words(T N)][kUnits] of words along rows; `range`
// counts words.
template <class Format, class S, class P, class Word>
void pack_inputs(const P& plan, const Sequence<const S>& xs, const bool* mask, Range range, Word* x) {
  const Index all = words<Format>(plan.rows);
  for (Index word = range.begin; word < range.end; ++word) {
    const S* sources[Format::kDepth];
    for (Index i = 0; i < Format::kDepth; ++i) {
      const Index r = word * Format::kDepth + i, step = r / plan.N, n = r % plan.N;
      // Masked steps may hold anything; zeros keep it out of the weights' gradients.
      sources[i] = r < plan.rows && plan.valid(mask, step, n) ? plan.at(xs, step, n) : nullptr;
    }
    for (Index d = 0; d < plan.D; d += kLanes<S>) {
      const auto numbers = [&](Index i) { return sources[i] ? load_partial(sources[i] + d, plan.D - d) : Vec<S>{}; };
      store(x + P::state_place(all, word, d), Format::join(numbers(0), numbers(Format::kDepth - 1)));
    }
  }
}

// Rows of blocks of units, `block_stride` from each other, to the same blocks of words along rows, [words(T
// N)][kUnits]; zeros for masked steps, whose states may be NaN.
template <class Format, class S, class P, class Word>
void pack_states(const P& plan, const S* states, Index block_stride, const bool* mask, Range range, Word* packed) {
  const Index all = words<Format>(plan.rows);
  for (Index word = range.begin; word < range.end; ++word) {
    const S* sources[Format::kDepth];
    for (Index i = 0; i < Format::kDepth; ++i) {
      const Index r = word * Format::kDepth + i;
      sources[i] = r < plan.rows && plan.valid(mask, r / plan.N, r % plan.N) ? states + r * P::kUnits : nullptr;
    }
    for (Index u = 0; u < plan.padded_units(); u += kLanes<S>) {
      const Index place = u / P::kUnits * block_stride + u % P::kUnits;
      const auto numbers = [&](Index i) { return sources[i] ? load(sources[i] + place) : Vec<S>{}; };
      store(packed + P::state_place(all, word, u), Format::join(numbers(0), numbers(Format::kDepth - 1)));
    }
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
