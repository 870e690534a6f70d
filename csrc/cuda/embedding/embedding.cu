// Rows by ids: gathered, cleared, and summed without atomics, in an order that the ids alone decide.
//
// Sums. The ids are sorted; then rows with the same id are neighbours in the order, a segment. The order is cut into
// groups of equal size, and a group sums its parts of segments from left to right. The part with which a segment begins
// goes to its row of the result; those with which it goes on in later groups go to `partial`, and are added in their
// order by who has the beginning. So a word that is everywhere is summed by many groups, and the result is the same in
// every run.
#include "../device/pack.h"
#include "../ids/sort_ids.h"
#include "embedding.h"

namespace fastlstm::cuda {
namespace {

dim3 grid_of(Index blocks, Index parts = 1) {
  return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts));
}

// ---- Gathered and cleared ------------------------------------------------------------------------------------------

template <class Arguments>
struct OverRows {
  Arguments a;
  int bits;
};

template <class S, int n, class Id>
__global__ void __launch_bounds__(kRowThreads) gather(OverRows<RowGather<S, Id>> o) {
  const Index m = row_of_thread(o.bits);
  if (m >= o.a.M) return;
  const S* const from = o.a.W + static_cast<Index>(o.a.ids[m]) * o.a.E;
  S* const to = o.a.out + m * o.a.E;
  const Index step = Index{n} << o.bits;
#pragma unroll 4
  for (Index e = place_in_row(o.bits) * n; e < o.a.E; e += step) store_pack<S, n>(to + e, load_pack<S, n>(from + e));
}

template <class S, int n, class Id>
__global__ void __launch_bounds__(kRowThreads) clear(OverRows<RowClearing<S, Id>> o) {
  const Index m = row_of_thread(o.bits);
  if (m >= o.a.M) return;
  S* const to = o.a.target + static_cast<Index>(o.a.ids[m]) * o.a.E;
  const Index step = Index{n} << o.bits;
  for (Index e = place_in_row(o.bits) * n; e < o.a.E; e += step) store_pack<S, n>(to + e, Pack<S, n>{});
}

// ---- Summed --------------------------------------------------------------------------------------------------------

constexpr int kAtOnce = 8;  // rows that a thread asks for before it adds the first

template <class S, class Key>
struct SegmentSum {
  SortedIds<Key> sorted;  // keys are rows of target
  const S* rows;          // (M, E)
  S* target;              // (V, E)
  S* partial;             // (groups, E)
  Index M, E, group;
  Key skip;
  bool accumulate;
  int bits;
};

template <class S, int n, class Key>
__global__ void __launch_bounds__(kRowThreads) sum_groups(SegmentSum<S, Key> a) {
  const Index group = row_of_thread(a.bits), first = group * a.group;
  const Index column = ((static_cast<Index>(blockIdx.y) << a.bits) + place_in_row(a.bits)) * n;
  if (first >= a.M || column >= a.E) return;
  const Index end = first + a.group < a.M ? first + a.group : a.M;
  Key row = a.sorted.keys[first];
  bool began_before = first > 0 && a.sorted.keys[first - 1] == row;
  Pack<S, n> total{};
  const auto finish = [&] {
    if (row == a.skip) return;
    S* const to = (began_before ? a.partial + group * a.E : a.target + static_cast<Index>(row) * a.E) + column;
    if (a.accumulate && !began_before) {
      Pack<S, n> sum = load_pack<S, n>(to);
      sum += total;
      total = sum;
    }
    store_pack<S, n>(to, total);
  };
  for (Index i = first; i < end; i += kAtOnce) {
    Key keys[kAtOnce];
    Pack<S, n> values[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      keys[k] = i + k < end ? a.sorted.keys[i + k] : a.skip;
      values[k] = Pack<S, n>{};
      if (i + k < end && keys[k] != a.skip) {
        values[k] = load_pack<S, n>(a.rows + static_cast<Index>(a.sorted.places[i + k]) * a.E + column);
      }
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (i + k >= end) break;
      if (keys[k] != row) {
        finish();
        row = keys[k];
        began_before = false;
        total = Pack<S, n>{};
      }
      total += values[k];
    }
  }
  finish();
}

// What later groups hold of the segment that a group ends with, if it begins there.
template <class S, int n, class Key>
__global__ void __launch_bounds__(kRowThreads) add_partial(SegmentSum<S, Key> a) {
  const Index group = row_of_thread(a.bits), first = group * a.group, end = first + a.group;
  const Index column = ((static_cast<Index>(blockIdx.y) << a.bits) + place_in_row(a.bits)) * n;
  if (end >= a.M || column >= a.E) return;
  const Key row = a.sorted.keys[end];
  if (row == a.skip || a.sorted.keys[end - 1] != row) return;
  if (first > 0 && a.sorted.keys[first - 1] == row) return;
  S* const to = a.target + static_cast<Index>(row) * a.E + column;
  Pack<S, n> total = load_pack<S, n>(to);
  bool goes_on = true;
  for (Index g = group + 1; goes_on; g += kAtOnce) {
    Pack<S, n> values[kAtOnce];
    bool there[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      there[k] = (g + k) * a.group < a.M && a.sorted.keys[(g + k) * a.group] == row;
      if (there[k]) values[k] = load_pack<S, n>(a.partial + (g + k) * a.E + column);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (there[k]) total += values[k];
    }
    goes_on = there[kAtOnce - 1];
  }
  store_pack<S, n>(to, total);
}

// ---- Numbered ------------------------------------------------------------------------------------------------------

constexpr int kNumberingThreads = 256, kIdsOfThread = 16;
constexpr Index kNumberingBlock = kNumberingThreads * kIdsOfThread;

template <class Key>
struct SegmentNumbering {
  const Key* keys;         // (M,) ascending
  std::int32_t* begins;    // (blocks,): how many segments begin among a block's keys
  std::int32_t* segments;  // (M,): the number of each key's segment
  Key* indices;            // (segments,): its key
  std::int32_t* count;     // (1,): of segments
  Index M;
};

// The keys of this thread: how many segments begin among them.
template <class Key>
__device__ int begins_of_thread(const SegmentNumbering<Key>& a, Index first) {
  int begins = 0;
#pragma unroll
  for (int k = 0; k < kIdsOfThread; ++k) {
    const Index i = first + k;
    if (i < a.M && (i == 0 || a.keys[i - 1] != a.keys[i])) ++begins;
  }
  return begins;
}

template <class Key>
__global__ void __launch_bounds__(kNumberingThreads) count_segments(SegmentNumbering<Key> a) {
  const Index first = static_cast<Index>(blockIdx.x) * kNumberingBlock + threadIdx.x * kIdsOfThread;
  const int total = over_block(begins_of_thread(a, first), shared_memory<int>(), Sum{});
  if (threadIdx.x == 0) a.begins[blockIdx.x] = total;
}

template <class Key>
__global__ void __launch_bounds__(kNumberingThreads) number_segments(SegmentNumbering<Key> a) {
  int* const sums = shared_memory<int>();  // (threads,)
  const unsigned thread = threadIdx.x;
  const Index first = static_cast<Index>(blockIdx.x) * kNumberingBlock + thread * kIdsOfThread;
  int earlier = 0;
  for (unsigned block = thread; block < blockIdx.x; block += kNumberingThreads) earlier += a.begins[block];
  earlier = over_block(earlier, sums, Sum{});
  const int own = begins_of_thread(a, first);
  __syncthreads();
  sums[thread] = own;
  __syncthreads();
  for (unsigned distance = 1; distance < kNumberingThreads; distance *= 2) {
    const int left = thread >= distance ? sums[thread - distance] : 0;
    __syncthreads();
    sums[thread] += left;
    __syncthreads();
  }
  int segment = earlier + sums[thread] - own - 1;  // the one that is going on before the thread's first key
  for (int k = 0; k < kIdsOfThread && first + k < a.M; ++k) {
    const Index i = first + k;
    const Key key = a.keys[i];
    if (i == 0 || a.keys[i - 1] != key) a.indices[++segment] = key;
    a.segments[i] = segment;
    if (i == a.M - 1) *a.count = segment + 1;
  }
}

// ---- Workspaces ----------------------------------------------------------------------------------------------------

// So small that a batch of some hundred rows keeps the GPU busy; larger for many rows, where who adds the parts of a
// segment that goes through all groups would otherwise take longest.
Index group_size(Index M) {
  constexpr Index kLeast = 8, kMost = 256;
  Index group = kLeast;
  while (group < kMost && group * group * 16 < M) group *= 2;
  return group;
}

// Places in the workspace, in bytes.
struct SumPlan {
  Index keys, places, other_keys, other_places, partial, segments, begins, bytes;

  SumPlan(Index M, Index E, Index key_bytes, Index float_bytes, bool numbered) : bytes(0) {
    const auto take = [&](Index size) {
      const Index at = bytes;
      bytes += round_up(size, kAlignment);
      return at;
    };
    constexpr Index kPlaceBytes = sizeof(std::int32_t);
    const bool chunks = M > sort_chunk(M);
    keys = take(M * key_bytes);
    places = take(M * kPlaceBytes);
    other_keys = take(chunks ? M * key_bytes : 0);
    other_places = take(chunks ? M * kPlaceBytes : 0);
    partial = take(divide_up(M, group_size(M)) * E * float_bytes);
    segments = take(numbered ? M * kPlaceBytes : 0);
    begins = take(numbered ? divide_up(M, kNumberingBlock) * kPlaceBytes : 0);
  }
};

template <class T>
T* at(char* workspace, Index bytes) {
  return reinterpret_cast<T*>(workspace + bytes);
}

template <class S, class Key>
void sum_segments(SegmentSum<S, Key> a, cudaStream_t stream) {
  with_pack_size<S>(pack_size<S>(a.E, {a.rows, a.target, a.partial}), [&]<int n>() {
    const RowThreads threads(a.E / n);
    const Index groups = divide_up(a.M, a.group);
    a.bits = threads.bits;
    const dim3 grid = grid_of(threads.blocks(groups), threads.parts);
    launch(sum_groups<S, n, Key>, grid, kRowThreads, 0, stream, false, a);
    if (groups > 1) launch(add_partial<S, n, Key>, grid, kRowThreads, 0, stream, false, a);
  });
}

template <class Key, class S, class Id>
void sum_rows_by(const RowSum<S, Id>& a, char* workspace, cudaStream_t stream) {
  const SumPlan plan(a.M, a.E, sizeof(Key), sizeof(S), false);
  const SortedIds<Key> sorted{at<Key>(workspace, plan.keys), at<std::int32_t>(workspace, plan.places)};
  const SortedIds<Key> other{at<Key>(workspace, plan.other_keys), at<std::int32_t>(workspace, plan.other_places)};
  sort_ids(a.ids, a.M, sorted, other, stream);
  sum_segments(SegmentSum<S, Key>{sorted, a.rows, a.target, at<S>(workspace, plan.partial), a.M, a.E, group_size(a.M),
                                  static_cast<Key>(a.skip), a.accumulate, 0},
               stream);
}

}  // namespace

Index sum_rows_workspace(Index M, Index E, Index id_bytes, Index float_bytes) {
  return SumPlan(M, E, id_bytes, float_bytes, false).bytes;
}
Index unique_rows_workspace(Index M, Index E, Index id_bytes, Index float_bytes) {
  return SumPlan(M, E, id_bytes, float_bytes, true).bytes;
}

template <class S, class Id>
void gather_rows(const RowGather<S, Id>& a, cudaStream_t stream) {
  if (a.M == 0 || a.E == 0) return;
  with_pack_size<S>(pack_size<S>(a.E, {a.W, a.out}), [&]<int n>() {
    const RowThreads threads(a.E / n);
    launch(gather<S, n, Id>, grid_of(threads.blocks(a.M)), kRowThreads, 0, stream, false,
           OverRows<RowGather<S, Id>>{a, threads.bits});
  });
}

template <class S, class Id>
void clear_rows(const RowClearing<S, Id>& a, cudaStream_t stream) {
  if (a.M == 0 || a.E == 0) return;
  with_pack_size<S>(pack_size<S>(a.E, {a.target}), [&]<int n>() {
    const RowThreads threads(a.E / n);
    launch(clear<S, n, Id>, grid_of(threads.blocks(a.M)), kRowThreads, 0, stream, false,
           OverRows<RowClearing<S, Id>>{a, threads.bits});
  });
}

template <class S, class Id>
void sum_rows(const RowSum<S, Id>& a, char* workspace, cudaStream_t stream) {
  if (a.M == 0 || a.E == 0) return;
  if constexpr (sizeof(Id) > sizeof(std::int32_t)) {
    if (a.V > std::numeric_limits<std::int32_t>::max()) return sum_rows_by<Id>(a, workspace, stream);
  }
  sum_rows_by<std::int32_t>(a, workspace, stream);
}

template <class S, class Id>
void unique_rows(const UniqueRows<S, Id>& a, char* workspace, cudaStream_t stream) {
  if (a.M == 0 || a.E == 0) return;
  const SumPlan plan(a.M, a.E, sizeof(Id), sizeof(S), true);
  const SortedIds<Id> sorted{at<Id>(workspace, plan.keys), at<std::int32_t>(workspace, plan.places)};
  const SortedIds<Id> other{at<Id>(workspace, plan.other_keys), at<std::int32_t>(workspace, plan.other_places)};
  sort_ids(a.ids, a.M, sorted, other, stream);

  std::int32_t* const segments = at<std::int32_t>(workspace, plan.segments);
  const SegmentNumbering<Id> numbering{
      sorted.keys, at<std::int32_t>(workspace, plan.begins), segments, a.indices, a.count, a.M};
  const dim3 blocks = grid_of(divide_up(a.M, kNumberingBlock));
  constexpr Index kShared = kNumberingThreads * sizeof(int);
  launch(count_segments<Id>, blocks, kNumberingThreads, kShared, stream, false, numbering);
  launch(number_segments<Id>, blocks, kNumberingThreads, kShared, stream, false, numbering);
  constexpr std::int32_t kNone = -1;
  sum_segments(SegmentSum<S, std::int32_t>{{segments, sorted.places},
                                           a.rows,
                                           a.values,
                                           at<S>(workspace, plan.partial),
                                           a.M,
                                           a.E,
                                           group_size(a.M),
                                           kNone,
                                           false,
                                           0},
               stream);
}

#define FASTLSTM_ROWS(S, Id)                                         \
  template void gather_rows(const RowGather<S, Id>&, cudaStream_t);  \
  template void clear_rows(const RowClearing<S, Id>&, cudaStream_t); \
  template void sum_rows(const RowSum<S, Id>&, char*, cudaStream_t); \
  template void unique_rows(const UniqueRows<S, Id>&, char*, cudaStream_t);
FASTLSTM_ROWS(float, std::int32_t)
FASTLSTM_ROWS(float, std::int64_t)
FASTLSTM_ROWS(double, std::int32_t)
FASTLSTM_ROWS(double, std::int64_t)
#undef FASTLSTM_ROWS

}  // namespace fastlstm::cuda
