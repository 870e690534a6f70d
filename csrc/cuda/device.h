// What kernels use beyond plain C++: the GPU's own instructions, in the few places that need them, or their emulation
// on the CPU (FASTLSTM_CUDA_EMULATION), with which tests run the very same kernels where there is no GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "check.h"

namespace fastlstm::cuda {

// 16 bytes, what a thread moves at once.
using Quad = uint4;

}  // namespace fastlstm::cuda

#if defined(FASTLSTM_CUDA_EMULATION)

#include "emulation/device.h"

#else

namespace fastlstm::cuda {

template <class T>
__device__ inline T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

// What another multiprocessor wrote: from L2, past L1, which is not coherent.
__device__ inline Quad load_l2(const Quad* p) { return __ldcg(p); }

// The two halves of a barrier between blocks. All that was written before add_release, by other threads of the block
// too if a __syncthreads stands between, is seen after a load_acquire that returns the sum.
__device__ inline void add_release(unsigned* counter) {
  asm volatile("fence.acq_rel.gpu;\n\tred.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
__device__ inline unsigned load_acquire(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

// How many came here before; what those wrote before they came is seen afterwards.
__device__ inline unsigned take_ticket(unsigned* counter) {
  __threadfence();
  const unsigned ticket = atomicAdd(counter, 1u);
  __threadfence();
  return ticket;
}
// Whole numbers only: their order does not matter.
__device__ inline void atomic_min(long long* p, long long value) { atomicMin(p, value); }
__device__ inline long long atomic_exchange(long long* p, long long value) {
  return static_cast<long long>(
      atomicExch(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(value)));
}
// What was written before is seen by the host before what is written afterwards.
__device__ inline void fence_system() { __threadfence_system(); }

// The value of the thread whose lane differs in the bits of `bits`. Every thread of the warp has to come here.
template <class T>
__device__ inline T shuffle_xor(T value, int bits) {
  return __shfl_xor_sync(0xffffffffu, value, bits);
}

// A bit for each lane of the warp that says yes. Every thread of the warp has to come here.
__device__ inline unsigned ballot(bool yes) { return __ballot_sync(0xffffffffu, yes); }

// The sum over the four threads of a warp whose lanes differ in their last two bits, in each of them.
template <class S, int n>
__device__ inline void sum_over_four_lanes(S (&values)[n]) {
#pragma unroll
  for (int k = 0; k < n; ++k) {
    values[k] += __shfl_xor_sync(0xffffffffu, values[k], 1);
    values[k] += __shfl_xor_sync(0xffffffffu, values[k], 2);
  }
}

// c (16, 8) += a (16, 8) b (8, 8), in a warp's fragments: PTX ISA, "Matrix fragments for mma.m16n8k8".
__device__ inline void mma_tf32(float (&c)[4], const Quad& a, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// c (16, 8) += a (16, 16) b (16, 8): PTX ISA, "Matrix fragments for mma.m16n8k16".
__device__ inline void mma_bf16(float (&c)[4], const Quad& a, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Launches a kernel, which takes its arguments as one block, on a stream. With together, all blocks run at once, or
// the launch is an error.
template <class Arguments>
void launch(void (*kernel)(Arguments), dim3 grid, int threads, std::int64_t shared_bytes, cudaStream_t stream,
            bool together, Arguments arguments) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  constexpr std::int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "cannot get shared memory");
  }
  void* parameters[] = {&arguments};
  const dim3 block(static_cast<unsigned>(threads));
  const auto bytes = static_cast<std::size_t>(shared_bytes);
  check(together ? cudaLaunchCooperativeKernel(function, grid, block, parameters, bytes, stream)
                 : cudaLaunchKernel(function, grid, block, parameters, bytes, stream),
        "cannot launch a kernel");
}

}  // namespace fastlstm::cuda

#endif
