// The plain kernel, one launch a phase: what the other kernels of a sequence compute, without anything that makes it
// fast. It runs every cell, precision and size on every device, and the others are compared with it there.
//
// A thread computes one unit of one row: its columns of the product with the recurrent weights, then the cell.
#include "gru_step.h"
#include "run.h"

namespace fastlstm::cuda {
namespace {

constexpr int kThreads = 128;

template <class S>
struct PlainArguments {
  Sequence<S> sequence;
  Index phase;
  S* operands;  // [2][N][gates H], in turns: what one phase leaves to the next one's product
  S* state;     // [2][N][H]: the carried h and c
};

// A factor of a product, as the precision rounds it.
template <class P>
__device__ typename P::State rounded(typename P::State x) {
  const typename P::Operand operand = P::operand(x);
  if constexpr (sizeof operand == 2) {
    return float_of(static_cast<std::uint32_t>(operand) << 16);
  } else {
    return operand;
  }
}

// C is LstmOrRnn or Gru.
template <class P, class C>
__global__ void __launch_bounds__(kThreads) run_phase(PlainArguments<typename P::State> a) {
  using S = typename P::State;
  const Sequence<S>& s = a.sequence;
  const Index number = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (number >= s.N * s.H) return;
  const Index n = number / s.H, unit = number % s.H, width = gates_of(s.cell) * s.H;
  const bool forward = s.direction == Direction::kForward;

  Carried<S> carried = initial_state(s, n, unit);
  if (a.phase > 0) carried = {a.state[number], a.state[s.N * s.H + number]};
  typename C::template Inputs<S> inputs = C::load(s, a.phase, n, unit);
  if (forward) C::add_bias(s, unit, inputs);

  const Part part = part_of(s.cell, static_cast<int>(a.phase % parts_of(s.cell)));
  const Index K = forward ? s.H : part.gates * s.H;
  const int columns = forward ? part.gates : 1;
  const S* operand = a.operands + (a.phase % 2 * s.N + n) * width;
  if (a.phase == 0) operand = forward && s.h0 ? s.h0 + n * s.H : nullptr;  // zeros
  S product[C::kColumns] = {};
  for (Index k = 0; operand && k < K; ++k) {
    const S x = rounded<P>(operand[k]);
#pragma unroll
    for (int q = 0; q < C::kColumns; ++q) {
      if (q < columns) product[q] += x * rounded<P>(s.recurrent_weight(part, k, unit, q));
    }
  }

  S out[4];
  const int count = C::finish(s, a.phase, inputs, product, carried, out);
  C::store(s, a.phase, n, unit, inputs, carried);
  S* const next = a.operands + ((a.phase + 1) % 2 * s.N + n) * width + count * unit;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    if (q < count) next[q] = out[q];
  }
  a.state[number] = carried.h;
  a.state[s.N * s.H + number] = carried.c;
}

}  // namespace

template <Precision p>
void run_plain(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream) {
  using P = Arithmetic<p>;
  using S = typename P::State;
  auto* const kernel = is_gru(sequence.cell) ? run_phase<P, Gru> : run_phase<P, LstmOrRnn>;
  PlainArguments<S> a{sequence, 0, reinterpret_cast<S*>(workspace + plan.exchange_at),
                      reinterpret_cast<S*>(workspace + plan.state_at)};
  const dim3 grid(static_cast<unsigned>(divide_up(sequence.N * sequence.H, kThreads)));
  for (; a.phase < sequence.phases(); ++a.phase) launch(kernel, grid, kThreads, 0, stream, false, a);
}

template void run_plain<Precision::kFloat32>(const Plan&, const Sequence<float>&, char*, cudaStream_t);
template void run_plain<Precision::kFloat64>(const Plan&, const Sequence<double>&, char*, cudaStream_t);
template void run_plain<Precision::kTf32>(const Plan&, const Sequence<float>&, char*, cudaStream_t);
template void run_plain<Precision::kBf16>(const Plan&, const Sequence<float>&, char*, cudaStream_t);

}  // namespace fastlstm::cuda
