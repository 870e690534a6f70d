// Where a kernel changes its way because of the machine. Both ways give the same bits, so these are matters of speed
// alone; docs/decisions/thresholds.md says what was measured.
#pragma once

#include "kernels.h"

namespace fastlstm {

// Packed recurrent weights of at most so many bytes are read by all threads, each for rows of its own; of larger ones
// each thread reads the columns of its own units.
inline constexpr Index kSharedWeightBytes = 1536 * 1024;

// A panel of weights of more bytes comes from beyond the first cache level, and is prefetched.
inline constexpr Index kFirstLevelBytes = 40 * 1024;

// An array of more bytes that is written and not read soon goes past the caches.
inline constexpr Index kStreamedBytes = 16 << 20;

// Multiply-adds below which another thread costs more than it brings: of a product, and of a call that has many short
// parts with waits between them.
inline constexpr double kSmallProduct = 4e5;
inline constexpr double kSmallCall = 4e6;

}  // namespace fastlstm
