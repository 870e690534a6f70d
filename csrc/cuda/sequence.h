// A pass over a sequence, as kernels and bindings see it: its sizes, options and arrays.
//
// A pass has phases. Forward, phase s is step s, and its product is of the state before the step. Backward, phase p is
// step T - 1 - p: it takes the gradient of h from the product of the phase before, and leaves its own dz to the next;
// phase T only gives dh0.
#pragma once

#include "../lstm_cell.h"
#include "plan.h"

namespace fastlstm::cuda {

template <class S>
struct Sequence {
  Index N, T, H;
  Cell cell;
  Direction direction;
  RecurrentActivation activation;
  bool reverse;
  int gate_position[4];  // which block of H columns of the weights holds i, f, g, o
  const bool* mask;      // (N, T) or null
  const S* Wh;           // (H, gates H)
  const S* b;            // (gates H,)
  const S* h0;           // (N, H) or null: zeros
  const S* c0;           // LSTM
  S* gates;              // (N, T, gates H). Forward: x Wx; with keep, the LSTM's activated gates take its place
  S* hs;                 // (N, T, H). The RNN's backward pass reads it
  S* h_n;                // (N, H)
  S* c_n;
  bool keep;
  S* h_prev;  // (N, T, H), with keep: h before the step of time t
  S* cs;      // (N, T, H), with keep, LSTM: c after it
  // Backward.
  const S* dhs;   // (N, T, H) or null
  const S* dh_n;  // (N, H) or null
  const S* dc_n;
  S* dz;   // (N, T, gates H)
  S* dh0;  // (N, H)
  S* dc0;

  FASTLSTM_HOST_DEVICE Index phases() const { return direction == Direction::kForward ? T : T + 1; }
  // The first phase with a product.
  FASTLSTM_HOST_DEVICE Index first_product() const { return direction == Direction::kForward ? 0 : 1; }
  FASTLSTM_HOST_DEVICE int gates_of_cell() const { return cell == Cell::kLstm ? 4 : 1; }
  FASTLSTM_HOST_DEVICE Index time_of_step(Index s) const { return reverse ? T - 1 - s : s; }
  FASTLSTM_HOST_DEVICE bool counts(Index n, Index t) const { return mask == nullptr || mask[n * T + t]; }

  // The weight between row k of the product's operand and unit j's gate q. k is a unit forward; backward it is
  // gates * unit + gate, and q is 0.
  FASTLSTM_HOST_DEVICE S recurrent_weight(Index k, Index j, int q) const {
    const int gates = gates_of_cell();
    if (direction == Direction::kForward) return Wh[k * gates * H + (gates == 1 ? 0 : gate_position[q]) * H + j];
    const Index unit = k / gates;
    const int gate = static_cast<int>(k % gates);
    return Wh[j * gates * H + (gates == 1 ? 0 : gate_position[gate]) * H + unit];
  }
};

}  // namespace fastlstm::cuda
