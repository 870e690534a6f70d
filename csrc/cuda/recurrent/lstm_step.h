// What a unit of a row does in one phase beside the product: the same for every kernel. The GRU's is in gru_step.h.
#pragma once

#include "precision.h"
#include "sequence.h"

namespace fastlstm::cuda {

// What a unit of a row carries from phase to phase: h and c, or the gradients of h and c. The thread that owns the unit
// keeps it.
template <class S>
struct Carried {
  S h, c;
};

template <class S>
__device__ Carried<S> initial_state(const Sequence<S>& a, Index n, Index unit) {
  const Index at = n * a.H + unit;
  const bool forward = a.direction == Direction::kForward;
  const S* const h = forward ? a.h0 : a.dh_n;
  const S* const c = forward ? a.c0 : a.dc_n;
  return {h ? h[at] : S(0), c ? c[at] : S(0)};
}

// What a phase reads beside the product and the carried state; it is there before the product is. A step puts what is
// to be stored in its place, so that this can wait until the next phase has what it needs.
template <class S>
struct Inputs {
  S gates[4];                // after a step the activated gates or, backward, their gradients
  S c_prev, c;               // backward, LSTM
  S h;                       // backward, RNN; after a step forward h before it
  S dh;                      // backward: of hs
  unsigned char valid;       // this step
  unsigned char next_valid;  // backward: the step that follows in time; its product is the gradient of h
};

// Forward without the bias: nothing is done here with what is loaded, or the next load would wait for it.
template <class S>
__device__ Inputs<S> load_inputs(const Sequence<S>& a, Index phase, Index n, Index unit) {
  Inputs<S> in{};
  const bool forward = a.direction == Direction::kForward;
  const Index s = forward ? phase : a.T - 1 - phase;
  if (!forward && phase > 0) in.next_valid = a.valid(n, a.time_of_step(s + 1));
  if (s < 0) return in;
  const Index t = a.time_of_step(s), row = n * a.T + t;
  in.valid = a.valid(n, t);
  if (a.cell == Cell::kLstm) {
#pragma unroll
    for (int q = 0; q < 4; ++q) in.gates[q] = a.gates[row * 4 * a.H + a.gate_position[q] * a.H + unit];
  } else if (forward) {
    in.gates[0] = a.gates[row * a.H + unit];
  } else {
    in.h = a.hs[row * a.H + unit];
  }
  if (!forward) {
    if (a.dhs) in.dh = a.dhs[row * a.H + unit];
    if (a.cell == Cell::kLstm) {
      in.c = a.cs[row * a.H + unit];
      if (s > 0) {
        in.c_prev = a.cs[(n * a.T + a.time_of_step(s - 1)) * a.H + unit];
      } else if (a.c0) {
        in.c_prev = a.c0[n * a.H + unit];
      }
    }
  }
  return in;
}

// Forward, after the inputs of all units of the thread have been asked for.
template <class S>
__device__ void add_bias(const Sequence<S>& a, Index unit, Inputs<S>& in) {
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    if (q < gates_of(a.cell)) in.gates[q] += a.b[a.gate_position[q] * a.H + unit];
  }
}

template <class S>
__device__ void cell_forward(RecurrentActivation activation, Gates<S>& gates, S c_prev, S& c, S& h) {
  if (activation == RecurrentActivation::kSigmoid) {
    lstm_cell_forward<Math<S>, RecurrentActivation::kSigmoid>(gates, c_prev, c, h);
  } else {
    lstm_cell_forward<Math<S>, RecurrentActivation::kHardSigmoid>(gates, c_prev, c, h);
  }
}

template <class S>
__device__ void cell_backward(RecurrentActivation activation, Gates<S>& gates, S c_prev, S c, S dh, S& dc) {
  if (activation == RecurrentActivation::kSigmoid) {
    lstm_cell_backward<Math<S>, RecurrentActivation::kSigmoid>(gates, c_prev, c, dh, dc);
  } else {
    lstm_cell_backward<Math<S>, RecurrentActivation::kHardSigmoid>(gates, c_prev, c, dh, dc);
  }
}

// Forward. product holds the four gates' sums, or one. Returns the new h in carried.h.
template <class S>
__device__ void step_forward(const Sequence<S>& a, Inputs<S>& in, const S (&product)[4], Carried<S>& carried) {
  const Carried<S> before = carried;
  if (a.cell == Cell::kLstm) {
    Gates<S> gates{in.gates[0] + product[0], in.gates[1] + product[1], in.gates[2] + product[2],
                   in.gates[3] + product[3]};
    cell_forward(a.activation, gates, before.c, carried.c, carried.h);
    in.gates[0] = gates.i;
    in.gates[1] = gates.f;
    in.gates[2] = gates.g;
    in.gates[3] = gates.o;
  } else {
    carried.h = Math<S>::tanh(in.gates[0] + product[0]);
  }
  if (!in.valid) carried = before;
  in.h = before.h;
}

template <class S>
__device__ void store_forward(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                              const Carried<S>& carried) {
  const Index row = n * a.T + a.time_of_step(phase), at = row * a.H + unit;
  a.hs[at] = carried.h;
  if (a.keep) {
    a.h_prev[at] = in.valid ? in.h : S(0);  // a factor of dWh; masked steps may hold anything
    if (a.cell == Cell::kLstm) {
      a.cs[at] = carried.c;
#pragma unroll
      for (int q = 0; q < 4; ++q) a.gates[row * 4 * a.H + a.gate_position[q] * a.H + unit] = in.gates[q];
    }
  }
  if (phase == a.T - 1) {
    a.h_n[n * a.H + unit] = carried.h;
    if (a.cell == Cell::kLstm) a.c_n[n * a.H + unit] = carried.c;
  }
}

// Backward. product is the sum that belongs to the unit, of the dz of the phase before. Returns this phase's dz, of
// four gates or one, in in.gates.
template <class S>
__device__ void step_backward(const Sequence<S>& a, Index phase, Inputs<S>& in, S product, Carried<S>& carried) {
  // A step that is not valid passes the gradient of h on; its dz is zero, but a product with it may be NaN.
  carried.h = in.next_valid ? product : carried.h;
  if (phase == a.T) return;
  carried.h += in.dh;
  if (a.cell == Cell::kLstm) {
    Gates<S> gates{in.gates[0], in.gates[1], in.gates[2], in.gates[3]};
    S dc = carried.c;
    cell_backward(a.activation, gates, in.c_prev, in.c, carried.h, dc);
    if (in.valid) carried.c = dc;
    in.gates[0] = in.valid ? gates.i : S(0);
    in.gates[1] = in.valid ? gates.f : S(0);
    in.gates[2] = in.valid ? gates.g : S(0);
    in.gates[3] = in.valid ? gates.o : S(0);
  } else {
    in.gates[0] = in.valid ? carried.h * (1 - in.h * in.h) : S(0);
  }
}

template <class S>
__device__ void store_backward(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                               const Carried<S>& carried) {
  if (phase == a.T) {
    a.dh0[n * a.H + unit] = carried.h;
    if (a.cell == Cell::kLstm) a.dc0[n * a.H + unit] = carried.c;
    return;
  }
  const Index row = n * a.T + a.time_of_step(a.T - 1 - phase);
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    if (q < gates_of(a.cell)) a.dz[row * gates_of(a.cell) * a.H + a.gate_position[q] * a.H + unit] = in.gates[q];
  }
}

// For the kernels that take any cell. `finish` returns how many values of `out` are the unit's share of the next
// product's operand, and leaves in `in` what `store` stores.
struct LstmOrRnn {
  static constexpr bool kTwoParts = false;
  static constexpr int kColumns = 4;
  template <class S>
  using Inputs = cuda::Inputs<S>;

  template <class S>
  __device__ static Inputs<S> load(const Sequence<S>& a, Index phase, Index n, Index unit) {
    return load_inputs(a, phase, n, unit);
  }
  template <class S>
  __device__ static void add_bias(const Sequence<S>& a, Index unit, Inputs<S>& in) {
    cuda::add_bias(a, unit, in);
  }

  template <class S>
  __device__ static int finish(const Sequence<S>& a, Index phase, Inputs<S>& in, const S (&product)[kColumns],
                               Carried<S>& carried, S (&out)[4]) {
    if (a.direction == Direction::kForward) {
      step_forward(a, in, product, carried);
      out[0] = carried.h;
      return 1;
    }
    step_backward(a, phase, in, product[0], carried);
#pragma unroll
    for (int q = 0; q < 4; ++q) out[q] = in.gates[q];
    return phase == a.T ? 0 : gates_of(a.cell);
  }
  template <class S>
  __device__ static void store(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                               const Carried<S>& carried) {
    if (a.direction == Direction::kForward) return store_forward(a, phase, n, unit, in, carried);
    store_backward(a, phase, n, unit, in, carried);
  }
};

}  // namespace fastlstm::cuda
