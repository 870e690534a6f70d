// What the kernels of word vectors take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

// Negative sampling, one step of gradient descent a pair.
template <class S>
struct SkipgramUpdate {
  Index M, K, E;                  // pairs, negatives a pair
  S* vectors;                     // (V, E), changed in place
  S* weights;                     // (V, E), changed in place
  const std::int64_t* centers;    // (M,)
  const std::int64_t* contexts;   // (M,)
  const std::int64_t* negatives;  // (M, K)
  S lr;
  S* workspace;
};

template <class S>
struct SkipgramKernels {
  Index (*workspace)(const SkipgramUpdate<S>&);
  // Returns the sum of the pairs' losses.
  double (*update)(const SkipgramUpdate<S>&);
};

}  // namespace fastlstm
