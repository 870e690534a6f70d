// Weights, inputs and states, from the arrays' order to that of the products.
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

// Columns [first, first + width) of gate block j of a plane of W (depth, G), as a panel [depth][width]; zeros beside
// the units, and everywhere if W is null.
template <class S, class P>
void pack_panel(const P& plan, const Weights<S>& W, Index depth, int plane, Index j, Index first, Index width,
                S* packed) {
  if (W.data == nullptr) {
    for (Index k = 0; k < depth * width; k += kLanes<S>) store(packed + k, Vec<S>{});
    return;
  }
  for (Index run = first; run < first + width;) {  // of neighbours in a row of W
    const Index run_end = min_of(first + width, (run / P::kUnits + 1) * P::kUnits);
    const Index unit = j * P::kUnits + run % P::kUnits;
    const S* const source = W.data + (plan.gate_column(plane * P::kGates + run / P::kUnits) + unit) * W.column;
    S* const out = packed + (run - first);
    if (W.column == 1) {
      for (Index k = 0; k < depth; ++k) {
        for (Index u = 0; u < run_end - run; u += kLanes<S>) {
          store(out + k * width + u, load_partial(source + k * W.row + u, plan.H - unit - u));
        }
      }
    } else {
      for (Index u = 0; u < run_end - run; u += kLanes<S>) {
        transpose_into(source + u * W.column, W.column, plan.H - unit - u, depth, out + u, width);
      }
    }
    run = run_end;
  }
}

// All panels of gate block j, one behind the other.
template <class S, class P>
void pack_gate_block(const P& plan, const Weights<S>& W, Index depth, Index j, S* packed) {
  for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
    pack_panel(plan, W, depth, 0, j, panel, width, packed + panel * depth);
  });
}

// The transpose of rows [first, first + width) of W (count, G), as a panel [G][width] whose rows stand in the order of
// the gate buffer: plane after plane, block after block, gate after gate. Rows from count on are zero.
template <class S, class P>
void pack_transposed_panel(const P& plan, const Weights<S>& W, Index count, Index first, Index width, S* packed) {
  for (Index plane = 0; plane < P::kPlanes; ++plane) {
    for (Index j = 0; j < plan.blocks; ++j) {
      const Index units = min_of(P::kUnits, plan.H - j * P::kUnits);
      for (Index gate = plane * P::kGates; gate < (plane + 1) * P::kGates; ++gate) {
        const S* const source = W.data + (plan.gate_column(gate) + j * P::kUnits) * W.column + first * W.row;
        for (Index i = 0; i < width; i += kLanes<S>) {
          if (W.column == 1) {
            transpose_into(source + i * W.row, W.row, count - first - i, units, packed + i, width);
          } else {
            for (Index u = 0; u < units; ++u) {
              store(packed + u * width + i, load_partial(source + u * W.column + i, count - first - i));
            }
          }
        }
        packed += units * width;
      }
    }
  }
}

// Rows of inputs to blocks [D / kUnits][T N][kUnits], in the order of processing.
template <class S, class P>
void pack_inputs(const P& plan, const Sequence<const S>& xs, const bool* mask, Range rows, S* x) {
  for (Index r = rows.begin; r < rows.end; ++r) {
    const Index step = r / plan.N, n = r % plan.N;
    const bool valid = plan.valid(mask, step, n);
    const S* const source = plan.at(xs, step, n);
    for (Index d = 0; d < plan.D; d += kLanes<S>) {
      // Masked steps may hold anything; zeros keep it out of the weights' gradients.
      const Vec<S> value = valid ? load_partial(source + d, plan.D - d) : Vec<S>{};
      store(x + P::state_place(plan.rows, r, d), value);
    }
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
