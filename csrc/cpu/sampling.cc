// Kernels of sampled classes of one instruction set. Semantics are TensorFlow's (_compute_sampled_logits, nce_loss).
#include "kernels.h"
#include "parallel.h"
#include "tile.h"
#include "vector_math.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// What TensorFlow adds to a logit that is to vanish: minus the largest float32, for float64 too.
constexpr double kRemoved = -3.4028234663852886e38;

template <class S>
struct SampledPass {
  static constexpr Index kPanel = kTileColumns<S>;

  const SampledLogits<S>& args;
  Index B, K, S_, E;
  Index panels;      // of E
  Index columns;     // K + S
  Index padded;      // S, in whole panels
  S* inputs;         // panels [B][kPanel]
  S* true_rows;      // panels [B K][kPanel]
  S* sampled_rows;   // panels [S][kPanel]
  S* transposed;     // sampled rows as columns: panels [E][kPanel] of S
  S* offset;         // (padded,) bias - log expected count; in backward, gradients of the sampled biases
  S* dsampled_rows;  // panels [S][kPanel]
  S* row;            // (B, padded) logits of the sampled classes, then their gradients

  explicit SampledPass(const SampledLogits<S>& a)
      : args(a),
        B(a.B),
        K(a.K),
        S_(a.sampled_count),
        E(a.E),
        panels(ceil_div(a.E, kPanel)),
        columns(a.K + a.sampled_count),
        padded(ceil_div(a.sampled_count, kPanel) * kPanel) {
    inputs = args.workspace;
    true_rows = inputs + panels * B * kPanel;
    sampled_rows = true_rows + panels * B * K * kPanel;
    transposed = sampled_rows + panels * S_ * kPanel;
    offset = transposed + padded * E;
    dsampled_rows = offset + padded;
    row = dsampled_rows + panels * S_ * kPanel;
  }

  static Index workspace(const SampledLogits<S>& a) {
    const SampledPass pass(a);
    return pass.row + a.B * pass.padded - a.workspace;
  }

  int threads() const {
    constexpr double kSmallWork = 4e6;
    const double work = static_cast<double>(B) * static_cast<double>(columns) * static_cast<double>(E);
    return work < kSmallWork ? 1 : static_cast<int>(ceil_div(B, 16));
  }

  // Row m of a (rows, E) matrix to its place in panels, zeros behind E.
  void to_panels(const S* from, Index m, Index rows, S* to) const {
    for (Index p = 0; p < panels; ++p) {
      for (Index e = 0; e < kPanel; e += kLanes<S>) {
        const Index left = E - p * kPanel - e;
        store(to + (p * rows + m) * kPanel + e, load_partial(from + p * kPanel + e, left));
      }
    }
  }

  // Elements e .. e + kLanes of row m of panels.
  static FASTLSTM_INLINE Vec<S> at(const S* matrix, Index rows, Index m, Index e) {
    return load(matrix + (e / kPanel * rows + m) * kPanel + e % kPanel);
  }

  S class_offset(std::int64_t id, const double* expected) const {
    S value = args.biases ? args.biases[id] : S{0};
    if (expected) value -= static_cast<S>(__builtin_log(*expected));
    return value;
  }

  void forward(Team& team) const {
    const Range rows = piece(B, team.member(), team.size());
    const Range samples = piece(S_, team.member(), team.size());
    for (Index s = samples.begin; s < samples.end; ++s) {
      to_panels(args.weights + args.sampled[s] * E, s, S_, sampled_rows);
      offset[s] = class_offset(args.sampled[s], args.sampled_expected ? args.sampled_expected + s : nullptr);
    }
    for (Index b = rows.begin; b < rows.end; ++b) {
      to_panels(args.inputs + b * E, b, B, inputs);
      for (Index k = 0; k < K; ++k) to_panels(args.weights + args.labels[b * K + k] * E, b * K + k, B * K, true_rows);
    }
    team.wait();
    const Range own = piece(padded / kPanel, team.member(), team.size());
    for (Index t = own.begin; t < own.end; ++t) transpose_samples(t * kPanel);
    team.wait();
    multiply_logits(rows);
    for (Index b = rows.begin; b < rows.end; ++b) finish_logits(b);
  }

  void transpose_samples(Index first) const {
    for (Index s = max_of(first, S_); s < first + kPanel; ++s) offset[s] = 0;
    for (Index s = first; s < first + kPanel; s += kLanes<S>) {
      for (Index p = 0; p < panels; ++p) {
        const Index depth = min_of(kPanel, E - p * kPanel);
        transpose_into(sampled_rows + (p * S_ + s) * kPanel, kPanel, S_ - s, depth,
                       transposed + first * E + p * kPanel * kPanel + s - first, kPanel);
      }
    }
  }

  void multiply_logits(Range rows) const {
    for (Index first = 0; first < padded; first += kPanel) {
      for (Index b = rows.begin; b < rows.end;) {
        const Index count = next_tile(rows.end - rows.begin, b - rows.begin, kTileRows<kTileVectors>);
        const Term<S> term{{inputs + b * kPanel, kPanel, B * kPanel, kPanel, 1, E}, transposed + first * E};
        kTilesOf<S, kTileVectors>.by_rows[count](&term, 1, offset + first, 0, row + b * padded + first, padded);
        b += count;
      }
    }
  }

  // The true classes' logits; both kinds to their places.
  void finish_logits(Index b) const {
    S* const logits = args.logits + b * columns;
    for (Index k = 0; k < K; ++k) {
      const Index m = b * K + k;
      Vec<S> sum{};
      for (Index e = 0; e < panels * kPanel; e += kLanes<S>) sum += at(inputs, B, b, e) * at(true_rows, B * K, m, e);
      logits[k] =
          sum_lanes<S>(sum) + class_offset(args.labels[m], args.true_expected ? args.true_expected + m : nullptr);
    }
    for (Index s = 0; s < S_; ++s) logits[K + s] = row[b * padded + s];
    if (!args.remove_accidental_hits) return;
    for (Index k = 0; k < K; ++k) {
      for (Index s = 0; s < S_; ++s) {
        if (args.sampled[s] == args.labels[b * K + k]) logits[K + s] = static_cast<S>(kRemoved);
      }
    }
  }

  // Sigmoid cross entropy summed over the columns, or softmax cross entropy; logits become gradients of the mean.
  void lose(Range rows, SampledLossKind kind, S* losses) const {
    const S share = 1 / static_cast<S>(K), scale = 1 / static_cast<S>(B);
    for (Index b = rows.begin; b < rows.end; ++b) {
      S* const x = args.logits + b * columns;
      losses[b] = kind == SampledLossKind::kSigmoid ? sigmoid_loss(x, share, scale) : softmax_loss(x, share, scale);
    }
  }

  // Sum of max(x, 0) - x z + log(1 + exp(-|x|)). The logarithms are taken of products of up to kTogether factors, each
  // at most 2.
  S sigmoid_loss(S* x, S share, S scale) const {
    constexpr Index kTogether = 100;
    double loss = 0;
    for (Index begin = 0; begin < columns; begin += kTogether * kLanes<S>) {
      const Index end = min_of(begin + kTogether * kLanes<S>, columns);
      Vec<S> linear{}, product = broadcast<S>(1);
      for (Index k = begin; k < end; k += kLanes<S>) {
        const Vec<S> value = load_partial(x + k, end - k);
        const Vec<S> magnitude = value < 0 ? -value : value;
        const Vec<S> tail = Math<S>::exp(-magnitude);
        const Vec<S> factor = 1 + tail;
        const Vec<S> of_magnitude = 1 / factor;  // sigmoid(|x|)
        Vec<S> label{}, gradient = value < 0 ? tail * of_magnitude : of_magnitude;
        for (Index lane = k; lane < min_of(k + kLanes<S>, K); ++lane) label[lane - k] = share;
        linear += (value < 0 ? Vec<S>{} : value) - value * label;
        gradient = (gradient - label) * scale;
        if (end - k >= kLanes<S>) {
          product *= factor;
        } else {
          for (Index lane = 0; lane < end - k; ++lane) product[lane] *= factor[lane];
        }
        store_partial(x + k, gradient, end - k);
      }
      double factors = 1;
      for (int lane = 0; lane < kLanes<S>; ++lane) {
        factors *= static_cast<double>(product[lane]);
        if (lane % 8 == 7 || lane == kLanes<S> - 1) {
          loss += __builtin_log(factors);
          factors = 1;
        }
      }
      loss += static_cast<double>(sum_lanes<S>(linear));
    }
    return static_cast<S>(loss);
  }

  S softmax_loss(S* x, S share, S scale) const {
    S top = x[0];
    for (Index k = 1; k < columns; ++k) {
      if (x[k] > top || x[k] != x[k]) top = x[k];
    }
    double of_true = 0;
    for (Index k = 0; k < K; ++k) of_true += static_cast<double>(x[k]) * static_cast<double>(share);
    double total = 0;
    for (Index k = 0; k < columns; k += kLanes<S>) {
      const Index count = min_of(kLanes<S>, columns - k);
      const Vec<S> e = Math<S>::exp(load_partial(x + k, count) - top);
      for (Index lane = 0; lane < count; ++lane) total += static_cast<double>(e[lane]);
      store_partial(x + k, e, count);
    }
    const S factor = scale / static_cast<S>(total);
    for (Index k = 0; k < columns; ++k) x[k] = x[k] * factor - (k < K ? share * scale : S{0});
    return static_cast<S>(__builtin_log(total) + static_cast<double>(top) - of_true);
  }

  void backward(Team& team) const {
    const Range rows = piece(B, team.member(), team.size());
    for (Index b = rows.begin; b < rows.end; ++b) {
      const S* const dlogits = args.dlogits + b * columns + K;
      for (Index s = 0; s < padded; ++s) row[b * padded + s] = s < S_ ? dlogits[s] : S{0};
    }
    multiply_dinputs(rows);
    team.wait();
    multiply_dsampled(piece(S_, team.member(), team.size()));
    sum_dsampled_biases(piece(padded / kLanes<S>, team.member(), team.size()));
    team.wait();
    sum_classes(piece(args.U, team.member(), team.size()));
  }

  // dinputs = dtrue logits . true rows + dsampled logits . sampled rows
  void multiply_dinputs(Range rows) const {
    alignas(64) S tile[kTileRows<kTileVectors> * kPanel];
    for (Index p = 0; p < panels; ++p) {
      for (Index b = rows.begin; b < rows.end;) {
        const Index count = next_tile(rows.end - rows.begin, b - rows.begin, kTileRows<kTileVectors>);
        for (Index m = 0; m < count; ++m) {
          for (Index v = 0; v < kPanel; v += kLanes<S>) store(tile + m * kPanel + v, true_part(b + m, p * kPanel + v));
        }
        const Term<S> term{row_major(row + b * padded, padded, S_), sampled_rows + p * S_ * kPanel};
        kTilesOf<S, kTileVectors>.by_rows[count](&term, 1, tile, kPanel, tile, kPanel);
        for (Index m = 0; m < count; ++m) {
          for (Index v = 0; v < kPanel; v += kLanes<S>) {
            const Index e = p * kPanel + v;
            store_partial(args.dinputs + (b + m) * E + e, load(tile + m * kPanel + v), E - e);
          }
        }
        b += count;
      }
    }
  }

  Vec<S> true_part(Index b, Index e) const {
    Vec<S> sum{};
    for (Index k = 0; k < K; ++k) sum += args.dlogits[b * columns + k] * at(true_rows, B * K, b * K + k, e);
    return sum;
  }

  // dsampled rows = dsampled logits^T inputs
  void multiply_dsampled(Range samples) const {
    for (Index p = 0; p < panels; ++p) {
      for (Index s = samples.begin; s < samples.end;) {
        const Index count = next_tile(samples.end - samples.begin, s - samples.begin, kTileRows<kTileVectors>);
        S* const out = dsampled_rows + (p * S_ + s) * kPanel;
        for (Index k = 0; k < count * kPanel; k += kLanes<S>) store(out + k, Vec<S>{});
        kTransposedTilesOf<S, kTileVectors>.by_rows[count](row + s, padded, inputs + p * B * kPanel, kPanel, B, out,
                                                           kPanel);
        s += count;
      }
    }
  }

  // The gradient of every class that takes part: true ones from dlogits and inputs, sampled ones from dsampled rows.
  void sum_classes(Range classes) const {
    for (Index u = classes.begin; u < classes.end; ++u) {
      for (Index e = 0; e < E; e += kLanes<S>) {
        Vec<S> sum{};
        for (Index g = args.starts[u]; g < args.starts[u + 1]; ++g) {
          const Index m = args.order[g];
          if (m < B * K) {
            sum += args.dlogits[m / K * columns + m % K] * at(inputs, B, m / K, e);
          } else {
            sum += at(dsampled_rows, S_, m - B * K, e);
          }
        }
        store_partial(args.dweights + u * E + e, sum, E - e);
      }
      if (args.dbiases) args.dbiases[u] = bias_gradient(u);
    }
  }

  void sum_dsampled_biases(Range vectors) const {
    for (Index s = vectors.begin * kLanes<S>; s < vectors.end * kLanes<S>; s += kLanes<S>) {
      Vec<S> sum{};
      for (Index b = 0; b < B; ++b) sum += load(row + b * padded + s);
      store(offset + s, sum);
    }
  }

  S bias_gradient(Index u) const {
    S sum = 0;
    for (Index g = args.starts[u]; g < args.starts[u + 1]; ++g) {
      const Index m = args.order[g];
      sum += m < B * K ? args.dlogits[m / K * columns + m % K] : offset[m - B * K];
    }
    return sum;
  }
};

template <class S>
void forward(const SampledLogits<S>& args) {
  SampledPass<S> pass(args);
  run_team(pass.threads(), [](void* p, Team& team) { static_cast<SampledPass<S>*>(p)->forward(team); }, &pass);
}

template <class S>
void backward(const SampledLogits<S>& args) {
  SampledPass<S> pass(args);
  run_team(pass.threads(), [](void* p, Team& team) { static_cast<SampledPass<S>*>(p)->backward(team); }, &pass);
}

template <class S>
void loss(const SampledLogits<S>& args, SampledLossKind kind, S* losses) {
  struct Context {
    SampledPass<S> pass;
    SampledLossKind kind;
    S* losses;
  };
  SampledLogits<S> in_place = args;
  in_place.dlogits = args.logits;
  Context context{SampledPass<S>(in_place), kind, losses};
  run_team(
      context.pass.threads(),
      [](void* c, Team& team) {
        const Context& call = *static_cast<Context*>(c);
        call.pass.forward(team);
        call.pass.lose(piece(call.pass.B, team.member(), team.size()), call.kind, call.losses);
        call.pass.backward(team);
      },
      &context);
}

template <class S>
constexpr SampledKernels<S> table() {
  return {SampledPass<S>::workspace, forward<S>, backward<S>, loss<S>};
}

}  // namespace

extern const SampledKernels<float> sampled_float32 = table<float>();
extern const SampledKernels<double> sampled_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
