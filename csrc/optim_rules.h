// The formulas of the optimisers, once, for every CPU instruction set and for CUDA. V as in lstm_cell.h; Math supplies
// square_root(V).
#pragma once

#include "lstm_cell.h"

namespace fastlstm {

enum class OptimRule { kSgd, kMomentum, kNesterov, kAdaGrad, kRmsProp, kAdam };

// What a step is told, in float64.
struct OptimSettings {
  double grad_scale = 1;
  double lr = 0;        // Adam: with the bias corrections folded in
  double momentum = 0;  // RMSprop's decay, Adam's beta1
  double beta2 = 0;     // Adam's
  double eps = 0;
  bool eps_inside_root = false;  // AdaGrad's eps is added to the accumulator, not to its root
  double decay = 0;              // AdamW: the parameter is multiplied by 1 - decay first
};

// The same, and what is one minus them, each rounded once: 1 - 0.999f is off by 1.3e-5 of it, 1 - 0.999999f by 0.013.
template <class S>
struct OptimHyperparameters {
  S grad_scale, lr, momentum, new_momentum, beta2, new_beta2, eps, eps_inside_root, kept;

  FASTLSTM_HOST_DEVICE explicit OptimHyperparameters(const OptimSettings& s)
      : grad_scale(static_cast<S>(s.grad_scale)),
        lr(static_cast<S>(s.lr)),
        momentum(static_cast<S>(s.momentum)),
        new_momentum(static_cast<S>(1 - s.momentum)),
        beta2(static_cast<S>(s.beta2)),
        new_beta2(static_cast<S>(1 - s.beta2)),
        eps(static_cast<S>(s.eps_inside_root ? 0 : s.eps)),
        eps_inside_root(static_cast<S>(s.eps_inside_root ? s.eps : 0)),
        kept(static_cast<S>(1 - s.decay)) {}
};

// One step. p parameter; g gradient; first velocity, accumulator or Adam's m; second Adam's v. Means are written as
// beta v + (1 - beta) g, in the definition's order: v + (1 - beta) (g - v) is one product less, but cancels where beta
// is small, and makes NaN of an infinite square.
template <OptimRule rule, class Math, class S, class V>
FASTLSTM_HOST_DEVICE inline void optim_step(const OptimHyperparameters<S>& u, V& p, V g, V& first, V& second) {
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
    p -= u.lr * g / (Math::square_root(first + u.eps_inside_root) + u.eps);
  } else if constexpr (rule == OptimRule::kRmsProp) {
    first = u.momentum * first + u.new_momentum * (g * g);
    p -= u.lr * g / (Math::square_root(first) + u.eps);
  } else {
    first = u.momentum * first + u.new_momentum * g;
    second = u.beta2 * second + u.new_beta2 * (g * g);
    p = u.kept * p - u.lr * first / (Math::square_root(second) + u.eps);
  }
}

}  // namespace fastlstm
