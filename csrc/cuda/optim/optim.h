// Optimisers and clipping as multi-tensor kernels: one launch works on many arrays, whose addresses and sizes it takes
// by value in its argument block. Nothing is copied to the device for it, and a graph can capture it.
//
// A block owns a piece of one array. Pieces are numbered through the arrays of a launch.
#pragma once

#include <cuda_runtime.h>

#include "../../optim_rules.h"
#include "../device/index.h"
#include "../graph/scalars.h"

namespace fastlstm::cuda {

inline constexpr int kMostTensors = 48;  // a launch: its arguments stay within the 4 KB that every driver takes
inline constexpr int kOptimThreads = 256;
inline constexpr Index kPiecePacks = 4 * kOptimThreads;       // 16 bytes each, of a piece of an update
inline constexpr Index kNormPiecePacks = 16 * kOptimThreads;  // of a piece of a norm

// How many elements of `size` are valid, where num_rows may say how many rows are.
FASTLSTM_HOST_DEVICE inline Index valid_size(Index size, Index width, const std::int32_t* num_rows) {
  if (!num_rows) return size;
  const Index valid = *num_rows * width;
  return valid < size ? valid : size;
}

template <class S>
struct UpdatedTensor {
  S* param;
  const S* grad;
  S* first;
  S* second;
  const void* rows;  // of a gradient by rows: the ids of its rows in param, first and second; null: all of them
  const std::int32_t* num_rows;  // on the device: how many of them are valid; null: all of them
  Index size;                    // of grad, all rows
  Index width;                   // of a row
  int id_bytes;                  // 4 or 8
  int first_piece;
};

// As in optim_rules.h. The learning rate is lr times correction; with step, the correction is Adam's for that step.
template <class S>
struct UpdateArguments {
  Scalar<double> lr, grad_scale;
  double correction, momentum, beta2, eps, weight_decay;
  bool eps_inside_root;
  const std::int64_t* step;  // on the device, or null
  int count;
  UpdatedTensor<S> tensors[kMostTensors];
};
static_assert(sizeof(UpdateArguments<double>) <= 4096);

template <class S>
struct ScaledTensor {
  S* values;
  const std::int32_t* num_rows;  // as in UpdatedTensor; `launch_scale` and `launch_clip` change the other rows too
  Index size;
  Index width;
  int first_piece;
};

template <class S>
struct ScaleArguments {
  Scalar<double> factor;
  int count;
  ScaledTensor<S> tensors[kMostTensors];
};

template <class S>
struct ClipArguments {
  S limit;
  int count;
  ScaledTensor<S> tensors[kMostTensors];
};

template <class S>
struct NormArguments {
  double* partials;  // of the pieces of this launch
  int count;
  ScaledTensor<const S> tensors[kMostTensors];
};

// Numbers of pieces of arrays of so many elements.
template <class S>
Index pieces_of(Index size, Index piece_packs) {
  return divide_up(size * static_cast<Index>(sizeof(S)), 16 * piece_packs);
}

// All arrays of the arguments, whose first_piece is set here. Nothing is launched where there is nothing to do.
template <class S>
void launch_update(OptimRule rule, UpdateArguments<S> arguments, cudaStream_t stream);
template <class S>
void launch_scale(ScaleArguments<S> arguments, cudaStream_t stream);
// Between -limit and limit; NaN stays NaN.
template <class S>
void launch_clip(ClipArguments<S> arguments, cudaStream_t stream);
// Returns the number of partial sums written.
template <class S>
Index launch_squares(NormArguments<S> arguments, cudaStream_t stream);

// total = the sum of all partial sums, in a fixed order; with root, its root.
void launch_total(const double* partials, Index count, bool root, double* total, cudaStream_t stream);
// scale = max_norm / (norm + 1e-6) if norm > max_norm, else 1; NaN gives 1.
void launch_clip_scale(const double* norm, double max_norm, double* scale, cudaStream_t stream);

}  // namespace fastlstm::cuda
