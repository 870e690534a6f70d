// What the losses take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

template <class S, class Id>
struct LossKernels {
  // losses (M,): a row's loss, 0 where ignored. dlogits (M, V) = (softmax - one-hot) * scale, zero where ignored.
  void (*softmax_cross_entropy)(const S* logits, const Id* targets, Index M, Index V, Id ignore_index, S scale,
                                double* losses, S* dlogits);
};

template <class S>
struct LinearLoss {
  Index M, H, V;
  bool transposed;              // W is (V, H)
  bool dW_transposed;           // dW is (V, H)
  bool add_to_dW, add_to_db;    // what is there already is added to
  const S* h;                   // (M, H)
  const S* W;                   // (H, V)
  const S* b;                   // (V,), or null: zeros
  const std::int64_t* targets;  // (M,), in [0, V)
  Index block;                  // columns of the logits held at once, a multiple of kLossPanel
  int threads;                  // at most
  S scale;                      // the gradients are those of the sum of the losses times this
  double* losses;               // (M,)
  S* dh;                        // (M, H), or null: not wanted, nor are
  S* dW;                        // (H, V)
  S* db;                        // (V,)
  S* workspace;
};

inline constexpr Index kLossPanel = 64;

template <class S>
struct LinearLossKernels {
  Index (*workspace)(const LinearLoss<S>&);
  void (*run)(const LinearLoss<S>&);
};

}  // namespace fastlstm
