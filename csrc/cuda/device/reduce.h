// Sums and maxima over a warp or a block, in one fixed order: the same bits in every thread and every run.
#pragma once

#include "device.h"

namespace fastlstm::cuda {

constexpr int kWarp = 32;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// NaN wins.
struct Maximum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

template <class Combine, class T>
__device__ T over_warp(T value, const Combine& combine) {
#pragma unroll
  for (int bits = 1; bits < kWarp; bits *= 2) {
    const T other = shuffle_xor(value, bits);
    // The lower lane's value is the left operand on both sides.
    value = (threadIdx.x & static_cast<unsigned>(bits)) == 0 ? combine(value, other) : combine(other, value);
  }
  return value;
}

// scratch, in shared memory, holds a T for each warp; all threads of the block come here. May be called again at once.
template <class Combine, class T>
__device__ T over_block(T value, T* scratch, const Combine& combine) {
  const unsigned warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  value = over_warp(value, combine);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[warp] = value;
  __syncthreads();
  T total = scratch[0];
  for (unsigned w = 1; w < warps; ++w) total = combine(total, scratch[w]);
  return total;
}

// A thread's place among those of its block that said yes, in the order of their numbers.
struct Place {
  unsigned before, all;
};

// scratch, in shared memory, holds a number for each warp; all threads of the block come here. May be called again at
// once.
__device__ inline Place place_in_block(bool yes, unsigned* scratch) {
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const unsigned votes = ballot(yes);
  __syncthreads();
  if (lane == 0) scratch[warp] = static_cast<unsigned>(__popc(votes));
  __syncthreads();
  Place place{static_cast<unsigned>(__popc(votes & ((1u << lane) - 1))), 0};
  for (unsigned w = 0; w < warps; ++w) {
    const unsigned count = scratch[w];
    if (w < warp) place.before += count;
    place.all += count;
  }
  return place;
}

}  // namespace fastlstm::cuda
