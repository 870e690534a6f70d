// Sampled classes: logits, losses and gradients. Launches on a stream that allocate nothing and wait for nothing.
// Semantics are TensorFlow's (_compute_sampled_logits, nce_loss).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../device/index.h"
#include "../ids/segments.h"

namespace fastlstm::cuda {

enum class SampledLossKind { kSigmoid, kSoftmax };

// One call. B is the batch, K the number of classes of each row, the first num_true of which are true; their columns
// come first, then those of the sampled classes that the batch shares.
template <class S>
struct SampledClasses {
  Index B, K, sampled_count, E;
  Index num_true;                  // a loss reads it
  const S* weights;                // (V, E)
  const S* biases;                 // (V,), or null
  const std::int64_t* labels;      // (B, K)
  const S* inputs;                 // (B, E)
  const std::int64_t* sampled;     // (sampled_count,)
  const double* true_expected;     // (B, K), or null
  const double* sampled_expected;  // (sampled_count,), or null
  bool remove_accidental_hits;
  S* logits;          // (B, K + sampled_count)
  S* is_true;         // of the same shape: what each column should be; or null
  const S* dlogits;   // of the same shape
  S* dinputs;         // (B, E)
  S* dweights;        // (B K + sampled_count, E), a row for each of the segments
  S* dbiases;         // (B K + sampled_count,), or null
  Segments segments;  // of labels, then sampled; order and starts lie in the workspace
  char* workspace;    // of sampled_workspace_bytes
};

// For the backward pass; a loss keeps its logits there too.
template <class S>
Index sampled_workspace_bytes(Index B, Index K, Index sampled_count, Index E, bool with_logits);

template <class S>
void sampled_logits_forward(const SampledClasses<S>& call, cudaStream_t stream);
template <class S>
void sampled_logits_backward(const SampledClasses<S>& call, cudaStream_t stream);
// losses (B,), and the gradients of their mean; logits and dlogits need not be given.
template <class S>
void sampled_loss(const SampledClasses<S>& call, SampledLossKind kind, S* losses, cudaStream_t stream);

}  // namespace fastlstm::cuda
