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
    S h_prev;             // backward. After a phase all of these are what it stores
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
  __device__ static int finish(const Sequence<S>& a, Index phase, Inputs<S>& in, const S (&product)[kColumns],
                               Carried<S>& carried, S (&out)[4]) {
    const bool reset_after = a.cell == Cell::kGruResetAfter;
    if (a.direction == Direction::kForward) {
      if (reset_after) return step_forward(a, in, product, carried, out);
      return phase % 2 == 0 ? activate_gates(in, product, carried, out)
                            : candidate_forward(a, in, product[0], carried, out);
    }
    if (reset_after || phase % 2 == 0) return step_backward(a, phase, in, product[0], carried, out);
    return reset_backward(in, product[0], carried, out);
  }

  template <class S>
  __device__ static void store(const Sequence<S>& a, Index phase, Index n, Index unit, const Inputs<S>& in,
                               const Carried<S>& carried) {
    const bool forward = a.direction == Direction::kForward, reset_after = a.cell == Cell::kGruResetAfter;
    const Index step = phase / parts_of(a.cell), row = n * a.T + a.time_of_step(forward ? step : a.T - 1 - step);
    const bool first = reset_after || phase % 2 == 0, last = reset_after || phase % 2 == 1;  // part of a step
    const auto gate = [&](S* gates, int q) -> S& { return gates[row * 3 * a.H + a.gate_position[q] * a.H + unit]; };
    if (!forward) {
      if (phase == a.phases() - 1) {
        a.dh0[n * a.H + unit] = carried.h;
        return;
      }
      if (first) {
        gate(a.dz, 0) = in.gates[0];
        gate(a.dz, 2) = in.gates[2];
      }
      if (last) gate(a.dz, 1) = in.gates[1];
      if (reset_after) {
        gate(a.dz_state, 0) = in.gates[0];
        gate(a.dz_state, 1) = in.gates[1];
        gate(a.dz_state, 2) = in.q;
      }
      return;
    }
    if (first && a.keep) {
      gate(a.gates, 0) = in.gates[0];
      gate(a.gates, 1) = in.gates[1];
      // Factors of dWh; masked steps may hold anything.
      a.q[row * a.H + unit] = in.valid ? in.q : S(0);
      a.h_prev[row * a.H + unit] = in.valid ? in.h_prev : S(0);
    }
    if (last) {
      a.hs[row * a.H + unit] = carried.h;
      if (a.keep) gate(a.gates, 2) = in.gates[2];
      if (step == a.T - 1) a.h_n[n * a.H + unit] = carried.h;
    }
  }

 private:
  template <class S>
  __device__ static void activate(Inputs<S>& in, const S (&product)[kColumns], S h_prev) {
    in.gates[0] = Math<S>::sigmoid(in.gates[0] + product[0]);
    in.gates[1] = Math<S>::sigmoid(in.gates[1] + product[1]);
    in.h_prev = h_prev;
  }

  template <class S>
  __device__ static int step_forward(const Sequence<S>& a, Inputs<S>& in, const S (&product)[kColumns],
                                     Carried<S>& carried, S (&out)[4]) {
    activate(in, product, carried.h);
    in.q += product[2];
    in.gates[2] = Math<S>::tanh(in.gates[2] + in.gates[1] * in.q);
    if (in.valid) carried.h = gru_blend(GruBlend<S>(a.z_keeps), in.gates[0], in.gates[2], in.h_prev);
    out[0] = carried.h;
    return 1;
  }

  template <class S>
  __device__ static int activate_gates(Inputs<S>& in, const S (&product)[kColumns], Carried<S>& carried, S (&out)[4]) {
    activate(in, product, carried.h);
    carried.c = in.gates[0];
    in.q = in.gates[1] * carried.h;
    out[0] = in.q;
    return 1;
  }

  template <class S>
  __device__ static int candidate_forward(const Sequence<S>& a, Inputs<S>& in, S product, Carried<S>& carried,
                                          S (&out)[4]) {
    in.gates[2] = Math<S>::tanh(in.gates[2] + product);
    if (in.valid) carried.h = gru_blend(GruBlend<S>(a.z_keeps), carried.c, in.gates[2], carried.h);
    out[0] = carried.h;
    return 1;
  }

  // dz and dn, and with the reset gate after the product dr. product belongs to the step that follows in time.
  template <class S>
  __device__ static int step_backward(const Sequence<S>& a, Index phase, Inputs<S>& in, S product, Carried<S>& carried,
                                      S (&out)[4]) {
    // A step that is not valid passes the gradient of h on; its dz is zero, but a product with it may be NaN.
    const S dh_after = in.next_valid ? carried.h + product : carried.h;
    if (phase == a.phases() - 1) {
      carried.h = dh_after;
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
    in.gates[0] = dz;
    in.gates[2] = dn;
    if (!reset_after) {
      carried.c = dz;
      out[0] = dn;
      return 1;
    }
    in.gates[1] = dr;
    in.q = dn_state;
    out[0] = dz;
    out[1] = dr;
    out[2] = dn_state;
    return 3;
  }

  // product is the gradient of r h_prev.
  template <class S>
  __device__ static int reset_backward(Inputs<S>& in, S product, Carried<S>& carried, S (&out)[4]) {
    const S r = in.gates[1];
    in.gates[1] = in.valid ? gru_reset_backward(r, in.h_prev, product) : S(0);
    if (in.valid) carried.h += product * r;
    out[0] = carried.c;
    out[1] = in.gates[1];
    return 2;
  }
};

}  // namespace fastlstm::cuda
