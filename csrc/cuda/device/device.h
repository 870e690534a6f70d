// What kernels use beyond plain C++: the GPU's own instructions, in the few places that need them, or their emulation
// on the CPU (FASTLSTM_CUDA_EMULATION), with which tests run the very same kernels where there is no GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "check.h"

namespace fastlstm::cuda {

// 16 bytes, what a thread moves at once, as words. Numbers are a Pack of pack.h.
using Packed16 = uint4;

// What threads wait at for bytes that other blocks of their cluster send, in shared memory.
using Mbarrier = std::uint64_t;

}  // namespace fastlstm::cuda

#if defined(FASTLSTM_CUDA_EMULATION)

#include "../emulation/device.h"

#else

namespace fastlstm::cuda {

template <class T>
__device__ inline T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

// What another multiprocessor wrote: from L2, past L1, which is not coherent. Not __ldcg, which in the headers of some
// versions of CUDA may be moved across a barrier.
__device__ inline Packed16 load_l2(const Packed16* p) {
  Packed16 pack;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(pack.x), "=r"(pack.y), "=r"(pack.z), "=r"(pack.w)
               : "l"(p)
               : "memory");
  return pack;
}

// The two halves of a barrier between blocks. All that was written before add_release, by other threads of the block
// too if a __syncthreads stands between, is seen after a load_acquire that returns the sum.
__device__ inline void add_release(unsigned* counter) {
  // No fence before it: ptxas makes one of the release, and each takes hundreds of cycles of every step.
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
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

// The value of the thread with that lane. Every thread of the warp has to come here.
template <class T>
__device__ inline T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
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
__device__ inline void mma_tf32(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// c (16, 8) += a (16, 16) b (16, 8): PTX ISA, "Matrix fragments for mma.m16n8k16".
__device__ inline void mma_bf16(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// ---- Clusters of blocks ---------------------------------------------------------------------------------------------
//
// Blocks of a cluster store into each other's shared memory. A store carries its own flag: with the data come the
// number of its bytes, which an mbarrier of the receiver counts. PTX ISA, "st.async" and "mbarrier".

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define FASTLSTM_CLUSTERS 1

// Which block of its cluster this is.
__device__ inline int cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// All threads of all blocks of the cluster wait for each other.
__device__ inline void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// A phase of the barrier is complete when mbarrier_expect was called once and as many bytes as it named have come.
// Others may send after the next cluster_barrier.
__device__ inline void mbarrier_init(Mbarrier* barrier) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(shared_address(barrier))
      : "memory");
}
__device__ inline void mbarrier_expect(Mbarrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
// Until the phase with this parity is complete; the first phase's is 0. What has come is seen afterwards.
__device__ inline void mbarrier_wait(Mbarrier* barrier, int parity) {
  unsigned complete = 0;
  while (!complete) {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
}

// Stores 16 bytes in another block of the cluster, or this one, where in this block `place` is, and tells its mbarrier.
// The cluster has to have more than one block.
__device__ inline void store_remote(Packed16* place, Mbarrier* barrier, int rank, const Packed16& value) {
  unsigned to, tell;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(place)), "r"(rank));
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(tell) : "r"(shared_address(barrier)), "r"(rank));
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(tell)
      : "memory");
}

#endif

// For code that must not run: the launch fails.
__device__ inline void trap() { asm volatile("trap;"); }

// ---- Launches -------------------------------------------------------------------------------------------------------

// A kernel has one limit of shared memory, which launches of more than 48 KB need. It is the device's, whatever a
// launch takes: other threads launch the same kernel, and a launch that is captured needs its limit once more, when its
// graph is made, which may be after a smaller launch.
inline cudaError_t allow_shared_memory(const void* function) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

// A launch of blocks in clusters of `size`; the attribute has to live as long as the configuration.
inline cudaLaunchConfig_t cluster_launch(unsigned blocks, int size, int threads, std::int64_t shared_bytes,
                                         cudaStream_t stream, cudaLaunchAttribute& attribute) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(size);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

inline cudaError_t allow_cluster(const void* function, int size) {
  constexpr int kPortable = 8;
  const cudaError_t error = allow_shared_memory(function);
  if (error != cudaSuccess || size <= kPortable) return error;
  return cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
}

// The largest cluster that runs on the current device, of blocks that ask for so much shared memory; 0 if the kernel
// was not compiled for clusters, as where the driver compiled it from the PTX for earlier devices.
template <class Arguments>
int largest_cluster(void (*kernel)(Arguments), int threads, std::int64_t shared_bytes, int device) {
  static std::mutex mutex;
  static std::map<int, int> known;  // by device: asking takes long
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  const void* const function = reinterpret_cast<const void*>(kernel);
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, function), "cannot ask for the properties of a kernel");
  constexpr int kWithClusters = 90;
  int largest = 0;
  for (int size = 16; attributes.ptxVersion >= kWithClusters && size > 0 && largest == 0; size /= 2) {
    cudaLaunchAttribute attribute{};
    const cudaLaunchConfig_t config =
        cluster_launch(static_cast<unsigned>(size), size, threads, shared_bytes, nullptr, attribute);
    int clusters = 0;
    const bool answered = allow_cluster(function, size) == cudaSuccess &&
                          cudaOccupancyMaxActiveClusters(&clusters, function, &config) == cudaSuccess;
    if (!answered) static_cast<void>(cudaGetLastError());  // or the next launch would be blamed
    if (answered && clusters > 0) largest = size;
  }
  return known[device] = largest;
}

// Launches a kernel in clusters of `size` blocks, which follow each other in the grid.
template <class Arguments>
void launch_clusters(void (*kernel)(Arguments), unsigned clusters, int size, int threads, std::int64_t shared_bytes,
                     cudaStream_t stream, Arguments arguments) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  check(allow_cluster(function, size), "cannot get shared memory or large clusters");
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config =
      cluster_launch(clusters * static_cast<unsigned>(size), size, threads, shared_bytes, stream, attribute);
  void* parameters[] = {&arguments};
  check(cudaLaunchKernelExC(&config, function, parameters), "cannot launch clusters");
}

// Launches a kernel, which takes its arguments as one block, on a stream. With together, all blocks run at once, or
// the launch is an error.
template <class Arguments>
void launch(void (*kernel)(Arguments), dim3 grid, int threads, std::int64_t shared_bytes, cudaStream_t stream,
            bool together, Arguments arguments) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  constexpr std::int64_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) check(allow_shared_memory(function), "cannot get shared memory");
  void* parameters[] = {&arguments};
  const dim3 block(static_cast<unsigned>(threads));
  const auto bytes = static_cast<std::size_t>(shared_bytes);
  check(together ? cudaLaunchCooperativeKernel(function, grid, block, parameters, bytes, stream)
                 : cudaLaunchKernel(function, grid, block, parameters, bytes, stream),
        "cannot launch a kernel");
}

}  // namespace fastlstm::cuda

#endif
