#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "../device/index.h"
#include "../device/reduce.h"
#include "segments.h"

namespace fastlstm::cuda {
namespace {

constexpr int kRun = 2048;  // what one block sorts in shared memory
constexpr int kMostThreads = 1024;
constexpr int kMostWarps = kMostThreads / kWarp;
constexpr int kMergeThreads = 256;
constexpr std::int64_t kBehindAll = std::numeric_limits<std::int64_t>::max();
constexpr int kIdBytes = sizeof(std::int64_t), kOrderBytes = sizeof(int);

struct Sorted {
  std::int64_t* ids;
  int* order;
};

struct SortRuns {
  IdLists lists;
  int padded;     // a power of two, at most kRun, that holds a run
  Sorted sorted;  // not written if there is one run only
  Segments segments;
};

struct MergeRuns {
  std::int64_t M, run;
  Sorted from, to;
};

struct FindSegments {
  std::int64_t M;
  const std::int64_t* sorted;
  Segments segments;
};

// All threads of a block: the different ids of a sorted list.
__device__ void find_segments(const FindSegments& call, unsigned* scratch) {
  std::int64_t found = 0;
  for (std::int64_t base = 0; base < call.M; base += blockDim.x) {
    const std::int64_t i = base + threadIdx.x;
    const bool is_first = i < call.M && (i == 0 || call.sorted[i] != call.sorted[i - 1]);
    const Place place = place_in_block(is_first, scratch);
    if (is_first) {
      call.segments.unique[found + place.before] = call.sorted[i];
      call.segments.starts[found + place.before] = i;
    }
    found += place.all;
  }
  if (threadIdx.x == 0) {
    call.segments.starts[found] = call.M;
    *call.segments.count = static_cast<int>(found);
  }
}

// Batcher's bitonic sort of one run a block, by id and then by number, which makes all of them different.
__global__ void __launch_bounds__(kMostThreads) sort_runs(SortRuns call) {
  unsigned* const scratch = shared_memory<unsigned>();
  auto* const ids = reinterpret_cast<std::int64_t*>(scratch + kMostWarps);
  auto* const order = reinterpret_cast<int*>(ids + call.padded);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kRun;
  for (int i = static_cast<int>(threadIdx.x); i < call.padded; i += static_cast<int>(blockDim.x)) {
    const std::int64_t m = begin + i;
    const IdLists& lists = call.lists;
    ids[i] = m >= lists.M ? kBehindAll : m < lists.first_count ? lists.first[m] : lists.second[m - lists.first_count];
    order[i] = static_cast<int>(m);
  }
  for (int size = 2; size <= call.padded; size *= 2) {
    for (int distance = size / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < call.padded / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
        const bool ascending = (low & size) == 0;
        const std::int64_t a = ids[low], b = ids[high];
        const int at_a = order[low], at_b = order[high];
        const bool descends = a > b || (a == b && at_a > at_b);
        if (descends == ascending) {
          ids[low] = b;
          ids[high] = a;
          order[low] = at_b;
          order[high] = at_a;
        }
      }
    }
  }
  __syncthreads();
  const bool alone = gridDim.x == 1;
  for (int i = static_cast<int>(threadIdx.x); i < call.padded && begin + i < call.lists.M;
       i += static_cast<int>(blockDim.x)) {
    (alone ? call.segments.order : call.sorted.order)[begin + i] = order[i];
    if (!alone) call.sorted.ids[begin + i] = ids[i];
  }
  if (alone) find_segments({call.lists.M, ids, call.segments}, scratch);
}

// How many of count sorted ids are below value; with or_equal, not above it.
__device__ std::int64_t rank_of(std::int64_t value, bool or_equal, const std::int64_t* ids, std::int64_t count) {
  std::int64_t low = 0;
  while (count > 0) {
    const std::int64_t half = count / 2, id = ids[low + half];
    if (id < value || (or_equal && id == value)) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

// Pairs of sorted runs become one: every element finds its place, its own plus its rank among the other run's.
__global__ void merge_runs(MergeRuns call) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= call.M) return;
  const std::int64_t begin = i / (2 * call.run) * (2 * call.run);
  const std::int64_t middle = begin + call.run < call.M ? begin + call.run : call.M;
  const std::int64_t end = middle + call.run < call.M ? middle + call.run : call.M;
  const std::int64_t id = call.from.ids[i];
  const std::int64_t at = i < middle ? i + rank_of(id, false, call.from.ids + middle, end - middle)
                                     : i - call.run + rank_of(id, true, call.from.ids + begin, call.run);
  call.to.ids[at] = id;
  call.to.order[at] = call.from.order[i];
}

__global__ void __launch_bounds__(kMostThreads) find_segments_kernel(FindSegments call) {
  find_segments(call, shared_memory<unsigned>());
}

}  // namespace

std::int64_t segment_ids_workspace_bytes(std::int64_t M) {
  return M <= kRun ? 0 : M * (2 * kIdBytes + 2 * kOrderBytes);
}

void segment_ids(const IdLists& ids, const Segments& segments, char* workspace, cudaStream_t stream) {
  if (ids.M > std::numeric_limits<int>::max()) throw std::invalid_argument("more than 2^31 - 1 classes in one call");
  int padded = kWarp;
  while (padded < std::min<std::int64_t>(ids.M, kRun)) padded *= 2;
  const int threads = std::max(kWarp, std::min(kMostThreads, padded / 2));
  const std::int64_t runs = divide_up(ids.M, kRun);
  const std::int64_t scratch_bytes = kMostWarps * sizeof(unsigned);
  SortRuns sort{ids, padded, {}, segments};
  Sorted other{};
  if (runs > 1) {
    sort.sorted.ids = reinterpret_cast<std::int64_t*>(workspace);
    other.ids = sort.sorted.ids + ids.M;
    sort.sorted.order = reinterpret_cast<int*>(other.ids + ids.M);
    other.order = sort.sorted.order + ids.M;
  }
  launch(sort_runs, dim3(static_cast<unsigned>(runs)), threads, scratch_bytes + padded * (kIdBytes + kOrderBytes),
         stream, false, sort);
  if (runs == 1) return;
  Sorted sorted = sort.sorted;
  for (std::int64_t run = kRun; run < ids.M; run *= 2) {
    if (2 * run >= ids.M) other.order = segments.order;  // the last pass
    const auto blocks = static_cast<unsigned>(divide_up(ids.M, kMergeThreads));
    launch(merge_runs, dim3(blocks), kMergeThreads, 0, stream, false, MergeRuns{ids.M, run, sorted, other});
    std::swap(sorted, other);
  }
  launch(find_segments_kernel, dim3(1), kMostThreads, scratch_bytes, stream, false,
         FindSegments{ids.M, sorted.ids, segments});
}

}  // namespace fastlstm::cuda
