// Cross entropy over a vocabulary: what losses.cu does, for the bindings. Targets are in [0, V) or ignore_index.
#pragma once

#include <cuda_runtime.h>

#include "../device/index.h"
#include "../graph/scalars.h"

namespace fastlstm::cuda {

// How many targets are valid, as so many numbers that add up to it.
inline constexpr int kCounts = 64;

template <class Id>
struct TargetCount {
  const Id* targets;  // (M,)
  Index M, ignore_index;
  int* counts;  // (kCounts,)
};

// What a sum of losses is divided by: how many targets are valid or, where counts is null, the normalizer.
struct Divisor {
  const int* counts;  // (kCounts,), or null
  Scalar<double> normalizer;
};

// Softmax, loss and gradient of some rows. Those whose target is ignore_index are not read, and get zeros.
template <class S, class Id>
struct SoftmaxLoss {
  const S* logits;    // (rows, V)
  const S* bias;      // (V,), added to the logits; null: none
  const Id* targets;  // (rows,)
  Divisor divisor;
  S* dlogits;      // (rows, V), may be logits
  double* losses;  // (rows,)
  Index rows, V, ignore_index;
};

// loss = sum of losses / divisor, 0 if the sum is. The sum has one fixed order.
struct MeanLoss {
  const double* losses;  // (M,)
  Index M;
  Divisor divisor;
  double* loss;  // (1,)
};

// to[m] = from[m], or zeros where the target is ignore_index. to may be from.
template <class S, class Id>
struct ValidRows {
  const S* from;      // (M, E)
  const Id* targets;  // (M,)
  S* to;              // (M, E)
  Index M, E, ignore_index;
};

// sums[v] = sum over m of matrix[m][v] or, with accumulate, +=
template <class S>
struct ColumnSum {
  const S* matrix;  // (M, V)
  S* sums;          // (V,)
  Index M, V;
  bool accumulate;
};

// Bytes of mean_loss's workspace.
Index mean_loss_workspace(Index M);

template <class Id>
void count_targets(const TargetCount<Id>& a, cudaStream_t stream);
template <class S, class Id>
void softmax_loss(const SoftmaxLoss<S, Id>& a, cudaStream_t stream);
void mean_loss(const MeanLoss& a, char* workspace, cudaStream_t stream);
template <class S, class Id>
void copy_valid_rows(const ValidRows<S, Id>& a, cudaStream_t stream);
template <class S>
void sum_columns(const ColumnSum<S>& a, cudaStream_t stream);

}  // namespace fastlstm::cuda
