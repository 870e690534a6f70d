// The kernels without Python, for where there is none: under emulators, on other systems. Products and linear cross
// entropies against loops, LSTM, GRU and RNN in float64 against central differences of the loss, all in float32 against
// float64. FASTLSTM_MAX_ISA chooses the instruction set. Exits with 1 where a number is wrong.
#include "gemm/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "losses/kernels.h"
#include "recurrent/kernels.h"
#include "threads.h"
#include "workspace.h"

namespace {

using namespace fastlstm;
template <class S>
using Numbers = std::vector<S>;

constexpr int kThreads = 2;
int checks = 0, wrong = 0;

std::size_t size_of(Index a, Index b = 1, Index c = 1) { return static_cast<std::size_t>(a * b * c); }

Numbers<double> drawn(std::size_t size, double scale = 1) {
  static std::mt19937 generator(1);
  Numbers<double> numbers(size);
  for (double& x : numbers) x = scale * (static_cast<double>(generator()) / 2147483648.0 - 1.0);
  return numbers;
}

template <class S>
Numbers<S> as(const Numbers<double>& numbers) {
  Numbers<S> made(numbers.size());
  std::transform(numbers.begin(), numbers.end(), made.begin(), [](double x) { return static_cast<S>(x); });
  return made;
}

template <class S>
void expect(const std::string& what, const Numbers<S>& got, const Numbers<double>& wanted, double tolerance) {
  double largest = 1, error = got.size() == wanted.size() ? 0 : INFINITY;
  for (std::size_t k = 0; k < std::min(got.size(), wanted.size()); ++k) {
    largest = std::max(largest, std::abs(wanted[k]));
    const double off = std::abs(static_cast<double>(got[k]) - wanted[k]);
    if (!(off <= error)) error = off;  // NaN too
  }
  ++checks;
  if (error <= tolerance * largest) return;
  ++wrong;
  std::printf("%s, %d bytes a number: off by %g of %g\n", what.c_str(), static_cast<int>(sizeof(S)), error, largest);
}

template <class S>
constexpr double kTolerance = std::is_same_v<S, float> ? 2e-5 : 1e-12;

template <class S>
void test_product(Index M, Index K, Index L) {
  const Numbers<double> a = drawn(size_of(M, K)), b = drawn(size_of(K, L)), bias = drawn(size_of(L));
  const Numbers<S> A = as<S>(a), B = as<S>(b), c = as<S>(bias);
  for (int way = 0; way < 4; ++way) {
    const bool turn_a = way & 1, turn_b = way & 2;
    Numbers<double> wanted(size_of(M, L));
    for (Index m = 0; m < M; ++m) {
      for (Index l = 0; l < L; ++l) {
        double sum = bias[size_of(l)];
        for (Index k = 0; k < K; ++k) {
          sum += a[size_of(turn_a ? k * M + m : m * K + k)] * b[size_of(turn_b ? l * K + k : k * L + l)];
        }
        wanted[size_of(m * L + l)] = sum;
      }
    }
    Numbers<S> out(size_of(M, L));
    Product<S> args{M, K, L, turn_a, turn_b, A.data(), B.data(), c.data(), out.data(), kThreads, nullptr, nullptr};
    const ProductKernels<S>& product = *kernels<S>().product;
    const Array<S> workspace(product.workspace(args));
    args.workspace = workspace.data();
    product.run(args);
    expect("product", out, wanted, kTolerance<S> * static_cast<double>(K));
    if (turn_a) continue;
    const Array<S> prepared(product.prepared_size(K, L));
    product.prepare(args, prepared.data());
    args.prepared = prepared.data();
    const Array<S> other_workspace(product.prepared_workspace(args));
    args.workspace = other_workspace.data();
    Numbers<S> same(size_of(M, L));
    args.out = same.data();
    product.run_prepared(args);
    expect("prepared product", same, Numbers<double>(out.begin(), out.end()), 0);
  }
}

template <class S>
void test_loss(Index M, Index H, Index V) {
  const Numbers<double> h = drawn(size_of(M, H)), W = drawn(size_of(H, V)), b = drawn(size_of(V));
  std::vector<std::int64_t> targets;
  for (Index m = 0; m < M; ++m) targets.push_back(m * 7 % V);
  Numbers<double> losses(size_of(M)), dh(size_of(M, H)), dW(size_of(H, V)), db(size_of(V));
  for (Index m = 0; m < M; ++m) {
    Numbers<double> logits = b;
    for (Index v = 0; v < V; ++v) {
      for (Index k = 0; k < H; ++k) logits[size_of(v)] += h[size_of(m * H + k)] * W[size_of(k * V + v)];
    }
    double sum = 0;
    for (const double x : logits) sum += std::exp(x);
    losses[size_of(m)] = std::log(sum) - logits[size_of(targets[size_of(m)])];
    for (Index v = 0; v < V; ++v) {
      const double slope = std::exp(logits[size_of(v)]) / sum - (v == targets[size_of(m)]);
      db[size_of(v)] += slope;
      for (Index k = 0; k < H; ++k) {
        dh[size_of(m * H + k)] += slope * W[size_of(k * V + v)];
        dW[size_of(k * V + v)] += slope * h[size_of(m * H + k)];
      }
    }
  }
  const Numbers<S> hs = as<S>(h), weights = as<S>(W), bias = as<S>(b);
  Numbers<double> got(size_of(M));
  Numbers<S> got_dh(size_of(M, H)), got_dW(size_of(H, V)), got_db(size_of(V));
  LinearLoss<S> args{.M = M,
                     .H = H,
                     .V = V,
                     .transposed = false,
                     .dW_transposed = false,
                     .add_to_dW = false,
                     .add_to_db = false,
                     .h = hs.data(),
                     .W = weights.data(),
                     .b = bias.data(),
                     .targets = targets.data(),
                     .block = kLossPanel,
                     .threads = kThreads,
                     .scale = 1,
                     .losses = got.data(),
                     .dh = got_dh.data(),
                     .dW = got_dW.data(),
                     .db = got_db.data(),
                     .workspace = nullptr};
  const LinearLossKernels<S>& loss = *kernels<S>().linear_loss;
  const Array<S> workspace(loss.workspace(args));
  args.workspace = workspace.data();
  loss.run(args);
  const double tolerance = kTolerance<S> * static_cast<double>(M + H);
  expect("linear cross entropy", got, losses, tolerance);
  expect("linear cross entropy: dh", got_dh, dh, tolerance);
  expect("linear cross entropy: dW", got_dW, dW, tolerance);
  expect("linear cross entropy: db", got_db, db, tolerance);
}

struct Layer {
  const char* name;
  Index gates;
  BlockLayout layout;
  bool has_cell;
};

// A layer's inputs, one behind the other: xs, Wx, Wh, b, h0, c0.
struct Shapes {
  Shapes(const Layer& layer, Index N, Index T, Index D, Index H) {
    const Index G = layer.gates * H;
    for (const Index size : {N * T * D, D * G, H * G, G, N * H, layer.has_cell ? N * H : Index{0}}) {
      begin.push_back(begin.back() + size);
    }
  }
  std::vector<Index> begin{0};
};

// The states of all steps, and the gradients of their sum times `upstream` by every input.
template <class S>
struct Passes {
  Numbers<S> hs, grads;
};

// hs of the same call with weights that are packed before.
template <class S>
Numbers<S> run_prepared(const Layer& layer, const RecurrentKernels<S>& kernels, RecurrentForward<S> forward) {
  RecurrentSizes& sizes = forward.sizes;
  const Index N = sizes.N, T = sizes.T, H = sizes.H;
  sizes.keeps_gates = false;
  sizes.prepared = true;
  const Array<S> prepared(kernels.prepared_size(sizes));
  forward.prepared = forward.workspace = prepared.data();
  kernels.prepare(forward);
  const Array<S> h(layer.layout.state_buffer(2 * N, H)), c(layer.layout.state_buffer(2 * N, H));
  const Array<S> workspace(kernels.prepared_workspace(sizes));
  Numbers<S> hs(size_of(N, T, H));
  forward.hs = {hs.data(), T * H, H};
  forward.gates = nullptr;
  forward.h = h.data();
  if (layer.has_cell) forward.c = c.data();
  forward.slots = 2;
  forward.workspace = workspace.data();
  kernels.prepared_forward(forward);
  return hs;
}

template <class S>
Passes<S> run(const Layer& layer, const RecurrentKernels<S>& kernels, Index N, Index T, Index D, Index H,
              const Numbers<double>& inputs, const Numbers<double>& upstream) {
  const Index G = layer.gates * H, rows = T * N;
  const Shapes shapes(layer, N, T, D, H);
  const Numbers<S> given = as<S>(inputs), dhs = as<S>(upstream);
  Passes<S> passes{Numbers<S>(size_of(N, T, H)), Numbers<S>(inputs.size())};
  const auto input = [&](std::size_t k) { return given.data() + shapes.begin[k]; };
  const auto grad = [&](std::size_t k) { return passes.grads.data() + shapes.begin[k]; };
  RecurrentSizes sizes{};
  sizes.N = N, sizes.T = T, sizes.D = D, sizes.H = H, sizes.threads = kThreads;
  for (int gate = 0; gate < 4; ++gate) sizes.gate_position[gate] = gate;
  sizes.keeps_gates = layer.gates > 1;  // the RNN's states are enough
  const Array<S> gates(layer.layout.gate_buffer(rows, H));
  const Array<S> h(layer.layout.state_buffer(rows + N, H)), c(layer.layout.state_buffer(rows + N, H));
  RecurrentForward<S> forward{};
  forward.sizes = sizes;
  forward.xs = {input(0), T * D, D};
  forward.Wx = {input(1), G, 1};
  forward.Wh = {input(2), G, 1};
  forward.b = input(3);
  forward.h0 = input(4);
  if (layer.has_cell) forward.c0 = input(5);
  forward.hs = {passes.hs.data(), T * H, H};
  if (sizes.keeps_gates) forward.gates = gates.data();
  forward.h = h.data();
  if (layer.has_cell) forward.c = c.data();
  forward.slots = T + 1;
  const Array<S> workspace(std::max(kernels.forward_workspace(sizes), kernels.backward_workspace(sizes)));
  forward.workspace = workspace.data();
  kernels.forward(forward);
  expect(std::string(layer.name) + ": prepared", run_prepared<S>(layer, kernels, forward),
         Numbers<double>(passes.hs.begin(), passes.hs.end()), 0);
  RecurrentBackward<S> backward{};
  backward.sizes = sizes;
  backward.xs = forward.xs;
  backward.Wx = forward.Wx;
  backward.Wh = forward.Wh;
  backward.dhs = {dhs.data(), T * H, H};
  backward.gates = gates.data();
  backward.h = h.data();
  backward.c = forward.c;
  backward.dxs = {grad(0), T * D, D};
  backward.dWx = {grad(1), G, 1, false};
  backward.dWh = {grad(2), G, 1, false};
  backward.db = {grad(3), G, 1, false};
  backward.dh0 = grad(4);
  if (layer.has_cell) backward.dc0 = grad(5);
  backward.workspace = workspace.data();
  kernels.backward(backward);
  return passes;
}

void test_recurrent(const Layer& layer, const RecurrentKernels<double>& in_float64,
                    const RecurrentKernels<float>& in_float32, Index N, Index T, Index D, Index H) {
  const Numbers<double> inputs = drawn(size_of(Shapes(layer, N, T, D, H).begin.back()), 0.4);
  const Numbers<double> upstream = drawn(size_of(N, T, H));
  const Passes<double> passes = run(layer, in_float64, N, T, D, H, inputs, upstream);
  const auto loss = [&](const Numbers<double>& at) {
    const Numbers<double> hs = run(layer, in_float64, N, T, D, H, at, upstream).hs;
    double sum = 0;
    for (std::size_t k = 0; k < hs.size(); ++k) sum += hs[k] * upstream[k];
    return sum;
  };
  for (int direction = 0; direction < 3; ++direction) {
    const Numbers<double> along = drawn(inputs.size());
    Numbers<double> before = inputs, behind = inputs;
    double slope = 0;
    constexpr double kStep = 1e-6;
    for (std::size_t k = 0; k < along.size(); ++k) {
      before[k] -= kStep * along[k];
      behind[k] += kStep * along[k];
      slope += passes.grads[k] * along[k];
    }
    expect(std::string(layer.name) + ": gradients", Numbers<double>{slope},
           {(loss(behind) - loss(before)) / (2 * kStep)}, 1e-6);
  }
  const Passes<float> same = run(layer, in_float32, N, T, D, H, inputs, upstream);
  expect(std::string(layer.name) + ": states", same.hs, passes.hs, 1e-5);
  expect(std::string(layer.name) + ": gradients", same.grads, passes.grads, 1e-4);
}

template <class S>
void test_products_and_losses() {
  for (const Index M : {1, 5, 33}) {
    for (const Index L : {1, 17, 130}) {
      test_product<S>(M, 19, L);
      test_loss<S>(M, 19, L);
    }
  }
}

}  // namespace

int main() {
  set_num_threads(kThreads);
  set_teams_always(true);
  test_products_and_losses<float>();
  test_products_and_losses<double>();
  const auto& in64 = kernels<double>();
  const auto& in32 = kernels<float>();
  for (const Index N : {1, 3, 18}) {
    for (const Index H : {1, 7, 40, 66}) {
      test_recurrent({"lstm", 4, kLstmLayout, true}, *in64.lstm, *in32.lstm, N, 4, 5, H);
      test_recurrent({"gru", 3, kGruLayout, false}, *in64.gru, *in32.gru, N, 4, 5, H);
      test_recurrent({"rnn", 1, kRnnLayout, false}, *in64.rnn, *in32.rnn, N, 4, 5, H);
    }
  }
  std::printf("%s: %d checks, %d wrong\n", instruction_set().name, checks, wrong);
  return wrong > 0;
}
