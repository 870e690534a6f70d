// Cross entropy over a vocabulary. Every sum has one fixed order.
#include <cmath>

#include "../device/pack.h"
#include "../device/reduce.h"
#include "losses.h"

namespace fastlstm::cuda {
namespace {

constexpr int kLossThreads = 256;
constexpr Index kLossWarps = kLossThreads / kWarp;

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return ::exp(x); }

// ---- How many targets are valid ------------------------------------------------------------------------------------

template <class Id>
__global__ void __launch_bounds__(kLossThreads) count(TargetCount<Id> a) {
  int valid = 0;
  for (Index m = static_cast<Index>(blockIdx.x) * kLossThreads + threadIdx.x; m < a.M; m += kCounts * kLossThreads) {
    valid += a.targets[m] != a.ignore_index ? 1 : 0;
  }
  valid = over_block(valid, shared_memory<int>(), Sum{});
  if (threadIdx.x == 0) a.counts[blockIdx.x] = valid;
}

// In every thread of a warp.
__device__ inline int total_of(const int* counts) {
  static_assert(kCounts % kWarp == 0);
  int total = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kCounts; i += kWarp) total += counts[i];
  return over_warp(total, Sum{});
}

template <class S>
__device__ S value_of(const Divisor& divisor) {
  return divisor.counts == nullptr ? static_cast<S>(divisor.normalizer.get())
                                   : static_cast<S>(total_of(divisor.counts));
}

// ---- Softmax -------------------------------------------------------------------------------------------------------

// Rows of up to so many bytes stay in shared memory between the two passes over them; longer ones come from L2 again.
constexpr Index kMostKept = 40 * 1024;
constexpr Index kScratchBytes = kLossWarps * sizeof(double);
// A warp a row up to so many classes, a block a row beyond.
constexpr Index kMostOfWarp = 512;

template <class S, class Id>
struct SoftmaxArguments {
  SoftmaxLoss<S, Id> a;
  bool kept;
};

// First the row's largest logit and the sum of exp(logit - largest), in one pass (Milakov and Gimelshein 2018, "Online
// normalizer calculation for softmax"), then the gradient.
template <class S, int n, class Id, bool whole_block>
__global__ void __launch_bounds__(kLossThreads) softmax(SoftmaxArguments<S, Id> arguments) {
  const SoftmaxLoss<S, Id>& a = arguments.a;
  constexpr int kThreads = whole_block ? kLossThreads : kWarp;
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  const Index m = static_cast<Index>(blockIdx.x) * (kLossThreads / kThreads) + threadIdx.x / kThreads;
  if (m >= a.rows) return;
  S* const scratch = shared_memory<S>();
  S* const kept = scratch + kScratchBytes / static_cast<Index>(sizeof(S));  // (V,); a thread reads what it wrote itself
  const auto over_row = [&](S value, const auto& combine) {
    if constexpr (whole_block) {
      return over_block(value, scratch, combine);
    } else {
      return over_warp(value, combine);
    }
  };

  const S* const logits = a.logits + m * a.V;
  S* const dlogits = a.dlogits + m * a.V;
  const Index target = static_cast<Index>(a.targets[m]);
  if (target == a.ignore_index) {
    for (Index v = thread * n; v < a.V; v += kThreads * n) store_pack<S, n>(dlogits + v, Pack<S, n>{});
    if (thread == 0) a.losses[m] = 0;
    return;
  }
  const auto logits_at = [&](Index v) {
    Pack<S, n> x = load_pack<S, n>(logits + v);
    if (a.bias != nullptr) x += load_pack<S, n>(a.bias + v);
    return x;
  };

  const S minus_infinity = -static_cast<S>(INFINITY);
  S largest = minus_infinity, sum = 0;
#pragma unroll 2
  for (Index v = thread * n; v < a.V; v += kThreads * n) {
    const Pack<S, n> x = logits_at(v);
    if (arguments.kept) store_pack<S, n>(kept + v, x);
    S top = largest;
#pragma unroll
    for (int k = 0; k < n; ++k) top = Maximum{}(top, x.v[k]);
    if (top == minus_infinity) continue;  // nothing but exp(-inf) so far; -inf - -inf would be NaN
    sum *= exponential(largest - top);
#pragma unroll
    for (int k = 0; k < n; ++k) sum += exponential(x.v[k] - top);
    largest = top;
  }
  const S top = over_row(largest, Maximum{});
  // Of a row with nothing but -inf the sum is 0 and everything NaN, as of 0 / 0.
  const S total = over_row(largest == minus_infinity ? S(0) : sum * exponential(largest - top), Sum{});

  const S share = 1 / total, scale = 1 / value_of<S>(a.divisor);
#pragma unroll 2
  for (Index v = thread * n; v < a.V; v += kThreads * n) {
    Pack<S, n> x = arguments.kept ? load_pack<S, n>(kept + v) : logits_at(v);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const bool at_target = v + k == target;
      if (at_target) {
        a.losses[m] = ::log(static_cast<double>(total)) - (static_cast<double>(x.v[k]) - static_cast<double>(top));
      }
      const S probability = exponential(x.v[k] - top) * share;
      x.v[k] = (at_target ? probability - 1 : probability) * scale;
    }
    store_pack<S, n>(dlogits + v, x);
  }
}

// ---- The mean ------------------------------------------------------------------------------------------------------

constexpr int kMeanThreads = 1024;
constexpr Index kMeanShared = kMeanThreads / kWarp * sizeof(double);
// One block adds up to so many losses; of more, blocks add chunks first.
constexpr Index kMostOfBlock = 16 * kMeanThreads, kLossChunk = 4 * kMeanThreads;

struct LossSum {
  const double* losses;  // (M,)
  Index M, chunk;
  double* sums;  // (blocks,)
};

__device__ inline double sum_of_block(const double* values, Index begin, Index end) {
  double sum = 0;
  for (Index m = begin + threadIdx.x; m < end; m += kMeanThreads) sum += values[m];
  return over_block(sum, shared_memory<double>(), Sum{});
}

__global__ void __launch_bounds__(kMeanThreads) sum_losses(LossSum a) {
  const Index begin = static_cast<Index>(blockIdx.x) * a.chunk;
  const double sum = sum_of_block(a.losses, begin, begin + a.chunk < a.M ? begin + a.chunk : a.M);
  if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kMeanThreads) divide_sum(MeanLoss a) {
  const double sum = sum_of_block(a.losses, 0, a.M);
  const double divisor = value_of<double>(a.divisor);
  if (threadIdx.x == 0) *a.loss = sum == 0 ? 0.0 : sum / divisor;
}

// ---- Around the products -------------------------------------------------------------------------------------------

template <class S, class Id>
struct ValidRowsArguments {
  ValidRows<S, Id> a;
  int bits;
};

template <class S, int n, class Id>
__global__ void __launch_bounds__(kRowThreads) copy_valid(ValidRowsArguments<S, Id> arguments) {
  const ValidRows<S, Id>& a = arguments.a;
  const Index m = row_of_thread(arguments.bits);
  if (m >= a.M) return;
  const bool valid = a.targets[m] != a.ignore_index;
  if (valid && a.from == a.to) return;
  const Index step = Index{n} << arguments.bits;
  for (Index e = place_in_row(arguments.bits) * n; e < a.E; e += step) {
    store_pack<S, n>(a.to + m * a.E + e, valid ? load_pack<S, n>(a.from + m * a.E + e) : Pack<S, n>{});
  }
}

constexpr int kColumnThreads = 512;
constexpr int kColumnWarps = kColumnThreads / kWarp;

// A block's warps share the rows of its columns, every kColumnWarps-th each.
template <class S, int n>
__global__ void __launch_bounds__(kColumnThreads) sum_over_rows(ColumnSum<S> a) {
  Pack<S, n>* const sums = shared_memory<Pack<S, n>>();  // [kColumnWarps][kWarp]
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const Index column = (static_cast<Index>(blockIdx.x) * kWarp + lane) * n;
  Pack<S, n> total{};
  if (column < a.V) {
#pragma unroll 8
    for (Index m = warp; m < a.M; m += kColumnWarps) total += load_pack<S, n>(a.matrix + m * a.V + column);
  }
  sums[threadIdx.x] = total;
  __syncthreads();
  if (warp > 0 || column >= a.V) return;
  for (int w = 1; w < kColumnWarps; ++w) total += sums[w * kWarp + lane];
  if (a.accumulate) {
    Pack<S, n> before = load_pack<S, n>(a.sums + column);
    before += total;
    total = before;
  }
  store_pack<S, n>(a.sums + column, total);
}

dim3 grid_of(Index blocks) { return dim3(static_cast<unsigned>(blocks)); }

}  // namespace

Index mean_loss_workspace(Index M) {
  return M <= kMostOfBlock ? 0 : divide_up(M, kLossChunk) * static_cast<Index>(sizeof(double));
}

template <class Id>
void count_targets(const TargetCount<Id>& a, cudaStream_t stream) {
  launch(count<Id>, grid_of(kCounts), kLossThreads, kLossWarps * static_cast<Index>(sizeof(int)), stream, false, a);
}

template <class S, class Id>
void softmax_loss(const SoftmaxLoss<S, Id>& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  const void* const bias = a.bias == nullptr ? a.logits : a.bias;
  with_pack_size<S>(pack_size<S>(a.V, {a.logits, bias, a.dlogits}), [&]<int n>() {
    if (a.V <= kMostOfWarp) {
      launch(softmax<S, n, Id, false>, grid_of(divide_up(a.rows, kLossWarps)), kLossThreads, 0, stream, false,
             SoftmaxArguments<S, Id>{a, false});
      return;
    }
    const Index row_bytes = a.V * static_cast<Index>(sizeof(S));
    const bool kept = row_bytes <= kMostKept;
    launch(softmax<S, n, Id, true>, grid_of(a.rows), kLossThreads, kScratchBytes + (kept ? row_bytes : 0), stream,
           false, SoftmaxArguments<S, Id>{a, kept});
  });
}

void mean_loss(const MeanLoss& a, char* workspace, cudaStream_t stream) {
  MeanLoss total = a;
  if (a.M > kMostOfBlock) {
    auto* const sums = reinterpret_cast<double*>(workspace);
    total.losses = sums;
    total.M = divide_up(a.M, kLossChunk);
    launch(sum_losses, grid_of(total.M), kMeanThreads, kMeanShared, stream, false,
           LossSum{a.losses, a.M, kLossChunk, sums});
  }
  launch(divide_sum, grid_of(1), kMeanThreads, kMeanShared, stream, false, total);
}

template <class S, class Id>
void copy_valid_rows(const ValidRows<S, Id>& a, cudaStream_t stream) {
  if (a.M == 0 || a.E == 0) return;
  with_pack_size<S>(pack_size<S>(a.E, {a.from, a.to}), [&]<int n>() {
    const RowThreads threads(a.E / n);
    launch(copy_valid<S, n, Id>, grid_of(threads.blocks(a.M)), kRowThreads, 0, stream, false,
           ValidRowsArguments<S, Id>{a, threads.bits});
  });
}

template <class S>
void sum_columns(const ColumnSum<S>& a, cudaStream_t stream) {
  if (a.V == 0) return;
  // Enough blocks for all multiprocessors come before wide loads: a warp reads 128 bytes of a row in any case.
  constexpr Index kEnoughBlocks = 128;
  int widest = pack_size<S>(a.V, {a.matrix, a.sums});
  while (widest > 1 && divide_up(a.V, kWarp * widest) < kEnoughBlocks) widest /= 2;
  with_pack_size<S>(widest, [&]<int n>() {
    launch(sum_over_rows<S, n>, grid_of(divide_up(a.V, kWarp * n)), kColumnThreads,
           kColumnThreads * static_cast<Index>(sizeof(Pack<S, n>)), stream, false, a);
  });
}

template void count_targets(const TargetCount<std::int32_t>&, cudaStream_t);
template void count_targets(const TargetCount<std::int64_t>&, cudaStream_t);
template void softmax_loss(const SoftmaxLoss<float, std::int32_t>&, cudaStream_t);
template void softmax_loss(const SoftmaxLoss<float, std::int64_t>&, cudaStream_t);
template void softmax_loss(const SoftmaxLoss<double, std::int32_t>&, cudaStream_t);
template void softmax_loss(const SoftmaxLoss<double, std::int64_t>&, cudaStream_t);
template void copy_valid_rows(const ValidRows<float, std::int32_t>&, cudaStream_t);
template void copy_valid_rows(const ValidRows<float, std::int64_t>&, cudaStream_t);
template void copy_valid_rows(const ValidRows<double, std::int32_t>&, cudaStream_t);
template void copy_valid_rows(const ValidRows<double, std::int64_t>&, cudaStream_t);
template void sum_columns(const ColumnSum<float>&, cudaStream_t);
template void sum_columns(const ColumnSum<double>&, cudaStream_t);

}  // namespace fastlstm::cuda
