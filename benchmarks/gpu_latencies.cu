// The latencies that decide how a persistent kernel should be built: barriers between blocks, within groups of them,
// and within clusters, and what blocks of a cluster send each other. Compiled and run by gpu.sh; prints one JSON
// object.
//
// Every kernel runs kRounds rounds of its barrier and notes the clock before and after; block 0's time counts, warm,
// the median of kRepeats launches. Every result is checked: a barrier that does not wait would be fast.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../csrc/cuda/device/device.h"

namespace cg = cooperative_groups;

namespace {

using fastlstm::cuda::add_release, fastlstm::cuda::load_acquire;

constexpr int kRounds = 2000, kRepeats = 9, kThreads = 256;

#define CHECK(call)                                                                       \
  do {                                                                                    \
    const cudaError_t error = (call);                                                     \
    if (error != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (0)

__device__ unsigned long long nanoseconds() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

struct Arguments {
  unsigned* counters;         // [groups]
  unsigned* data;             // [blocks]
  unsigned long long* times;  // [2]
  unsigned* wrong;
  int group;  // blocks that wait for each other
};

// A round: every block writes its number of the round, and after the barrier reads its neighbour's.
template <class Wait>
__device__ void rounds(const Arguments& a, int block, int first, int group, const Wait& wait) {
  unsigned long long start = 0;
  if (threadIdx.x == 0) start = nanoseconds();
  for (int round = 1; round <= kRounds; ++round) {
    if (threadIdx.x == 0) a.data[(round % 2) * gridDim.x + block] = static_cast<unsigned>(round);
    wait(round);
    if (threadIdx.x == 0) {
      const int neighbour = first + (block - first + 1) % group;
      if (__ldcg(a.data + (round % 2) * gridDim.x + neighbour) != static_cast<unsigned>(round)) atomicAdd(a.wrong, 1u);
    }
  }
  if (threadIdx.x == 0 && block == 0) {
    a.times[0] = start;
    a.times[1] = nanoseconds();
  }
}

__global__ void __launch_bounds__(kThreads) grid_sync(Arguments a) {
  const cg::grid_group grid = cg::this_grid();
  rounds(a, blockIdx.x, 0, gridDim.x, [&](int) { grid.sync(); });
}

__global__ void __launch_bounds__(kThreads) own_barrier(Arguments a) {
  const int block = blockIdx.x, first = block / a.group * a.group;
  const int group = min(a.group, static_cast<int>(gridDim.x) - first);
  unsigned* const counter = a.counters + 64 * (block / a.group);  // counters on lines of their own
  rounds(a, block, first, group, [&](int round) {
    __syncthreads();
    if (threadIdx.x == 0) {
      add_release(counter);
      while (load_acquire(counter) < static_cast<unsigned>(round * group)) {
      }
    }
    __syncthreads();
  });
}

// A round: write to the next block's shared memory, barrier of the cluster, read what came.
__global__ void __launch_bounds__(kThreads) cluster_barrier(Arguments a) {
#if __CUDA_ARCH__ >= 900
  __shared__ unsigned inbox[2];
  const cg::cluster_group cluster = cg::this_cluster();
  const unsigned rank = cluster.block_rank(), size = cluster.num_blocks();
  unsigned* const next = cluster.map_shared_rank(inbox, (rank + 1) % size);
  cluster.sync();
  unsigned long long start = 0;
  if (threadIdx.x == 0) start = nanoseconds();
  for (int round = 1; round <= kRounds; ++round) {
    if (threadIdx.x == 0) next[round % 2] = static_cast<unsigned>(round);
    cluster.sync();
    if (threadIdx.x == 0 && inbox[round % 2] != static_cast<unsigned>(round)) atomicAdd(a.wrong, 1u);
  }
  if (threadIdx.x == 0 && blockIdx.x == 0) {
    a.times[0] = start;
    a.times[1] = nanoseconds();
  }
  cluster.sync();  // nobody leaves while others write to its memory
#else
  (void)a;
#endif
}

// A round: every block stores 16 bytes in every block, as recurrent/cluster.h does, and waits for those of all.
__global__ void __launch_bounds__(kThreads) cluster_push(Arguments a) {
#if __CUDA_ARCH__ >= 900
  using namespace fastlstm::cuda;
  __shared__ Packed16 inbox[2][16];
  __shared__ Mbarrier arrivals[2];
  const int rank = cluster_rank(), size = a.group, bytes = size * static_cast<int>(sizeof(Packed16));
  if (threadIdx.x == 0) {
    for (Mbarrier& barrier : arrivals) {
      mbarrier_init(&barrier);
      mbarrier_expect(&barrier, bytes);
    }
  }
  fastlstm::cuda::cluster_barrier();
  unsigned long long start = 0;
  if (threadIdx.x == 0) start = nanoseconds();
  for (int round = 1; round <= kRounds; ++round) {
    const int slot = round % 2, to = static_cast<int>(threadIdx.x);
    const auto number = static_cast<unsigned>(round);
    if (to < size) store_remote(&inbox[slot][rank], &arrivals[slot], to, {number, number, number, number});
    mbarrier_wait(&arrivals[slot], (round - 1) / 2 % 2);
    if (threadIdx.x == 0) {
      mbarrier_expect(&arrivals[slot], bytes);
      if (inbox[slot][(rank + 1) % size].w != number) atomicAdd(a.wrong, 1u);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0 && blockIdx.x == 0) {
    a.times[0] = start;
    a.times[1] = nanoseconds();
  }
  fastlstm::cuda::cluster_barrier();
#else
  static_cast<void>(a);
#endif
}

struct Memory {
  Arguments a{};
  Memory() {
    CHECK(cudaMalloc(&a.counters, 64 * 1024 * sizeof(unsigned)));
    CHECK(cudaMalloc(&a.data, 4096 * sizeof(unsigned)));
    CHECK(cudaMalloc(&a.times, 2 * sizeof(unsigned long long)));
    CHECK(cudaMalloc(&a.wrong, sizeof(unsigned)));
  }
};

// Nanoseconds a round, or a negative number where the launch is refused.
double measure(const void* kernel, int blocks, int group, int cluster, bool together) {
  static Memory memory;
  Arguments a = memory.a;
  a.group = group;
  std::vector<double> rounds;
  for (int repeat = 0; repeat < kRepeats + 2; ++repeat) {
    CHECK(cudaMemset(a.counters, 0, 64 * 1024 * sizeof(unsigned)));
    CHECK(cudaMemset(a.data, 0, 4096 * sizeof(unsigned)));
    CHECK(cudaMemset(a.wrong, 0, sizeof(unsigned)));
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(kThreads);
    cudaLaunchAttribute attributes[2];
    if (cluster > 1) {
      attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[config.numAttrs].val.clusterDim.x = static_cast<unsigned>(cluster);
      attributes[config.numAttrs].val.clusterDim.y = 1;
      attributes[config.numAttrs++].val.clusterDim.z = 1;
    }
    if (together) {
      attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
      attributes[config.numAttrs++].val.cooperative = 1;
    }
    config.attrs = attributes;
    void* parameters[] = {&a};
    if (cudaLaunchKernelExC(&config, kernel, parameters) != cudaSuccess) {
      cudaGetLastError();
      return -1;
    }
    CHECK(cudaDeviceSynchronize());
    unsigned long long times[2];
    unsigned wrong;
    CHECK(cudaMemcpy(times, a.times, sizeof times, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&wrong, a.wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    if (wrong != 0) {
      std::fprintf(stderr, "a barrier of %d blocks did not wait: %u wrong reads\n", blocks, wrong);
      std::exit(1);
    }
    if (repeat >= 2) rounds.push_back(static_cast<double>(times[1] - times[0]) / kRounds);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[rounds.size() / 2];
}

// Clusters of this size that run at a time, each block with so much shared memory.
int resident_clusters(int cluster, int shared_bytes) {
  const void* const kernel = reinterpret_cast<const void*>(cluster_barrier);
  if (cluster > 8) CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(cluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = -1;
  if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) cudaGetLastError();
  return clusters;
}

}  // namespace

int main() {
  cudaDeviceProp device;
  CHECK(cudaGetDeviceProperties(&device, 0));
  const int all = device.multiProcessorCount, quarter = all / 4;
  const void* const grid = reinterpret_cast<const void*>(grid_sync);
  const void* const own = reinterpret_cast<const void*>(own_barrier);
  const void* const clusters = reinterpret_cast<const void*>(cluster_barrier);
  const void* const pushes = reinterpret_cast<const void*>(cluster_push);
  std::printf("{\"multiprocessors\": %d", all);
  std::printf(", \"grid_sync_ns\": %.0f", measure(grid, all, all, 1, true));
  std::printf(", \"own_barrier_all_ns\": %.0f", measure(own, all, all, 1, true));
  std::printf(", \"own_barrier_quarter_alone_ns\": %.0f", measure(own, quarter, quarter, 1, true));
  std::printf(", \"own_barrier_four_quarters_ns\": %.0f", measure(own, 4 * quarter, quarter, 1, true));
  if (device.major >= 9) {
    CHECK(cudaFuncSetAttribute(clusters, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    std::printf(", \"cluster_8_ns\": %.0f", measure(clusters, 8, 8, 8, false));
    std::printf(", \"cluster_16_ns\": %.0f", measure(clusters, 16, 16, 16, false));
    CHECK(cudaFuncSetAttribute(pushes, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    std::printf(", \"cluster_push_8_ns\": %.0f", measure(pushes, 8, 8, 8, false));
    std::printf(", \"cluster_push_16_ns\": %.0f", measure(pushes, 16, 16, 16, false));
    const int most = static_cast<int>(device.sharedMemPerBlockOptin) - 1024;
    for (const int size : {4, 8, 16}) {
      std::printf(", \"resident_clusters_of_%d\": %d", size, resident_clusters(size, most));
    }
  }
  std::printf("}\n");
  return 0;
}
