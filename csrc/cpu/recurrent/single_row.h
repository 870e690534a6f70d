// The product of a single row with weights that are read where they lie: packing them would take longer.
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

// Where numbers of units lie in blocks of 2^log2_units, `stride` from each other.
template <class S>
struct UnitPlaces {
  S* data;
  int log2_units;
  Index stride;

  S* operator()(Index u) const { return data + (u >> log2_units) * stride + (u & ((Index{1} << log2_units) - 1)); }
};

// sums += a W for the only row of a, some columns of W, and those from `limit` on zero. Element (k, u) of W is W.data[k
// * W.row + u * W.column]; the units of a's gate meet the rows of W from gate_rows[gate] on. They are summed over k in
// the order of the tiles: the same bits where words are numbers.
template <class Format, class S>
void add_single_row(const Operand<S>& a, const Index* gate_rows, const Weights<S>& W, Range columns, Index limit,
                    const UnitPlaces<S>& sums);

// The same for `count` gates' columns of weights whose columns are neighbours, and a of one gate: W and sums are those
// of each. All of them meet some rows before the next ones, as these lie beside each other.
template <class Format, class S>
void add_single_row(const Operand<S>& a, const Weights<S>* W, const UnitPlaces<S>* sums, Index count, Range columns,
                    Index limit);

}  // namespace fastlstm::FASTLSTM_ISA
