// What the optimisers take; see ../kernels.h.
#pragma once

#include "../../optim_rules.h"
#include "../kernels.h"

namespace fastlstm {

// One parameter, changed in place. grad has `rows` rows of `width` elements; row u belongs to row ids[u] of the
// parameter and its state, or to row u where ids is null.
template <class S>
struct OptimUpdate {
  OptimRule rule;
  S* param;
  const S* grad;
  S* first;   // velocity, accumulator or Adam's m
  S* second;  // Adam's v
  const std::int64_t* ids;
  Index rows, width;
  OptimHyperparameters<S> hyperparameters;
};

template <class S>
struct OptimKernels {
  void (*update)(const OptimUpdate<S>&);
  // In float64, in chunks of fixed size summed in order.
  double (*squared_norm)(const S* values, Index count);
  void (*scale)(S* values, Index count, S factor);
  // Between -limit and limit; NaN stays NaN.
  void (*clip)(S* values, Index count, S limit);
};

}  // namespace fastlstm
