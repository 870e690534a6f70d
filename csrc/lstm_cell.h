// The maths of the recurrent cells, once, for every CPU instruction set and for CUDA.
//
// V is one value or a vector of them: a scalar on CUDA, a SIMD vector on the CPU. Math supplies sigmoid(V), tanh(V),
// hard_sigmoid(V) and hard_sigmoid_slope(V).
#pragma once

#include "host_device.h"

namespace fastlstm {

enum class RecurrentActivation { kSigmoid, kHardSigmoid };

// The four gates of some units: pre-activations before lstm_cell_forward, activations after it, and the gradients of
// the pre-activations after lstm_cell_backward. i input, f forget, g candidate, o output.
template <class V>
struct Gates {
  V i, f, g, o;
};

// Gers, Schmidhuber, Cummins (2000), without peepholes:
//   c = sigmoid(f) c_prev + sigmoid(i) tanh(g),  h = sigmoid(o) tanh(c)
// Activates the gates and returns c.
template <class Math, RecurrentActivation activation, class V>
FASTLSTM_HOST_DEVICE inline V lstm_cell_state(Gates<V>& gates, const V& c_prev) {
  if constexpr (activation == RecurrentActivation::kSigmoid) {
    gates.i = Math::sigmoid(gates.i);
    gates.f = Math::sigmoid(gates.f);
    gates.o = Math::sigmoid(gates.o);
  } else {
    gates.i = Math::hard_sigmoid(gates.i);
    gates.f = Math::hard_sigmoid(gates.f);
    gates.o = Math::hard_sigmoid(gates.o);
  }
  gates.g = Math::tanh(gates.g);
  return gates.f * c_prev + gates.i * gates.g;
}

template <class Math, RecurrentActivation activation, class V>
FASTLSTM_HOST_DEVICE inline void lstm_cell_forward(Gates<V>& gates, const V& c_prev, V& c, V& h) {
  c = lstm_cell_state<Math, activation>(gates, c_prev);
  h = gates.o * Math::tanh(c);
}

// d gate / d pre-activation, from the gate's value s.
template <class Math, RecurrentActivation activation, class V>
FASTLSTM_HOST_DEVICE inline V gate_slope(const V& s) {
  if constexpr (activation == RecurrentActivation::kSigmoid) {
    return s - s * s;
  } else {
    return Math::hard_sigmoid_slope(s);
  }
}

// From the activated gates, the states around the step and the gradients of h and c: the gradients of the
// pre-activations (in gates) and of c_prev (in dc).
template <class Math, RecurrentActivation activation, class V>
FASTLSTM_HOST_DEVICE inline void lstm_cell_backward(Gates<V>& gates, const V& c_prev, const V& c, const V& dh, V& dc) {
  const Gates<V> s = gates;
  const V tanh_c = Math::tanh(c);
  const V dc_total = dc + dh * s.o * (1 - tanh_c * tanh_c);
  gates.i = dc_total * s.g * gate_slope<Math, activation>(s.i);
  gates.f = dc_total * c_prev * gate_slope<Math, activation>(s.f);
  gates.g = dc_total * s.i * (1 - s.g * s.g);
  gates.o = dh * tanh_c * gate_slope<Math, activation>(s.o);
  dc = dc_total * s.f;
}

}  // namespace fastlstm
