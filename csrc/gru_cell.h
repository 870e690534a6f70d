// The maths of the GRU's cell, once, for every CPU instruction set and for CUDA. V and Math as in lstm_cell.h.
//
// Cho et al. (2014). z update gate, r reset gate, n candidate; q is what the reset gate meets, h_prev Whn + bhn, if it
// is applied after the product, or what it makes, r h_prev, if before it.
#pragma once

#include "lstm_cell.h"

namespace fastlstm {

// keep, the share of h_prev in h, is z or 1 - z: offset + sign z, which is exact.
template <class S>
struct GruBlend {
  S offset, sign;
  explicit FASTLSTM_HOST_DEVICE GruBlend(bool z_keeps) : offset(z_keeps ? 0 : 1), sign(z_keeps ? 1 : -1) {}
};

// h = keep h_prev + (1 - keep) n
template <class S, class V>
FASTLSTM_HOST_DEVICE inline V gru_blend(const GruBlend<S>& blend, const V& z, const V& n, const V& h_prev) {
  const V keep = blend.offset + blend.sign * z;
  return keep * h_prev + (1 - keep) * n;
}

// From the gradient of h: the gradients of z's and n's pre-activations (in z and n), and dh's direct way to h_prev.
template <class S, class V>
FASTLSTM_HOST_DEVICE inline V gru_blend_backward(const GruBlend<S>& blend, V& z, V& n, const V& h_prev, const V& dh) {
  const V keep = blend.offset + blend.sign * z;
  const V dz = blend.sign * dh * (h_prev - n) * (z - z * z);
  n = dh * (1 - keep) * (1 - n * n);
  z = dz;
  return dh * keep;
}

// The gradient of r's pre-activation, from that of the product of r and `factor`.
template <class V>
FASTLSTM_HOST_DEVICE inline V gru_reset_backward(const V& r, const V& factor, const V& dproduct) {
  return dproduct * factor * (r - r * r);
}

}  // namespace fastlstm
