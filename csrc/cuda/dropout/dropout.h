// Masks of dropout: draw j of splitmix.h decides about element j.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../graph/scalars.h"

namespace fastlstm::cuda {

struct DropoutMask {
  void* mask;  // (count,), at a multiple of 16 bytes
  bool float64;
  std::int64_t count;
  double ratio;   // an element whose draw is below becomes 0
  double factor;  // the others this
  Seed seed;
};

void dropout_mask(const DropoutMask& arguments, cudaStream_t stream);

}  // namespace fastlstm::cuda
