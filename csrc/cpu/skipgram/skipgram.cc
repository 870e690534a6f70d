// word2vec's learning rules of one instruction set: pair after pair or, of CBOW, word after word, each with negatives
// of its own. The rows of those to come are prefetched while the one at hand is computed; all in one thread, because
// each sees what the one before has learned.
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

// Columns e to e + vectors * kLanes of one step: rows[t] += steps[t] h, and moved is the sum of steps[t] rows[t] of
// before; in place h += that sum. Row after row, so that no row is loaded right behind a store to the same place of
// another one, which processors take for the same address if the places are a multiple of 4 KB apart.
template <class S, int vectors, bool in_place>
FASTLSTM_INLINE void step_columns(S* h, S* moved_out, S* const* rows, const S* steps, Index classes, Index e) {
  Vec<S> x[vectors], moved[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
    x[v] = load(h + e + v * kLanes<S>);
    moved[v] = in_place ? x[v] : Vec<S>{};
  }
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
  S* const out = in_place ? h : moved_out;
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) store(out + e + v * kLanes<S>, moved[v]);
}

template <class S, bool in_place>
FASTLSTM_INLINE void step_last_columns(S* h, S* moved_out, S* const* rows, const S* steps, Index classes, Index e,
                                       Index count) {
  const Vec<S> x = load_partial(h + e, count);
  Vec<S> moved = in_place ? x : Vec<S>{};
  for (Index t = 0; t < classes; ++t) {
    const Vec<S> w = load_partial(rows[t] + e, count);
    moved += steps[t] * w;
    store_partial(rows[t] + e, w + steps[t] * x, count);
  }
  store_partial((in_place ? h : moved_out) + e, moved, count);
}

// out += by * row
template <class S>
FASTLSTM_INLINE void add_row(S* out, S by, const S* row, Index E) {
  Index e = 0;
  for (; e + kLanes<S> <= E; e += kLanes<S>) store(out + e, load(out + e) + by * load(row + e));
  if (e < E) store_partial(out + e, load_partial(out + e, E - e) + by * load_partial(row + e, E - e), E - e);
}

template <class S>
constexpr Index in_whole_vectors(Index count) {
  return ceil_div(count, kLanes<S>) * kLanes<S>;
}

// Steps of one vector h against the rows of the weights that it is to tell apart.
template <class S>
struct Steps {
  S* weights;
  Index K, E;
  S lr;
  Index classes;  // the true one, then the negatives
  S* scores;      // (classes,) in whole vectors; then steps, minus the learning rate times the gradient
  S** rows;       // (classes,)
  double loss = 0, factors = 1;

  Steps(S* all_weights, Index num_sampled, Index width, S rate, S* workspace)
      : weights(all_weights),
        K(num_sampled),
        E(width),
        lr(rate),
        classes(num_sampled + 1),
        scores(workspace),
        rows(reinterpret_cast<S**>(workspace + in_whole_vectors<S>(num_sampled + 1))) {
    for (Index t = classes; t < in_whole_vectors<S>(classes); ++t) scores[t] = 0;
  }

  void prefetch_rows(std::int64_t target, const std::int64_t* negatives) const {
    prefetch_row<S, true>(weights + target * E, E);
    for (Index k = 0; k < K; ++k) prefetch_row<S, true>(weights + negatives[k] * E, E);
  }

  // h learns to tell the target from the negatives. In place it moves itself; else `moved` is how far it is to move.
  template <bool in_place>
  FASTLSTM_INLINE void learn(S* h, S* moved, std::int64_t target, const std::int64_t* negatives) {
    rows[0] = weights + target * E;
    for (Index k = 0; k < K; ++k) rows[k + 1] = weights + negatives[k] * E;
    score(h);
    compute_losses(target, negatives);
    merge_repeats();
    step<in_place>(h, moved);
  }

  double total_loss() const { return loss + __builtin_log(factors); }

 private:
  void score(const S* h) const {
    Index t = 0;
    for (; t + kRowsAtOnce <= classes; t += kRowsAtOnce) dots<S, kRowsAtOnce>(h, rows + t, E, scores + t);
    for (; t + 2 <= classes; t += 2) dots<S, 2>(h, rows + t, E, scores + t);
    if (t < classes) dots<S, 1>(h, rows + t, E, scores + t);
  }

  // Scores become steps; a negative that is the target counts for nothing. The loss is the sum of `loss` and log
  // `factors`.
  FASTLSTM_INLINE void compute_losses(std::int64_t target, const std::int64_t* negatives) {
    for (Index t = 0; t < classes; t += kLanes<S>) {
      const Index count = min_of(kLanes<S>, classes - t);
      const Vec<S> x = load(scores + t);
      const Vec<S> tail = Math<S>::exp(x < 0 ? x : -x);
      const Vec<S> factor = 1 + tail;  // log(1 + exp(x)) = max(x, 0) + log factor, and of -x for the true class
      const Vec<S> of_magnitude = 1 / factor;
      const Vec<S> sigmoid = x < 0 ? tail * of_magnitude : of_magnitude;
      store(scores + t, -lr * sigmoid);
      for (Index lane = 0; lane < count; ++lane) {
        if (t + lane > 0 && negatives[t + lane - 1] == target) {
          scores[t + lane] = 0;
          continue;
        }
        factors *= static_cast<double>(factor[lane]);
        const bool is_true = t + lane == 0;
        const S of_wrong = is_true ? -x[lane] : x[lane];
        loss += static_cast<double>(of_wrong < 0 ? 0 : of_wrong);
        if (is_true) scores[0] += lr;
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

  template <bool in_place>
  void step(S* h, S* moved) const {
    constexpr int kVectors = FASTLSTM_TILE_VECTORS == 4 ? 8 : 4;  // half of the registers hold h, old and new
    Index e = 0;
    for (; e + kVectors * kLanes<S> <= E; e += kVectors * kLanes<S>) {
      step_columns<S, kVectors, in_place>(h, moved, rows, scores, classes, e);
    }
    for (; e + kLanes<S> <= E; e += kLanes<S>) step_columns<S, 1, in_place>(h, moved, rows, scores, classes, e);
    if (e < E) step_last_columns<S, in_place>(h, moved, rows, scores, classes, e, E - e);
  }
};

// Scores and rows of the steps, and two vectors.
template <class S>
Index workspace(Index K, Index E) {
  const Index pointers = ceil_div((K + 1) * static_cast<Index>(sizeof(S*)), static_cast<Index>(sizeof(S)));
  return in_whole_vectors<S>(K + 1) + in_whole_vectors<S>(pointers) + 2 * in_whole_vectors<S>(E);
}

template <class S>
double update(const SkipgramUpdate<S>& args) {
  Steps<S> steps(args.weights, args.K, args.E, args.lr, args.workspace);
  for (Index m = 0; m < args.M; ++m) {
    if (const Index ahead = m + kPrefetchedPairs; ahead < args.M) {
      prefetch_row<S, true>(args.vectors + args.centers[ahead] * args.E, args.E);
      steps.prefetch_rows(args.contexts[ahead], args.negatives + ahead * args.K);
    }
    S* const h = args.vectors + args.centers[m] * args.E;
    steps.template learn<true>(h, nullptr, args.contexts[m], args.negatives + m * args.K);
  }
  return steps.total_loss();
}

template <class S>
double cbow_update(const CbowUpdate<S>& args) {
  const Index E = args.E;
  S* const moved = args.workspace + workspace<S>(args.K, E) - in_whole_vectors<S>(E);
  S* const mean = moved - in_whole_vectors<S>(E);
  Steps<S> steps(args.weights, args.K, E, args.lr, args.workspace);
  const std::int64_t* contexts = args.contexts;
  for (Index m = 0; m < args.M; ++m) {
    const Index count = args.counts[m];
    if (m + 1 < args.M) {
      steps.prefetch_rows(args.centers[m + 1], args.negatives + (m + 1) * args.K);
      for (Index i = 0; i < args.counts[m + 1]; ++i) {
        prefetch_row<S, true>(args.vectors + contexts[count + i] * E, E);
      }
    }
    const S share = 1 / static_cast<S>(count);
    for (Index e = 0; e < E; ++e) mean[e] = 0;
    for (Index i = 0; i < count; ++i) add_row<S>(mean, share, args.vectors + contexts[i] * E, E);
    steps.template learn<false>(mean, moved, args.centers[m], args.negatives + m * args.K);
    const S by = args.divide_step ? share : 1;
    for (Index i = 0; i < count; ++i) add_row<S>(args.vectors + contexts[i] * E, by, moved, E);
    contexts += count;
  }
  return steps.total_loss();
}

template <class S>
constexpr SkipgramKernels<S> table() {
  return {workspace<S>, update<S>, cbow_update<S>};
}

}  // namespace

extern const SkipgramKernels<float> skipgram_float32 = table<float>();
extern const SkipgramKernels<double> skipgram_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
