// What the kernels of sampled classes take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

// Logits (B, K + S) of K classes of each row and S sampled ones, which the batch shares. The rows of weights that take
// part are gathered once, into the workspace.

enum class SampledLossKind { kSigmoid, kSoftmax };

template <class S>
struct SampledLogits {
  Index B, K, sampled_count, E;
  Index num_true;                  // how many of a row's K classes are true, the first ones; the others are sampled
  const S* weights;                // (V, E)
  const S* biases;                 // (V,) or null
  const std::int64_t* labels;      // (B, K)
  const S* inputs;                 // (B, E)
  const std::int64_t* sampled;     // (S,)
  const double* true_expected;     // (B, K) or null; logarithms are subtracted from the logits
  const double* sampled_expected;  // (S,) or null
  bool remove_accidental_hits;
  S* logits;     // (B, K + S), out of forward
  S* workspace;  // kept from forward to backward
  // Backward. The classes - labels, then sampled - in segments: see find_segments.
  const S* dlogits;  // (B, K + S), into backward
  const Index* order;
  const Index* starts;
  Index U;
  S* dinputs;   // (B, E)
  S* dweights;  // (U, E)
  S* dbiases;   // (U,) or null
};

template <class S>
struct SampledKernels {
  Index (*workspace)(const SampledLogits<S>&);
  void (*forward)(const SampledLogits<S>&);
  void (*backward)(const SampledLogits<S>&);
  // Forward, losses (B,), the gradients of their mean, backward.
  void (*loss)(const SampledLogits<S>&, SampledLossKind, S* losses);
};

}  // namespace fastlstm
