// Kernels of sampled classes of one instruction set. Semantics are TensorFlow's (_compute_sampled_logits, nce_loss).
#include "../gemm/tile.h"
#include "../parallel.h"
#include "../tuning.h"
#include "../vector_math.h"
#include "kernels.h"

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
  S* sampled_part;   // (B, padded) logits of the sampled classes, then their gradients
  S* true_part;      // (B, K) logits of the true classes, then their gradients
  S* true_loss;      // (B, K), of sigmoid_losses
  S* true_factor;    // (B, K), likewise

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
    sampled_part = dsampled_rows + panels * S_ * kPanel;
    true_part = sampled_part + B * padded;
    true_loss = true_part + B * K;
    true_factor = true_loss + B * K;
  }

  static Index workspace(const SampledLogits<S>& a) {
    const SampledPass pass(a);
    return pass.true_factor + a.B * a.K - a.workspace;
  }

  int threads() const {
    const double work = static_cast<double>(B) * static_cast<double>(columns) * static_cast<double>(E);
    return work < kSmallCall ? 1 : static_cast<int>(ceil_div(B, 16));
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
      if (s + kPrefetchDistance < samples.end) prefetch_class(args.sampled[s + kPrefetchDistance]);
      to_panels(args.weights + args.sampled[s] * E, s, S_, sampled_rows);
      offset[s] = class_offset(args.sampled[s], args.sampled_expected ? args.sampled_expected + s : nullptr);
    }
    for (Index b = rows.begin; b < rows.end; ++b) to_panels(args.inputs + b * E, b, B, inputs);
    for (Index m = rows.begin * K; m < rows.end * K; ++m) {
      if (m + kPrefetchDistance < rows.end * K) prefetch_class(args.labels[m + kPrefetchDistance]);
      to_panels(args.weights + args.labels[m] * E, m, B * K, true_rows);
    }
    team.wait();
    const Range own = piece(padded / kPanel, team.member(), team.size());
    for (Index t = own.begin; t < own.end; ++t) transpose_samples(t * kPanel);
    team.wait();
    multiply_sampled(rows);
    multiply_true(rows);
    if (args.remove_accidental_hits) remove_hits(rows);
  }

  void prefetch_class(std::int64_t id) const {
    prefetch_row(args.weights + id * E, E);
    if (args.biases) __builtin_prefetch(args.biases + id);
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

  void multiply_sampled(Range rows) const {
    for (Index first = 0; first < padded; first += kPanel) {
      for (Index b = rows.begin; b < rows.end;) {
        const Index count = next_tile(rows.end - rows.begin, b - rows.begin, rows_of_tile(kTileVectors));
        const Term<S> term{{inputs + b * kPanel, kPanel, B * kPanel, kPanel, 1, E}, transposed + first * E};
        Tiles<S>::product.of[kTileVectors][count](&term, 1, offset + first, 0, sampled_part + b * padded + first,
                                                  padded);
        b += count;
      }
    }
  }

  void multiply_true(Range rows) const {
    for (Index m = rows.begin * K; m < rows.end * K; ++m) {
      Vec<S> sum{};
      for (Index e = 0; e < panels * kPanel; e += kLanes<S>) {
        sum += at(inputs, B, m / K, e) * at(true_rows, B * K, m, e);
      }
      true_part[m] =
          sum_lanes<S>(sum) + class_offset(args.labels[m], args.true_expected ? args.true_expected + m : nullptr);
    }
  }

  void remove_hits(Range rows) const {
    for (Index m = rows.begin * K; m < rows.end * K; ++m) {
      for (Index s = 0; s < S_; ++s) {
        if (args.sampled[s] == args.labels[m]) sampled_part[m / K * padded + s] = static_cast<S>(kRemoved);
      }
    }
  }

  void write_logits(Range rows) const {
    for (Index b = rows.begin; b < rows.end; ++b) {
      S* const logits = args.logits + b * columns;
      for (Index k = 0; k < K; ++k) logits[k] = true_part[b * K + k];
      for (Index s = 0; s < S_; ++s) logits[K + s] = sampled_part[b * padded + s];
    }
  }

  void read_dlogits(Range rows) const {
    for (Index b = rows.begin; b < rows.end; ++b) {
      const S* const dlogits = args.dlogits + b * columns;
      for (Index k = 0; k < K; ++k) true_part[b * K + k] = dlogits[k];
      for (Index s = 0; s < S_; ++s) sampled_part[b * padded + s] = dlogits[K + s];
    }
  }

  // Losses of the rows; logits become gradients of the mean of all losses.
  void compute_losses(Range rows, SampledLossKind kind, S* losses) const {
    if (kind == SampledLossKind::kSigmoid) {
      sigmoid_losses(rows, losses);
    } else {
      for (Index b = rows.begin; b < rows.end; ++b) losses[b] = softmax_loss(b);
    }
  }

  // Of a logit x with the label z the loss is max(x, 0) - x z + log(1 + exp(-|x|)), its gradient sigmoid(x) - z.
  struct Sigmoid {
    Vec<S> positive;  // max(x, 0)
    Vec<S> factor;    // 1 + exp(-|x|)
    Vec<S> value;     // sigmoid(x)
  };
  static FASTLSTM_INLINE Sigmoid sigmoid(const Vec<S>& x) {
    const Vec<S> tail = Math<S>::exp(x < 0 ? x : -x);
    const Vec<S> factor = 1 + tail;
    const Vec<S> of_magnitude = 1 / factor;
    return {x < 0 ? Vec<S>{} : x, factor, x < 0 ? tail * of_magnitude : of_magnitude};
  }

  // What the rows' own classes should be, from the m-th on.
  Vec<S> labels_at(Index m) const {
    Vec<S> label = broadcast(1 / static_cast<S>(args.num_true));
    if (args.num_true < K) {
      for (int lane = 0; lane < kLanes<S>; ++lane) {
        if ((m + lane) % K >= args.num_true) label[lane] = 0;
      }
    }
    return label;
  }

  // Sums over the classes. The logarithms are taken of products of factors, each at most 2.
  void sigmoid_losses(Range rows, S* losses) const {
    constexpr Index kTogether = 100;  // vectors, and in a lane factors
    const S scale = 1 / static_cast<S>(B);
    for (Index m = rows.begin * K; m < rows.end * K; m += kLanes<S>) {
      const Index left = rows.end * K - m;
      const Vec<S> x = load_partial(true_part + m, left), label = labels_at(m);
      const Sigmoid terms = sigmoid(x);
      store_partial(true_loss + m, terms.positive - x * label, left);
      store_partial(true_factor + m, terms.factor, left);
      store_partial(true_part + m, (terms.value - label) * scale, left);
    }
    for (Index b = rows.begin; b < rows.end; ++b) {
      LogOfProduct logs;
      double linear = 0;
      for (Index m = b * K; m < (b + 1) * K; ++m) {
        linear += static_cast<double>(true_loss[m]);
        logs.multiply(static_cast<double>(true_factor[m]), 1);
      }
      S* const x = sampled_part + b * padded;
      for (Index s = S_; s % kLanes<S> != 0; ++s) x[s] = static_cast<S>(kRemoved);
      for (Index begin = 0; begin < S_; begin += kTogether * kLanes<S>) {
        Vec<S> sum{}, product = broadcast<S>(1);
        Index s = begin;
        for (const Index end = min_of(begin + kTogether * kLanes<S>, S_); s < end; s += kLanes<S>) {
          const Sigmoid terms = sigmoid(load(x + s));
          sum += terms.positive;
          product *= terms.factor;
          store(x + s, terms.value * scale);
        }
        linear += static_cast<double>(sum_lanes<S>(sum));
        for (int lane = 0; lane < kLanes<S>; ++lane) {
          logs.multiply(static_cast<double>(product[lane]), (s - begin) / kLanes<S>);
        }
      }
      losses[b] = static_cast<S>(linear + logs.sum());
    }
  }

  // The sum of many logarithms of numbers from 1 to 2.
  class LogOfProduct {
   public:
    // A product of `count` numbers.
    FASTLSTM_INLINE void multiply(double product, Index count) {
      count_ += count;
      if (count_ > 1000) {  // below what a double holds
        sum_ += __builtin_log(product_);
        product_ = 1;
        count_ = count;
      }
      product_ *= product;
    }
    FASTLSTM_INLINE double sum() const { return sum_ + __builtin_log(product_); }

   private:
    double sum_ = 0, product_ = 1;
    Index count_ = 0;
  };

  S softmax_loss(Index b) const {
    S* const true_logits = true_part + b * K;
    S* const sampled_logits = sampled_part + b * padded;
    S top = true_logits[0];
    for (Index k = 1; k < K; ++k) top = larger(true_logits[k], top);
    for (Index s = 0; s < S_; ++s) top = larger(sampled_logits[s], top);
    const S share = 1 / static_cast<S>(args.num_true), scale = 1 / static_cast<S>(B);
    double true_below_top = 0;
    for (Index k = 0; k < args.num_true; ++k)
      true_below_top += (static_cast<double>(top) - static_cast<double>(true_logits[k])) * static_cast<double>(share);
    double total = exponentials(true_logits, K, top);
    total += exponentials(sampled_logits, S_, top);
    const S factor = scale / static_cast<S>(total);
    for (Index k = 0; k < K; ++k) {
      true_logits[k] = true_logits[k] * factor - (k < args.num_true ? share : 0) * scale;
    }
    for (Index s = 0; s < S_; ++s) sampled_logits[s] *= factor;
    return static_cast<S>(__builtin_log(total) + true_below_top);
  }

  // NaN if either is NaN.
  static FASTLSTM_INLINE S larger(S value, S than) { return value > than || value != value ? value : than; }

  // exp(x - top) in place; their sum.
  static double exponentials(S* x, Index count, S top) {
    double total = 0;
    for (Index k = 0; k < count; k += kLanes<S>) {
      const Index left = min_of(kLanes<S>, count - k);
      const Vec<S> e = Math<S>::exp(load_partial(x + k, left) - top);
      for (Index lane = 0; lane < left; ++lane) total += static_cast<double>(e[lane]);
      store_partial(x + k, e, left);
    }
    return total;
  }

  void backward(Team& team) const {
    multiply_dinputs(piece(B, team.member(), team.size()));
    team.wait();
    multiply_dsampled(piece(S_, team.member(), team.size()));
    sum_dsampled_biases(piece(padded / kLanes<S>, team.member(), team.size()));
    team.wait();
    sum_classes(piece(args.U, team.member(), team.size()));
  }

  // dinputs = dtrue logits . true rows + dsampled logits . sampled rows
  void multiply_dinputs(Range rows) const {
    alignas(64) S tile[rows_of_tile(kTileVectors) * kPanel];
    for (Index p = 0; p < panels; ++p) {
      for (Index b = rows.begin; b < rows.end;) {
        const Index count = next_tile(rows.end - rows.begin, b - rows.begin, rows_of_tile(kTileVectors));
        for (Index m = 0; m < count; ++m) {
          for (Index v = 0; v < kPanel; v += kLanes<S>) store(tile + m * kPanel + v, from_true(b + m, p * kPanel + v));
        }
        const Term<S> term{row_major(sampled_part + b * padded, padded, S_), sampled_rows + p * S_ * kPanel};
        Tiles<S>::product.of[kTileVectors][count](&term, 1, tile, kPanel, tile, kPanel);
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

  Vec<S> from_true(Index b, Index e) const {
    Vec<S> sum{};
    for (Index m = b * K; m < (b + 1) * K; ++m) sum += true_part[m] * at(true_rows, B * K, m, e);
    return sum;
  }

  // dsampled rows = dsampled logits^T inputs
  void multiply_dsampled(Range samples) const {
    for (Index p = 0; p < panels; ++p) {
      for (Index s = samples.begin; s < samples.end;) {
        const Index count = next_tile(samples.end - samples.begin, s - samples.begin, rows_of_tile(kTileVectors));
        S* const out = dsampled_rows + (p * S_ + s) * kPanel;
        for (Index k = 0; k < count * kPanel; k += kLanes<S>) store(out + k, Vec<S>{});
        Tiles<S>::transposed.of[kTileVectors][count](sampled_part + s, padded, inputs + p * B * kPanel, kPanel, B, out,
                                                     kPanel);
        s += count;
      }
    }
  }

  // The gradient of every class that takes part: true ones from the gradients of their logits and the inputs, sampled
  // ones from dsampled rows.
  void sum_classes(Range classes) const {
    for (Index u = classes.begin; u < classes.end; ++u) {
      S* const sum = args.dweights + u * E;
      S bias = 0;
      for (Index g = args.starts[u]; g < args.starts[u + 1]; ++g) {
        const bool is_first = g == args.starts[u];
        const Index m = args.order[g];
        if (m < B * K) {
          add_scaled(true_part[m], inputs, B, m / K, is_first, sum);
          bias += true_part[m];
        } else {
          add_scaled(1, dsampled_rows, S_, m - B * K, is_first, sum);
          bias += offset[m - B * K];
        }
      }
      if (args.dbiases) args.dbiases[u] = bias;
    }
  }

  // sum (+)= scale times row m of panels
  void add_scaled(S scale, const S* matrix, Index rows, Index m, bool is_first, S* sum) const {
    for (Index e = 0; e < E; e += kLanes<S>) {
      Vec<S> value = scale * at(matrix, rows, m, e);
      if (!is_first) value += load_partial(sum + e, E - e);
      store_partial(sum + e, value, E - e);
    }
  }

  void sum_dsampled_biases(Range vectors) const {
    for (Index s = vectors.begin * kLanes<S>; s < vectors.end * kLanes<S>; s += kLanes<S>) {
      Vec<S> sum{};
      for (Index b = 0; b < B; ++b) sum += load(sampled_part + b * padded + s);
      store(offset + s, sum);
    }
  }
};

template <class S>
void forward(const SampledLogits<S>& args) {
  SampledPass<S> pass(args);
  run_team(
      pass.threads(),
      [](void* p, Team& team) {
        const SampledPass<S>& call = *static_cast<SampledPass<S>*>(p);
        call.forward(team);
        call.write_logits(piece(call.B, team.member(), team.size()));
      },
      &pass);
}

template <class S>
void backward(const SampledLogits<S>& args) {
  SampledPass<S> pass(args);
  run_team(
      pass.threads(),
      [](void* p, Team& team) {
        const SampledPass<S>& call = *static_cast<SampledPass<S>*>(p);
        call.read_dlogits(piece(call.B, team.member(), team.size()));
        call.backward(team);
      },
      &pass);
}

template <class S>
void loss(const SampledLogits<S>& args, SampledLossKind kind, S* losses) {
  struct Context {
    SampledPass<S> pass;
    SampledLossKind kind;
    S* losses;
  };
  Context context{SampledPass<S>(args), kind, losses};
  run_team(
      context.pass.threads(),
      [](void* c, Team& team) {
        const Context& call = *static_cast<Context*>(c);
        call.pass.forward(team);
        call.pass.compute_losses(piece(call.pass.B, team.member(), team.size()), call.kind, call.losses);
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
