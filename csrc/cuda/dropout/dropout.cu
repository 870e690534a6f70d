#include <algorithm>
#include <cstring>

#include "../../splitmix.h"
#include "../device/device.h"
#include "dropout.h"

namespace fastlstm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 132 * 8;

// A thread writes 16 bytes at a time.
template <class S>
__global__ void __launch_bounds__(kThreads) dropout_mask_kernel(DropoutMask a) {
  constexpr int kInPack = sizeof(Packed16) / sizeof(S);
  S* const mask = static_cast<S*>(a.mask);
  const S factor = static_cast<S>(a.factor);
  const std::uint64_t seed = a.seed.get();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads * kInPack;
  for (std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kInPack; first < a.count;
       first += stride) {
    S values[kInPack];
#pragma unroll
    for (int k = 0; k < kInPack; ++k) {
      values[k] = uniform(seed, static_cast<std::uint64_t>(first + k)) >= a.ratio ? factor : S{0};
    }
    if (first + kInPack <= a.count) {
      Packed16 pack;
      std::memcpy(&pack, values, sizeof pack);
      *reinterpret_cast<Packed16*>(mask + first) = pack;
    } else {
#pragma unroll
      for (int k = 0; k < kInPack; ++k) {
        if (first + k < a.count) mask[first + k] = values[k];
      }
    }
  }
}

}  // namespace

void dropout_mask(const DropoutMask& arguments, cudaStream_t stream) {
  if (arguments.count == 0) return;
  const std::int64_t in_block = kThreads * (arguments.float64 ? 2 : 4);
  const auto blocks = static_cast<unsigned>(std::min((arguments.count + in_block - 1) / in_block, kMostBlocks));
  launch(arguments.float64 ? dropout_mask_kernel<double> : dropout_mask_kernel<float>, dim3(blocks), kThreads, 0,
         stream, false, arguments);
}

}  // namespace fastlstm::cuda
