// What a unit of a row of a GRU does in one phase beside the product.
//
// With the reset gate after the product, a phase is a step. With it before, a step is two phases. Forward: the gates z
// and r, which leave r h to the product of the other; then n and h. Backward: dz and dn, which leave dn; then, from the
// gradient of r h, dr, which leaves dz and dr.
#pragma once

#include "../../gru_cell.h"
#include "lstm_step.h"

namespace fastlstm::cuda {

// For the tile kernels, like LstmOrRnn. carried.h is h or, backward, the part of h's gradient that goes around the
// product; carried.c takes z, or its gradient, from the first phase of a step to the second.
struct Gru {
  static constexpr bool kTwoParts = true;
  static constexpr int kColumns = 3;

  template <class S>
  struct Inputs {
    S gates[3];           // z, r, n; forward before activation, of x and the biases
    S q;                  // with the reset gate after the product: forward the bias of h Whn, backward as in gru_cell.h
    S h_prev;             // backward
    S dh;                 // backward: of hs
    unsigned char valid;  // this step
    unsigned char next_valid;  // backward: the step that follows in time; its product is part of the gradient of h
  };

  template <class S>
  __device__ static Inputs<S> load(const Sequence<S>& a, Index phase, Index n, Index unit) {
    Inputs<S> in{};
    const bool forward = a.direction == Direction::kForward, reset_after = a.cell == Cell::kGruResetAfter;
    const Index step = phase / parts_of(a.cell), s = forward ? step : a.T - 1 - step;
    if (!forward && step > 0) in.next_valid = a.valid(n, a.time_of_step(s + 1));
    if (s < 0) return in;
    const Index row = n * a.T + a.time_of_step(s);
    in.valid = a.valid(n, a.time_of_step(s));
#pragma unroll
    for (int q = 0; q < 3; ++q) in.gates[q] = a.gates[row * 3 * a.H + a.gate_position[q] * a.H + unit];
    if (!forward) {
      in.h_prev = a.h_prev[row * a.H + unit];
      if (reset_after) in.q = a.q[row * a.H + unit];
      if (a.dhs) in.dh = a.dhs[row * a.H + unit];
    }
    return in;
  }

  template <class S>
  __device__ static void add_bias(const Sequence<S>& a, Index unit, Inputs<S>& in) {
#pragma unroll
    for (int q = 0; q < 3; ++q) {
      const Index column = a.gate_position[q] * a.H + unit;
      in.gates[q] += a.b[column];
      if (a.cell != Cell::kGruResetAfter) continue;
      const S state_bias = a.b[3 * a.H + column];
      if (q < 2) {
        in.gates[q] += state_bias;
      } else {
        in.q = state_bias;
      }
    }
  }

  template <class S>
  __device__ static int finish(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                               const S (&product)[kColumns], Carried<S>& carried, S (&out)[4]) {
    const bool reset_after = a.cell == Cell::kGruResetAfter;
    if (a.direction == Direction::kForward) {
      if (reset_after) return step_forward(a, phase, n, unit, in, product, carried, out);
      return phase % 2 == 0 ? activate_gates(a, phase / 2, n, unit, in, product, carried, out)
                            : candidate_forward(a, phase / 2, n, unit, in, product[0], carried, out);
    }
    if (reset_after || phase % 2 == 0) return step_backward(a, phase, n, unit, in, product[0], carried, out);
    return reset_backward(a, phase / 2, n, unit, in, product[0], carried, out);
  }

 private:
  // The new h from the gates, and what else the last phase of a step keeps.
  template <class S>
  __device__ static void store_output(const Sequence<S>& a, Index step, Index n, Index unit, bool valid, S z,
                                      S candidate, S h_prev, Carried<S>& carried) {
    const Index row = n * a.T + a.time_of_step(step);
    carried.h = valid ? gru_blend(GruBlend<S>(a.z_keeps), z, candidate, h_prev) : h_prev;
    a.hs[row * a.H + unit] = carried.h;
    if (a.keep) a.gates[row * 3 * a.H + a.gate_position[2] * a.H + unit] = candidate;
    if (step == a.T - 1) a.h_n[n * a.H + unit] = carried.h;
  }

  // What a step keeps before it changes h.
  template <class S>
  __device__ static void keep_gates(const Sequence<S>& a, Index step, Index n, Index unit, S z, S r, S q, S h_prev) {
    if (!a.keep) return;
    const Index row = n * a.T + a.time_of_step(step);
    S* const gates = a.gates + row * 3 * a.H + unit;
    gates[a.gate_position[0] * a.H] = z;
    gates[a.gate_position[1] * a.H] = r;
    a.q[row * a.H + unit] = q;
    a.h_prev[row * a.H + unit] = h_prev;
  }

  template <class S>
  __device__ static int step_forward(const Sequence<S>& a, Index step, Index n, Index unit, const Inputs<S>& in,
                                     const S (&product)[kColumns], Carried<S>& carried, S (&out)[4]) {
    const S h_prev = carried.h;
    const S z = Math<S>::sigmoid(in.gates[0] + product[0]), r = Math<S>::sigmoid(in.gates[1] + product[1]);
    const S q = in.q + product[2];
    keep_gates(a, step, n, unit, z, r, q, h_prev);
    store_output(a, step, n, unit, in.valid, z, Math<S>::tanh(in.gates[2] + r * q), h_prev, carried);
    out[0] = carried.h;
    return 1;
  }

  template <class S>
  __device__ static int activate_gates(const Sequence<S>& a, Index step, Index n, Index unit, const Inputs<S>& in,
                                       const S (&product)[kColumns], Carried<S>& carried, S (&out)[4]) {
    const S z = Math<S>::sigmoid(in.gates[0] + product[0]), r = Math<S>::sigmoid(in.gates[1] + product[1]);
    carried.c = z;
    out[0] = r * carried.h;
    keep_gates(a, step, n, unit, z, r, out[0], carried.h);
    return 1;
  }

  template <class S>
  __device__ static int candidate_forward(const Sequence<S>& a, Index step, Index n, Index unit, const Inputs<S>& in,
                                          S product, Carried<S>& carried, S (&out)[4]) {
    const S h_prev = carried.h;
    store_output(a, step, n, unit, in.valid, carried.c, Math<S>::tanh(in.gates[2] + product), h_prev, carried);
    out[0] = carried.h;
    return 1;
  }

  // dz and dn, and with the reset gate after the product dr. product belongs to the step that follows in time.
  template <class S>
  __device__ static int step_backward(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                                      S product, Carried<S>& carried, S (&out)[4]) {
    // A step that is not valid passes the gradient of h on; its dz is zero, but a product with it may be NaN.
    const S dh_after = in.next_valid ? carried.h + product : carried.h;
    if (phase == a.phases() - 1) {
      a.dh0[n * a.H + unit] = dh_after;
      return 0;
    }
    const S dh = dh_after + in.dh;
    const bool reset_after = a.cell == Cell::kGruResetAfter;
    S dz = in.gates[0], dr = 0, dn = in.gates[2], dn_state = 0;
    carried.h = gru_blend_backward(GruBlend<S>(a.z_keeps), dz, dn, in.h_prev, dh);
    if (reset_after) {
      dn_state = dn * in.gates[1];
      dr = gru_reset_backward(in.gates[1], in.q, dn);
    }
    if (!in.valid) {
      carried.h = dh;
      dz = dr = dn = dn_state = 0;
    }
    const Index step = a.T - 1 - phase / parts_of(a.cell), row = n * a.T + a.time_of_step(step);
    const Index z_at = row * 3 * a.H + a.gate_position[0] * a.H + unit;
    const Index r_at = row * 3 * a.H + a.gate_position[1] * a.H + unit;
    const Index n_at = row * 3 * a.H + a.gate_position[2] * a.H + unit;
    a.dz[z_at] = dz;
    a.dz[n_at] = dn;
    if (!reset_after) {
      carried.c = dz;
      out[0] = dn;
      return 1;
    }
    a.dz[r_at] = dr;
    a.dz_state[z_at] = dz;
    a.dz_state[r_at] = dr;
    a.dz_state[n_at] = dn_state;
    out[0] = dz;
    out[1] = dr;
    out[2] = dn_state;
    return 3;
  }

  // product is the gradient of r h_prev.
  template <class S>
  __device__ static int reset_backward(const Sequence<S>& a, Index steps_done, Index n, Index unit, const Inputs<S>& in,
                                       S product, Carried<S>& carried, S (&out)[4]) {
    const S r = in.gates[1];
    const S dr = in.valid ? gru_reset_backward(r, in.h_prev, product) : S(0);
    if (in.valid) carried.h += product * r;
    const Index row = n * a.T + a.time_of_step(a.T - 1 - steps_done);
    a.dz[row * 3 * a.H + a.gate_position[1] * a.H + unit] = dr;
    out[0] = carried.c;
    out[1] = dr;
    return 2;
  }
};

}  // namespace fastlstm::cuda
