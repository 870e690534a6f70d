// word2vec's learning rule of one instruction set: pair after pair, every pair with negatives of its own. The rows of
// the pairs to come are prefetched while the pair at hand is computed; all in one thread, because each pair sees what
// the one before has learned.
#include "../vector_math.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

constexpr Index kPrefetchedPairs = 3;
constexpr Index kRowsAtOnce = 6;  // 5 negatives, the usual number, and the true word

// scores[t] = h . rows[t] for `count` rows.
template <class S, int count>
FASTLSTM_INLINE void dots(const S* h, S* const* rows, Index E, S* scores) {
  Vec<S> sums[count] = {};
  Index e = 0;
  for (; e + kLanes<S> <= E; e += kLanes<S>) {
    const Vec<S> x = load(h + e);
#pragma GCC unroll 6
    for (int t = 0; t < count; ++t) sums[t] += x * load(rows[t] + e);
  }
  if (e < E) {
    const Vec<S> x = load_partial(h + e, E - e);
#pragma GCC unroll 6
    for (int t = 0; t < count; ++t) sums[t] += x * load_partial(rows[t] + e, E - e);
  }
#pragma GCC unroll 6
  for (int t = 0; t < count; ++t) scores[t] = sum_lanes<S>(sums[t]);
}

// Columns e to e + vectors * kLanes of one step: rows[t] += steps[t] h, and h += steps[t] rows[t] of before. Row after
// row, so that no row is loaded right behind a store to the same place of another one, which processors take for the
// same address if the places are a multiple of 4 KB apart.
template <class S, int vectors>
FASTLSTM_INLINE void step_columns(S* h, S* const* rows, const S* steps, Index classes, Index e) {
  Vec<S> x[vectors], moved[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) moved[v] = x[v] = load(h + e + v * kLanes<S>);
  for (Index t = 0; t < classes; ++t) {
    S* const row = rows[t] + e;
    const S by = steps[t];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const Vec<S> w = load(row + v * kLanes<S>);
      moved[v] += by * w;
      store(row + v * kLanes<S>, w + by * x[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) store(h + e + v * kLanes<S>, moved[v]);
}

template <class S>
FASTLSTM_INLINE void step_last_columns(S* h, S* const* rows, const S* steps, Index classes, Index e, Index count) {
  const Vec<S> x = load_partial(h + e, count);
  Vec<S> moved = x;
  for (Index t = 0; t < classes; ++t) {
    const Vec<S> w = load_partial(rows[t] + e, count);
    moved += steps[t] * w;
    store_partial(rows[t] + e, w + steps[t] * x, count);
  }
  store_partial(h + e, moved, count);
}

template <class S>
struct Updates {
  const SkipgramUpdate<S>& args;
  Index classes;  // a pair: the true one, then the negatives
  S* scores;      // (classes,) in whole vectors; then steps, minus the learning rate times the gradient
  S** rows;       // (classes,)

  const std::int64_t* negatives(Index m) const { return args.negatives + m * args.K; }

  void prefetch_rows(Index m) const {
    prefetch_row<S, true>(args.vectors + args.centers[m] * args.E, args.E);
    prefetch_row<S, true>(args.weights + args.contexts[m] * args.E, args.E);
    for (Index k = 0; k < args.K; ++k) prefetch_row<S, true>(args.weights + negatives(m)[k] * args.E, args.E);
  }

  void score(const S* h) const {
    Index t = 0;
    for (; t + kRowsAtOnce <= classes; t += kRowsAtOnce) dots<S, kRowsAtOnce>(h, rows + t, args.E, scores + t);
    for (; t + 2 <= classes; t += 2) dots<S, 2>(h, rows + t, args.E, scores + t);
    if (t < classes) dots<S, 1>(h, rows + t, args.E, scores + t);
  }

  // A negative that is the true word counts for nothing.
  bool valid(Index m, Index t) const { return t == 0 || negatives(m)[t - 1] != args.contexts[m]; }

  // Scores become steps. The loss is the sum of `loss` and log `factors`.
  FASTLSTM_INLINE void compute_losses(Index m, double& loss, double& factors) const {
    for (Index t = 0; t < classes; t += kLanes<S>) {
      const Index count = min_of(kLanes<S>, classes - t);
      const Vec<S> x = load(scores + t);
      const Vec<S> tail = Math<S>::exp(x < 0 ? x : -x);
      const Vec<S> factor = 1 + tail;  // log(1 + exp(x)) = max(x, 0) + log factor
      const Vec<S> of_magnitude = 1 / factor;
      const Vec<S> sigmoid = x < 0 ? tail * of_magnitude : of_magnitude;
      store(scores + t, -args.lr * sigmoid);
      for (Index lane = 0; lane < count; ++lane) {
        if (!valid(m, t + lane)) {
          scores[t + lane] = 0;
          continue;
        }
        factors *= static_cast<double>(factor[lane]);
        loss += static_cast<double>(x[lane] < 0 ? 0 : x[lane]);
        if (t + lane == 0) {
          loss -= static_cast<double>(x[lane]);
          scores[0] += args.lr;
        }
      }
      if (factors > 1e200) {
        loss += __builtin_log(factors);
        factors = 1;
      }
    }
  }

  // One row, one step: those of a class drawn twice are added up.
  void merge_repeats() const {
    for (Index t = 2; t < classes; ++t) {
      for (Index s = 1; s < t; ++s) {
        if (rows[s] == rows[t]) {
          scores[s] += scores[t];
          scores[t] = 0;
          break;
        }
      }
    }
  }

  void step(S* h) const {
    constexpr int kVectors = FASTLSTM_TILE_VECTORS == 4 ? 8 : 4;  // half of the registers hold h, old and new
    const Index E = args.E;
    Index e = 0;
    for (; e + kVectors * kLanes<S> <= E; e += kVectors * kLanes<S>) {
      step_columns<S, kVectors>(h, rows, scores, classes, e);
    }
    for (; e + kLanes<S> <= E; e += kLanes<S>) step_columns<S, 1>(h, rows, scores, classes, e);
    if (e < E) step_last_columns(h, rows, scores, classes, e, E - e);
  }

  double run() const {
    double loss = 0, factors = 1;
    for (Index m = 0; m < args.M; ++m) {
      if (m + kPrefetchedPairs < args.M) prefetch_rows(m + kPrefetchedPairs);
      S* const h = args.vectors + args.centers[m] * args.E;
      rows[0] = args.weights + args.contexts[m] * args.E;
      for (Index k = 0; k < args.K; ++k) rows[k + 1] = args.weights + negatives(m)[k] * args.E;
      score(h);
      compute_losses(m, loss, factors);
      merge_repeats();
      step(h);
    }
    return loss + __builtin_log(factors);
  }
};

template <class S>
Index workspace(const SkipgramUpdate<S>& args) {
  const Index classes = args.K + 1;
  const Index pointers = ceil_div(classes * static_cast<Index>(sizeof(S*)), static_cast<Index>(sizeof(S)));
  return ceil_div(classes, kLanes<S>) * kLanes<S> + pointers;
}

template <class S>
double update(const SkipgramUpdate<S>& args) {
  const Index classes = args.K + 1, padded = ceil_div(classes, kLanes<S>) * kLanes<S>;
  for (Index t = classes; t < padded; ++t) args.workspace[t] = 0;
  return Updates<S>{args, classes, args.workspace, reinterpret_cast<S**>(args.workspace + padded)}.run();
}

template <class S>
constexpr SkipgramKernels<S> table() {
  return {workspace<S>, update<S>};
}

}  // namespace

extern const SkipgramKernels<float> skipgram_float32 = table<float>();
extern const SkipgramKernels<double> skipgram_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
