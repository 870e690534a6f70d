// The segments of equal ids on the device, for row gradients.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fastlstm::cuda {

// M ids, those of two lists one after the other, not negative; M >= 1.
struct IdLists {
  const std::int64_t* first;
  std::int64_t first_count;
  const std::int64_t* second;
  std::int64_t M;
};

// What is filled. unique (M,), of which the first *count are the different ids, ascending. order (M,): the numbers
// 0 .. M - 1 sorted by their id, ties in their own order; those of the u-th id stand at starts[u] .. starts[u + 1].
struct Segments {
  std::int64_t* unique;
  int* count;
  int* order;
  std::int64_t* starts;  // (M + 1,)
};

// Beyond the ids of one block's sort, sorted runs are merged in memory of the caller's.
std::int64_t segment_ids_workspace_bytes(std::int64_t M);

void segment_ids(const IdLists& ids, const Segments& segments, char* workspace, cudaStream_t stream);

}  // namespace fastlstm::cuda
