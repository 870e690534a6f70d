// Ids in ascending order, each with the place it came from; equal ids stay in the order of their places.
//
// Within a chunk an id's place in the order is counted: by how many it is preceded. That is work of the square of the
// chunk, spread over the whole GPU without any barrier, and at the sizes of a batch faster than the passes of a sort.
// Chunks are then merged in pairs, where an id's new place is found by bisection.
#pragma once

#include <limits>
#include <stdexcept>
#include <utility>

#include "../device/index.h"
#include "../device/reduce.h"

namespace fastlstm::cuda {

template <class Key>
struct SortedIds {
  Key* keys;             // (M,)
  std::int32_t* places;  // (M,)
};

inline constexpr int kSortThreads = 128;
inline constexpr int kIdsOfWarp = 8;         // whose places a warp counts
inline constexpr int kSortTile = 4 * kWarp;  // ids that a warp looks at in one turn
inline constexpr Index kMostInOneChunk = 16384;
inline constexpr Index kOneChunk = 8192, kSmallChunk = 2048;  // of up to so many ids, and of more

inline Index sort_chunk(Index M) { return M <= kMostInOneChunk ? kOneChunk : kSmallChunk; }

template <class Key>
inline constexpr Key kNoId = std::numeric_limits<Key>::max();  // precedes nothing

template <class Id, class Key>
struct ChunkSort {
  const Id* ids;  // (M,)
  SortedIds<Key> sorted;
  Index M, chunk;
};

template <class Id, class Key>
__global__ void __launch_bounds__(kSortThreads) sort_chunks(ChunkSort<Id, Key> a) {
  static_assert(kSortTile % kIdsOfWarp == 0 && kSmallChunk % kSortTile == 0 && kOneChunk % kSortTile == 0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Index warp = static_cast<Index>(blockIdx.x) * (kSortThreads / kWarp) + threadIdx.x / kWarp;
  const Index first = warp * kIdsOfWarp;
  if (first >= a.M) return;
  const Index begin = first / a.chunk * a.chunk;
  const Index end = begin + a.chunk < a.M ? begin + a.chunk : a.M;
  Key mine[kIdsOfWarp];
  int before[kIdsOfWarp] = {};
#pragma unroll
  for (int r = 0; r < kIdsOfWarp; ++r) mine[r] = static_cast<Key>(a.ids[first + r < end ? first + r : first]);

  // precedes(key, place, r): whether the id at a place comes before the warp's id r.
  const auto count = [&](Index tile, const auto& precedes) {
    Key keys[kSortTile / kWarp];
#pragma unroll
    for (int k = 0; k < kSortTile / kWarp; ++k) {
      const Index j = tile + k * kWarp + lane;
      keys[k] = j < end ? static_cast<Key>(a.ids[j]) : kNoId<Key>;
    }
#pragma unroll
    for (int k = 0; k < kSortTile / kWarp; ++k) {
      const Index j = tile + k * kWarp + lane;
#pragma unroll
      for (int r = 0; r < kIdsOfWarp; ++r) before[r] += precedes(keys[k], j, r) ? 1 : 0;
    }
  };
  const Index own = first - (first - begin) % kSortTile;
  for (Index tile = begin; tile < own; tile += kSortTile) {
    count(tile, [&](Key key, Index, int r) { return key <= mine[r]; });
  }
  count(own, [&](Key key, Index j, int r) { return key < mine[r] || (key == mine[r] && j < first + r); });
  for (Index tile = own + kSortTile; tile < end; tile += kSortTile) {
    count(tile, [&](Key key, Index, int r) { return key < mine[r]; });
  }
#pragma unroll
  for (int r = 0; r < kIdsOfWarp; ++r) {
    const int place = over_warp(before[r], Sum{});
    if (lane == r && first + r < end) {
      a.sorted.keys[begin + place] = mine[r];
      a.sorted.places[begin + place] = static_cast<std::int32_t>(first + r);
    }
  }
}

template <class Key>
struct ChunkMerge {
  SortedIds<Key> from, to;
  Index M, chunk;
};

// Every even chunk with the odd one that follows it.
template <class Key>
__global__ void __launch_bounds__(kSortThreads) merge_chunks(ChunkMerge<Key> a) {
  const Index i = static_cast<Index>(blockIdx.x) * kSortThreads + threadIdx.x;
  if (i >= a.M) return;
  const Index own = i / a.chunk, other = own ^ 1;
  const bool first_of_pair = own < other;
  const Key key = a.from.keys[i];
  const Index begin = other * a.chunk < a.M ? other * a.chunk : a.M;
  Index low = begin, high = begin + a.chunk < a.M ? begin + a.chunk : a.M;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    const Key there = a.from.keys[middle];
    if (first_of_pair ? there < key : there <= key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const Index to = (first_of_pair ? i : i - a.chunk) + (low - begin);
  a.to.keys[to] = key;
  a.to.places[to] = a.from.places[i];
}

// Sorts M >= 1 ids into `sorted`; `other` is memory of the same size, used where there are several chunks.
template <class Id, class Key>
void sort_ids(const Id* ids, Index M, SortedIds<Key> sorted, SortedIds<Key> other, cudaStream_t stream) {
  if (M > std::numeric_limits<std::int32_t>::max()) throw std::invalid_argument("more than 2^31 - 1 ids in one call");
  Index chunk = sort_chunk(M);
  int merges = 0;
  for (Index width = chunk; width < M; width *= 2) ++merges;
  SortedIds<Key> from = merges % 2 == 0 ? sorted : other, to = merges % 2 == 0 ? other : sorted;
  const Index warps = divide_up(M, kIdsOfWarp);
  launch(sort_chunks<Id, Key>, dim3(static_cast<unsigned>(divide_up(warps, kSortThreads / kWarp))), kSortThreads, 0,
         stream, false, ChunkSort<Id, Key>{ids, from, M, chunk});
  for (int k = 0; k < merges; ++k, chunk *= 2) {
    launch(merge_chunks<Key>, dim3(static_cast<unsigned>(divide_up(M, kSortThreads))), kSortThreads, 0, stream, false,
           ChunkMerge<Key>{from, to, M, chunk});
    std::swap(from, to);
  }
}

}  // namespace fastlstm::cuda
