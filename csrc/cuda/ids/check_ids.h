// Ids are looked at on the GPU: what lies outside of its bounds becomes 0 in a copy, and the host learns of it later,
// from memory that it can read without waiting.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

namespace fastlstm::cuda {

// The first check that found something wrong, in pinned memory of the host. The host writes 0 into `full` once it has
// read the rest, and only then is there room for another one.
struct Fault {
  std::int64_t full;    // 1 when the rest has been written
  std::int64_t source;  // by which the host knows the argument
  std::int64_t value;   // the lowest id if that is negative, else the highest
};

// What the blocks of one check share, in the GPU's memory. Every check leaves it as it found it, so it is set up once.
struct Shared {
  static constexpr long long kNothing = std::numeric_limits<long long>::max();
  long long worst;  // see `rank_of`
  unsigned finished;
};

struct IdCheck {
  const void* ids;  // (count,)
  void* checked;    // (count,)
  bool wide;        // int64, else int32
  std::int64_t count;
  std::int64_t upper;     // ids are from 0 to upper - 1
  bool has_ignore_index;  // or equal to `ignore_index`
  std::int64_t ignore_index;
  std::int64_t source;
  Shared* shared;
  Fault* fault;
};

void check_ids(const IdCheck& check, cudaStream_t stream);

}  // namespace fastlstm::cuda
