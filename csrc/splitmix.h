// Draw j of the generator SplitMix64 (Steele, Lea, Flood 2014), in [0, 1), as contract.py fixes it.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace fastlstm {

// Static: kernels are compiled once per instruction set, and none may take another's copy.
FASTLSTM_HOST_DEVICE static inline double uniform(std::uint64_t seed, std::uint64_t j) {
  std::uint64_t z = seed + (j + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

}  // namespace fastlstm
