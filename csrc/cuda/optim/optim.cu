// The kernels of the optimisers and of clipping: bound by the memory's speed, so all they do is to read and write in
// whole 16 bytes wherever the arrays' places allow it.
#include <limits>
#include <stdexcept>

#include "../device/pack.h"
#include "../device/reduce.h"
#include "optim.h"

namespace fastlstm::cuda {
namespace {

// The array that a piece belongs to: the last one whose first piece is not behind it.
template <class Tensors>
__device__ int tensor_of_piece(const Tensors& tensors, int count, int piece) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (tensors[middle].first_piece <= piece ? low : high) = middle;
  }
  return low;
}

// ---- Updates -------------------------------------------------------------------------------------------------------

struct Roots {
  FASTLSTM_HOST_DEVICE static float square_root(float x) { return sqrtf(x); }
  FASTLSTM_HOST_DEVICE static double square_root(double x) { return ::sqrt(x); }
};

template <class S, OptimRule rule>
__device__ OptimHyperparameters<S> hyperparameters_of(const UpdateArguments<S>& a) {
  double correction = a.correction;
  if (rule == OptimRule::kAdam && a.step) {
    // One thread does the two powers for its block.
    double* const shared = shared_memory<double>();
    if (threadIdx.x == 0) {
      const double step = static_cast<double>(*a.step);
      *shared = ::sqrt(1 - ::pow(a.beta2, step)) / (1 - ::pow(a.momentum, step));
    }
    __syncthreads();
    correction = *shared;
  }
  const double lr = a.lr.get();
  return OptimHyperparameters<S>({.grad_scale = a.grad_scale.get(),
                                  .lr = lr * correction,
                                  .momentum = a.momentum,
                                  .beta2 = a.beta2,
                                  .eps = a.eps,
                                  .eps_inside_root = a.eps_inside_root,
                                  .decay = lr * a.weight_decay});
}

template <class S, OptimRule rule>
__global__ void __launch_bounds__(kOptimThreads) update_tensors(UpdateArguments<S> a) {
  constexpr bool kFirst = rule != OptimRule::kSgd;
  constexpr bool kSecond = rule == OptimRule::kAdam;
  constexpr Index kPiece = kPiecePacks * kInPack<S>;
  const OptimHyperparameters<S> hyperparameters = hyperparameters_of<S, rule>(a);
  const int piece = static_cast<int>(blockIdx.x);
  const UpdatedTensor<S>& tensor = a.tensors[tensor_of_piece(a.tensors, a.count, piece)];
  S* const param = tensor.param;
  const S* const grad = tensor.grad;
  S* const first = tensor.first;
  S* const second = tensor.second;
  const void* const rows = tensor.rows;
  const Index width = tensor.width;
  const bool wide_ids = tensor.id_bytes == 8;

  // Where the element of the gradient at this place belongs.
  const auto place_of = [&](Index at) {
    if (!rows) return at;
    const Index row = at / width;
    const Index id = wide_ids ? static_cast<Index>(static_cast<const std::int64_t*>(rows)[row])
                              : static_cast<Index>(static_cast<const std::int32_t*>(rows)[row]);
    return id * width + at % width;
  };

  const Index begin = (piece - tensor.first_piece) * kPiece;
  const Index size = valid_size(tensor.size, tensor.width, tensor.num_rows);
  if (begin >= size) return;
  const Index end = begin + kPiece < size ? begin + kPiece : size;
  const bool packs = begins_with_pack(param) && begins_with_pack(grad) && begins_with_pack(first) &&
                     begins_with_pack(second) && (!rows || width % kInPack<S> == 0);
  const Index end_of_packs = packs ? begin + (end - begin) / kInPack<S> * kInPack<S> : begin;
#pragma unroll 1
  for (Index at = begin + static_cast<Index>(threadIdx.x) * kInPack<S>; at < end_of_packs;
       at += kOptimThreads * kInPack<S>) {
    const Index place = place_of(at);
    const Pack<S> g = load_pack(grad + at);
    Pack<S> p = load_pack(param + place), m{}, v{};
    if constexpr (kFirst) m = load_pack(first + place);
    if constexpr (kSecond) v = load_pack(second + place);
#pragma unroll
    for (int k = 0; k < kInPack<S>; ++k) optim_step<rule, Roots>(hyperparameters, p.v[k], g.v[k], m.v[k], v.v[k]);
    store_pack(param + place, p);
    if constexpr (kFirst) store_pack(first + place, m);
    if constexpr (kSecond) store_pack(second + place, v);
  }
#pragma unroll 1
  for (Index at = end_of_packs + static_cast<Index>(threadIdx.x); at < end; at += kOptimThreads) {
    const Index place = place_of(at);
    S p = param[place], m{}, v{};
    if constexpr (kFirst) m = first[place];
    if constexpr (kSecond) v = second[place];
    optim_step<rule, Roots>(hyperparameters, p, grad[at], m, v);
    param[place] = p;
    if constexpr (kFirst) first[place] = m;
    if constexpr (kSecond) second[place] = v;
  }
}

// ---- Clipping ------------------------------------------------------------------------------------------------------

// change(x) for every element x of the block's piece.
template <class S, class Arguments, class Change>
__device__ void change_piece(const Arguments& a, const Change& change) {
  constexpr Index kPiece = kPiecePacks * kInPack<S>;
  const int piece = static_cast<int>(blockIdx.x);
  const ScaledTensor<S>& tensor = a.tensors[tensor_of_piece(a.tensors, a.count, piece)];
  S* const values = tensor.values;
  const Index begin = (piece - tensor.first_piece) * kPiece;
  const Index end = begin + kPiece < tensor.size ? begin + kPiece : tensor.size;
  const Index end_of_packs = begins_with_pack(values) ? begin + (end - begin) / kInPack<S> * kInPack<S> : begin;
  for (Index at = begin + static_cast<Index>(threadIdx.x) * kInPack<S>; at < end_of_packs;
       at += kOptimThreads * kInPack<S>) {
    Pack<S> pack = load_pack(values + at);
#pragma unroll
    for (int k = 0; k < kInPack<S>; ++k) change(pack.v[k]);
    store_pack(values + at, pack);
  }
  for (Index at = end_of_packs + static_cast<Index>(threadIdx.x); at < end; at += kOptimThreads) change(values[at]);
}

template <class S>
__global__ void __launch_bounds__(kOptimThreads) scale_tensors(ScaleArguments<S> a) {
  const S factor = static_cast<S>(a.factor.get());
  if (factor == S(1)) return;  // gradients below the limit are not even read
  change_piece<S>(a, [=](S& x) { x *= factor; });
}

template <class S>
__global__ void __launch_bounds__(kOptimThreads) clip_tensors(ClipArguments<S> a) {
  const S limit = a.limit;
  change_piece<S>(a, [=](S& x) { x = x > limit ? limit : (x < -limit ? -limit : x); });
}

// The sum of squares of a piece, in float64.
template <class S>
__global__ void __launch_bounds__(kOptimThreads) sum_squares(NormArguments<S> a) {
  constexpr Index kPiece = kNormPiecePacks * kInPack<S>;
  const int piece = static_cast<int>(blockIdx.x);
  const ScaledTensor<const S>& tensor = a.tensors[tensor_of_piece(a.tensors, a.count, piece)];
  const S* const values = tensor.values;
  const Index begin = (piece - tensor.first_piece) * kPiece;
  const Index size = valid_size(tensor.size, tensor.width, tensor.num_rows);
  const Index end = begin + kPiece < size ? begin + kPiece : (begin < size ? size : begin);
  const Index end_of_packs = begins_with_pack(values) ? begin + (end - begin) / kInPack<S> * kInPack<S> : begin;
  double sums[kInPack<S>] = {};
#pragma unroll 4
  for (Index at = begin + static_cast<Index>(threadIdx.x) * kInPack<S>; at < end_of_packs;
       at += kOptimThreads * kInPack<S>) {
    const Pack<S> x = load_pack(values + at);
#pragma unroll
    for (int k = 0; k < kInPack<S>; ++k) sums[k] += static_cast<double>(x.v[k]) * static_cast<double>(x.v[k]);
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  for (Index at = end_of_packs + static_cast<Index>(threadIdx.x); at < end; at += kOptimThreads) {
    total += static_cast<double>(values[at]) * static_cast<double>(values[at]);
  }
  total = over_block(total, shared_memory<double>(), Sum());
  if (threadIdx.x == 0) a.partials[piece] = total;
}

struct TotalArguments {
  const double* partials;
  Index count;
  bool root;
  double* total;
};

// One block, so that all partial sums meet in one order.
__global__ void __launch_bounds__(kOptimThreads) sum_partials(TotalArguments a) {
  double total = 0;
  for (Index i = threadIdx.x; i < a.count; i += kOptimThreads) total += a.partials[i];
  total = over_block(total, shared_memory<double>(), Sum());
  if (threadIdx.x == 0) *a.total = a.root ? ::sqrt(total) : total;
}

struct ClipScaleArguments {
  const double* norm;
  double max_norm;
  double* scale;
};

__global__ void compute_clip_scale(ClipScaleArguments a) {
  if (threadIdx.x == 0) *a.scale = *a.norm > a.max_norm ? a.max_norm / (*a.norm + 1e-6) : 1.0;
}

constexpr Index kScratchBytes = kOptimThreads / kWarp * static_cast<Index>(sizeof(double));

// Numbers the pieces of the arrays; returns how many there are.
template <class S, class Arguments>
Index number_pieces(Arguments& a, Index piece_packs) {
  Index pieces = 0;
  for (int i = 0; i < a.count; ++i) {
    a.tensors[i].first_piece = static_cast<int>(pieces);
    pieces += pieces_of<S>(a.tensors[i].size, piece_packs);
  }
  if (pieces > std::numeric_limits<int>::max()) throw std::length_error("the arrays of one update are too large");
  return pieces;
}

template <class S>
auto* update_kernel(OptimRule rule) {
  switch (rule) {
    case OptimRule::kSgd:
      return update_tensors<S, OptimRule::kSgd>;
    case OptimRule::kMomentum:
      return update_tensors<S, OptimRule::kMomentum>;
    case OptimRule::kNesterov:
      return update_tensors<S, OptimRule::kNesterov>;
    case OptimRule::kAdaGrad:
      return update_tensors<S, OptimRule::kAdaGrad>;
    case OptimRule::kRmsProp:
      return update_tensors<S, OptimRule::kRmsProp>;
    default:
      return update_tensors<S, OptimRule::kAdam>;
  }
}

}  // namespace

template <class S>
void launch_update(OptimRule rule, UpdateArguments<S> a, cudaStream_t stream) {
  const Index pieces = number_pieces<S>(a, kPiecePacks);
  if (pieces == 0) return;
  launch(update_kernel<S>(rule), dim3(static_cast<unsigned>(pieces)), kOptimThreads, a.step ? sizeof(double) : 0,
         stream, false, a);
}

template <class S>
void launch_scale(ScaleArguments<S> a, cudaStream_t stream) {
  const Index pieces = number_pieces<S>(a, kPiecePacks);
  if (pieces == 0) return;
  launch(scale_tensors<S>, dim3(static_cast<unsigned>(pieces)), kOptimThreads, 0, stream, false, a);
}

template <class S>
void launch_clip(ClipArguments<S> a, cudaStream_t stream) {
  const Index pieces = number_pieces<S>(a, kPiecePacks);
  if (pieces == 0) return;
  launch(clip_tensors<S>, dim3(static_cast<unsigned>(pieces)), kOptimThreads, 0, stream, false, a);
}

template <class S>
Index launch_squares(NormArguments<S> a, cudaStream_t stream) {
  const Index pieces = number_pieces<S>(a, kNormPiecePacks);
  if (pieces > 0) {
    launch(sum_squares<S>, dim3(static_cast<unsigned>(pieces)), kOptimThreads, kScratchBytes, stream, false, a);
  }
  return pieces;
}

void launch_total(const double* partials, Index count, bool root, double* total, cudaStream_t stream) {
  launch(sum_partials, dim3(1), kOptimThreads, kScratchBytes, stream, false,
         TotalArguments{partials, count, root, total});
}

void launch_clip_scale(const double* norm, double max_norm, double* scale, cudaStream_t stream) {
  launch(compute_clip_scale, dim3(1), kWarp, 0, stream, false, ClipScaleArguments{norm, max_norm, scale});
}

template void launch_update<float>(OptimRule, UpdateArguments<float>, cudaStream_t);
template void launch_update<double>(OptimRule, UpdateArguments<double>, cudaStream_t);
template void launch_scale<float>(ScaleArguments<float>, cudaStream_t);
template void launch_scale<double>(ScaleArguments<double>, cudaStream_t);
template void launch_clip<float>(ClipArguments<float>, cudaStream_t);
template void launch_clip<double>(ClipArguments<double>, cudaStream_t);
template Index launch_squares<float>(NormArguments<float>, cudaStream_t);
template Index launch_squares<double>(NormArguments<double>, cudaStream_t);

}  // namespace fastlstm::cuda
