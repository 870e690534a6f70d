// The formulas of the optimisers, once, for every CPU instruction set and for CUDA. V as in lstm_cell.h; Math supplies
// square_root(V).
#pragma once

#include "lstm_cell.h"

namespace fastlstm {

enum class OptimRule { kSgd, kMomentum, kNesterov, kAdaGrad, kRmsProp, kAdam };

// One step. p parameter; g gradient; first velocity, accumulator or Adam's m; second Adam's v. Numbers has
//   grad_scale; lr, for Adam with the bias corrections folded in; momentum, which is RMSprop's decay and Adam's beta1;
//   beta2; eps; decay: AdamW multiplies the parameter by 1 - decay first.
template <OptimRule rule, class Math, class Numbers, class V>
FASTLSTM_HOST_DEVICE inline void optim_step(const Numbers& u, V& p, V g, V& first, V& second) {
  g *= u.grad_scale;
  if constexpr (rule == OptimRule::kSgd) {
    p -= u.lr * g;
  } else if constexpr (rule == OptimRule::kMomentum) {
    first = u.momentum * first - u.lr * g;
    p += first;
  } else if constexpr (rule == OptimRule::kNesterov) {
    first = u.momentum * first - u.lr * g;
    p += u.momentum * first - u.lr * g;
  } else if constexpr (rule == OptimRule::kAdaGrad) {
    first += g * g;
    p -= u.lr * g / (Math::square_root(first) + u.eps);
  } else if constexpr (rule == OptimRule::kRmsProp) {
    first = u.momentum * first + (1 - u.momentum) * g * g;
    p -= u.lr * g / (Math::square_root(first) + u.eps);
  } else {
    p -= u.decay * p;
    first += (1 - u.momentum) * (g - first);
    second += (1 - u.beta2) * (g * g - second);
    p -= u.lr * first / (Math::square_root(second) + u.eps);
  }
}

}  // namespace fastlstm
