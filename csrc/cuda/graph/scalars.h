// Scalars of the host's for kernels of a captured graph, which finds its arguments as they were when it was captured: a
// launch beside the graph carries them in its argument block and writes them where the graph reads. So nothing is
// copied from the host's memory, which the host could change too early, and nothing synchronises.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../../host_device.h"

namespace fastlstm::cuda {

// A number that the host knows, or that stands on the device.
template <class T>
struct Scalar {
  T value;
  const T* at;  // on the device, or null

  FASTLSTM_HOST_DEVICE T get() const { return at ? *at : value; }
};
using Seed = Scalar<std::uint64_t>;

inline constexpr int kMostScalars = 256;  // a launch

// 64 bits each, whatever they mean.
struct GraphScalars {
  std::uint64_t* target;
  int count;
  std::uint64_t values[kMostScalars];
};

void store_scalars(const GraphScalars& arguments, cudaStream_t stream);

}  // namespace fastlstm::cuda
