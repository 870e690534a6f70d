// The little of cuda_runtime.h that csrc/cuda uses, for a device that does not exist: see device.h beside this.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// Those of the thread that runs just now.
inline uint3 threadIdx, blockIdx;
inline dim3 gridDim, blockDim;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidDevice };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};

namespace fastlstm::cuda::emulation {

// What tests may change.
struct Settings {
  int multiprocessors = 132;
  int shared_bytes = 227 * 1024;
  std::uint64_t seed = 0;   // of the order in which threads run
  int largest_cluster = 0;  // 0: a GPU without clusters
  std::int64_t launches = 0;
};
inline Settings settings;

}  // namespace fastlstm::cuda::emulation

inline const char* cudaGetErrorString(cudaError_t) { return "no such device"; }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorInvalidDevice"; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const auto& s = fastlstm::cuda::emulation::settings;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = s.multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = s.shared_bytes;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
  }
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
