// A pass over a sequence, as kernels and bindings see it: its sizes, options and arrays.
//
// A pass has phases. Forward, phase s is step s, and its product is of the state before the step. Backward, phase p is
// step T - 1 - p: it takes the gradient of h from the product of the phase before, and leaves its own dz to the next;
// phase T only gives dh0. Where a step has two parts (plan.h), a phase is a part, and 2 T takes the place of T.
#pragma once

#include "../../lstm_cell.h"
#include "plan.h"

namespace fastlstm::cuda {

template <class S>
struct Sequence {
  Index N, T, H;
  Cell cell;
  Direction direction;
  RecurrentActivation activation;
  bool reverse;
  bool z_keeps;          // GRU, see gru_cell.h
  int gate_position[4];  // which block of H columns of the weights holds i, f, g, o or z, r, n
  const bool* mask;      // (N, T) or null
  const S* Wh;           // (H, gates H)
  const S* b;            // (gates H,), or (2, gates H) where the reset gate is applied after the product
  const S* h0;           // (N, H) or null: zeros
  const S* c0;           // LSTM
  S* gates;              // (N, T, gates H). Forward: x Wx; with keep, the activated gates take its place, not the RNN's
  S* hs;                 // (N, T, H). The RNN's backward pass reads it
  S* h_n;                // (N, H)
  S* c_n;
  bool keep;
  S* h_prev;  // (N, T, H), with keep: h before the step of time t, 0 at masked steps
  S* cs;      // (N, T, H), with keep, LSTM: c after it
  S* q;       // (N, T, H), with keep, GRU: what gru_cell.h calls q
  // Backward.
  const S* dhs;   // (N, T, H) or null
  const S* dh_n;  // (N, H) or null
  const S* dc_n;
  S* dz;        // (N, T, gates H), of x Wx
  S* dz_state;  // the same of h Wh, where the reset gate is applied after the product
  S* dh0;       // (N, H)
  S* dc0;

  FASTLSTM_HOST_DEVICE Index phases() const { return parts_of(cell) * T + (direction == Direction::kForward ? 0 : 1); }
  // The first phase with a product.
  FASTLSTM_HOST_DEVICE Index first_product() const { return direction == Direction::kForward ? 0 : 1; }
  FASTLSTM_HOST_DEVICE Index time_of_step(Index s) const { return reverse ? T - 1 - s : s; }
  // Whether the mask takes a step, 0 if it does not. The byte of the mask: a bool would be made of it at once, and wait
  // for it.
  FASTLSTM_HOST_DEVICE unsigned char valid(Index n, Index t) const {
    return mask == nullptr ? 1 : reinterpret_cast<const unsigned char*>(mask)[n * T + t];
  }

  // The weight between row k of the product's operand and unit j's gate q of the part. k is a unit forward; backward it
  // is gates * unit + gate, and q is 0.
  FASTLSTM_HOST_DEVICE S recurrent_weight(Part part, Index k, Index j, int q) const {
    const Index width = gates_of(cell) * H;
    if (direction == Direction::kForward) return Wh[k * width + gate_position[part.first_gate + q] * H + j];
    const Index unit = k / part.gates;
    const int gate = static_cast<int>(k % part.gates);
    return Wh[j * width + gate_position[part.first_gate + gate] * H + unit];
  }
};

}  // namespace fastlstm::cuda
