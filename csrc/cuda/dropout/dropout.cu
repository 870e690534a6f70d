#include <algorithm>

#include "../../splitmix.h"
#include "../device/pack.h"
#include "dropout.h"

namespace fastlstm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 132 * 8;

// A thread writes 16 bytes at a time.
template <class S>
__global__ void __launch_bounds__(kThreads) dropout_mask_kernel(DropoutMask a) {
  S* const mask = static_cast<S*>(a.mask);
  const S factor = static_cast<S>(a.factor);
  const std::uint64_t seed = a.seed.get();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads * kInPack<S>;
  for (std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kInPack<S>; first < a.count;
       first += stride) {
    Pack<S> values;
#pragma unroll
    for (int k = 0; k < kInPack<S>; ++k) {
      values.v[k] = uniform(seed, static_cast<std::uint64_t>(first + k)) >= a.ratio ? factor : S{0};
    }
    if (first + kInPack<S> <= a.count) {
      store_pack(mask + first, values);
    } else {
#pragma unroll
      for (int k = 0; k < kInPack<S>; ++k) {
        if (first + k < a.count) mask[first + k] = values.v[k];
      }
    }
  }
}

}  // namespace

void dropout_mask(const DropoutMask& arguments, cudaStream_t stream) {
  if (arguments.count == 0) return;
  const std::int64_t in_block = kThreads * (arguments.float64 ? 2 : 4);
  const auto blocks = static_cast<unsigned>(std::min(divide_up(arguments.count, in_block), kMostBlocks));
  launch(arguments.float64 ? dropout_mask_kernel<double> : dropout_mask_kernel<float>, dim3(blocks), kThreads, 0,
         stream, false, arguments);
}

}  // namespace fastlstm::cuda
