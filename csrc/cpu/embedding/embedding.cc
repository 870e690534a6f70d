// Embedding kernels of one instruction set. Sums run in the order of m, whatever the threads.
#include "../parallel.h"
#include "../tuning.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

template <class S>
FASTLSTM_INLINE void copy_row(const S* from, S* to, Index count) {
  Index e = 0;
  for (; e + kLanes<S> <= count; e += kLanes<S>) store(to + e, load(from + e));
  for (; e < count; ++e) to[e] = from[e];
}

template <class S>
FASTLSTM_INLINE void add_row(const S* from, S* to, Index count) {
  Index e = 0;
  for (; e + kLanes<S> <= count; e += kLanes<S>) store(to + e, load(to + e) + load(from + e));
  for (; e < count; ++e) to[e] += from[e];
}

template <class S>
FASTLSTM_INLINE void clear_row(S* to, Index count) {
  Index e = 0;
  for (; e + kLanes<S> <= count; e += kLanes<S>) store(to + e, Vec<S>{});
  for (; e < count; ++e) to[e] = 0;
}

template <class S, class Id>
void gather(const S* W, const Id* ids, Index M, Index E, S* out) {
  parallel_pieces(M, 1, M * E, [=](Range rows) {
    for (Index m = rows.begin; m < rows.end; ++m) {
      if (m + kPrefetchDistance < rows.end) prefetch_row(W + static_cast<Index>(ids[m + kPrefetchDistance]) * E, E);
      copy_row(W + static_cast<Index>(ids[m]) * E, out + m * E, E);
    }
  });
}

template <class S>
void clear_in_caches(S* begin, S* end) {
  __builtin_memset(begin, 0, static_cast<std::size_t>(end - begin) * sizeof(S));
}

template <class S>
void stream_zeros(S* begin, S* end) {
  for (; begin < end && reinterpret_cast<std::uintptr_t>(begin) % FASTLSTM_VECTOR_BYTES != 0; ++begin) *begin = 0;
  for (; begin + kLanes<S> <= end; begin += kLanes<S>) stream_store(begin, Vec<S>{});
  clear_in_caches(begin, end);
  stream_fence();
}

// body(m, row of ids[m]) in the order of m, but for the id `skip`; the threads share the ids, so that no two write the
// same row. Ids that follow one another are often equally frequent: a hash deals them out.
template <class S, class Id, class Body>
void over_rows(S* target, const Id* ids, Index M, Index E, Index skip, const Body& body) {
  struct Context {
    S* target;
    const Id* ids;
    Index M, E, skip;
    const Body& body;
  };
  Context context{target, ids, M, E, skip, body};
  run_team(
      static_cast<int>(min_of(M, 1 + M * E / kSmallLoop)),
      [](void* c, Team& team) {
        const Context& call = *static_cast<const Context*>(c);
        constexpr Index kChunk = 512;
        Index own[kChunk];
        const auto row = [&](Index m) { return call.target + static_cast<Index>(call.ids[m]) * call.E; };
        for (Index first = 0; first < call.M; first += kChunk) {
          Index count = 0;
          for (Index m = first; m < min_of(first + kChunk, call.M); ++m) {
            const auto id = static_cast<std::uint64_t>(call.ids[m]);
            const std::uint64_t hash = id * 0x9E3779B97F4A7C15u >> 32;
            const auto owner = static_cast<int>(hash * static_cast<std::uint64_t>(team.size()) >> 32);
            own[count] = m;
            count += owner == team.member() && static_cast<Index>(id) != call.skip;
          }
          for (Index k = 0; k < min_of(kPrefetchDistance, count); ++k) prefetch_row<S, true>(row(own[k]), call.E);
          for (Index k = 0; k < count; ++k) {
            if (k + kPrefetchDistance < count) prefetch_row<S, true>(row(own[k + kPrefetchDistance]), call.E);
            call.body(own[k], row(own[k]));
          }
        }
      },
      &context);
}

template <class S, class Id>
void scatter_add(S* target, Index V, const Id* ids, const S* rows, Index M, Index E, bool clear, Index skip) {
  constexpr Index kGrain = 64 / sizeof(S);  // a cache line
  if (clear) {
    const bool streamed = V * E * static_cast<Index>(sizeof(S)) >= kStreamedBytes;
    parallel_pieces(V * E, kGrain, V * E, [=](Range own) {
      (streamed ? stream_zeros<S> : clear_in_caches<S>)(target + own.begin, target + own.end);
    });
  }
  over_rows(target, ids, M, E, skip, [=](Index m, S* row) { add_row(rows + m * E, row, E); });
}

template <class S, class Id>
void clear_rows(S* target, const Id* ids, Index M, Index E) {
  over_rows(target, ids, M, E, -1, [=](Index, S* row) { clear_row(row, E); });
}

// Segments u with as many rows as those of another thread.
FASTLSTM_INLINE Range segments_of(const Index* starts, Index U, int member, int size) {
  const auto first_from = [=](Index row) {
    Index low = 0, high = U;
    while (low < high) {
      const Index middle = (low + high) / 2;
      if (starts[middle] < row) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const Range rows = piece(starts[U], member, size);
  return {first_from(rows.begin), first_from(rows.end)};
}

template <class S>
void sum_segments(const S* rows, const Index* order, const Index* starts, Index U, Index E, S* out) {
  struct Context {
    const S* rows;
    const Index *order, *starts;
    Index U, E;
    S* out;
  };
  Context context{rows, order, starts, U, E, out};
  run_team(
      static_cast<int>(min_of(U, 1 + starts[U] * E / kSmallLoop)),
      [](void* c, Team& team) {
        const auto& [rows, order, starts, U, E, out] = *static_cast<const Context*>(c);
        const Range own = segments_of(starts, U, team.member(), team.size());
        const Index end = starts[own.end];
        for (Index u = own.begin; u < own.end; ++u) {
          for (Index k = starts[u]; k < starts[u + 1]; ++k) {
            if (k + kPrefetchDistance < end) prefetch_row(rows + order[k + kPrefetchDistance] * E, E);
            k == starts[u] ? copy_row(rows + order[k] * E, out + u * E, E)
                           : add_row(rows + order[k] * E, out + u * E, E);
          }
        }
      },
      &context);
}

template <class S, class Id>
constexpr EmbeddingKernels<S, Id> table() {
  return {gather<S, Id>, scatter_add<S, Id>, clear_rows<S, Id>, sum_segments<S>};
}

}  // namespace

extern const EmbeddingKernels<float, std::int32_t> embedding_float32_int32 = table<float, std::int32_t>();
extern const EmbeddingKernels<float, std::int64_t> embedding_float32_int64 = table<float, std::int64_t>();
extern const EmbeddingKernels<double, std::int32_t> embedding_float64_int32 = table<double, std::int32_t>();
extern const EmbeddingKernels<double, std::int64_t> embedding_float64_int64 = table<double, std::int64_t>();

}  // namespace fastlstm::FASTLSTM_ISA
