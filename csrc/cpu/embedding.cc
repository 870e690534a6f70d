// Embedding kernels of one instruction set. Sums run in the order of m, whatever the threads.
#include "kernels.h"
#include "parallel.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

constexpr Index kRowsAhead = 6;  // rows of the weights lie anywhere: they are fetched before their turn

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
      if (m + kRowsAhead < rows.end) fetch_row(W + static_cast<Index>(ids[m + kRowsAhead]) * E, E);
      copy_row(W + static_cast<Index>(ids[m]) * E, out + m * E, E);
    }
  });
}

// Threads take columns: each sees every id, so that skewed ids cost no balance, and no two write the same element.
template <class S, class Id>
void scatter_add(S* target, Index V, const Id* ids, const S* rows, Index M, Index E, bool clear, Index skip) {
  constexpr Index kGrain = 64 / sizeof(S);  // a cache line
  if (clear) {
    parallel_pieces(V * E, kGrain, V * E, [=](Range all) {
      __builtin_memset(target + all.begin, 0, static_cast<std::size_t>(all.end - all.begin) * sizeof(S));
    });
  }
  parallel_pieces(E, kGrain, M * E, [=](Range columns) {
    const Index width = columns.end - columns.begin;
    for (Index m = 0; m < M; ++m) {
      const Index id = static_cast<Index>(ids[m]);
      if (id != skip) add_row(rows + m * E + columns.begin, target + id * E + columns.begin, width);
    }
  });
}

template <class S, class Id>
void clear_rows(S* target, const Id* ids, Index M, Index E) {
  constexpr Index kGrain = 64 / sizeof(S);
  parallel_pieces(E, kGrain, M * E, [=](Range columns) {
    for (Index m = 0; m < M; ++m) {
      clear_row(target + static_cast<Index>(ids[m]) * E + columns.begin, columns.end - columns.begin);
    }
  });
}

template <class S>
void sum_segments(const S* rows, const Index* order, const Index* starts, Index U, Index E, S* out) {
  parallel_pieces(U, 1, starts[U] * E, [=](Range segments) {
    for (Index u = segments.begin; u < segments.end; ++u) {
      copy_row(rows + order[starts[u]] * E, out + u * E, E);
      for (Index k = starts[u] + 1; k < starts[u + 1]; ++k) add_row(rows + order[k] * E, out + u * E, E);
    }
  });
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
