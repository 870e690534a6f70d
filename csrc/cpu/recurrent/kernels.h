// What the recurrent layers take; see ../kernels.h.
//
// Inside, units lie in blocks of `units` whatever the instruction set, rows in the order of processing: step s = 0 ..
// T - 1 is time t = s, or T - 1 - s in reverse, and row r = s N + n.
//   gates  [planes][H / units][T N][gates * units]   a row of the LSTM: i16 f16 g16 o16
//   h, c   [H / units][(T + 1) N][units]             slot s is the state before step s
// A block is followed by kBlockPadding elements.
// The gate buffer is the output of the recurrent product, then the place of its own gradient, the A of the products
// with Wx^T and Wh^T, and an already packed B of the weights' gradients.
#pragma once

#include "../../lstm_cell.h"
#include "../kernels.h"

namespace fastlstm {

struct BlockLayout {
  Index units;   // a block
  Index gates;   // that lie beside each other in a block
  Index planes;  // of such gates

  constexpr Index blocks(Index H) const { return (H + units - 1) / units; }
  constexpr Index gate_stride(Index rows) const { return rows * gates * units + kBlockPadding; }
  constexpr Index state_stride(Index rows) const { return rows * units + kBlockPadding; }
  constexpr Index plane(Index rows, Index H) const { return blocks(H) * gate_stride(rows); }
  constexpr Index gate_buffer(Index rows, Index H) const { return planes * plane(rows, H); }
  constexpr Index state_buffer(Index rows, Index H) const { return blocks(H) * state_stride(rows); }
};

inline constexpr BlockLayout kLstmLayout{16, 4, 1};
inline constexpr BlockLayout kRnnLayout{64, 1, 1};
// z, r, n and q (see gru_cell.h). As a gradient, q is that of h_prev Wh_n if reset_after.
inline constexpr BlockLayout kGruLayout{64, 1, 4};

struct RecurrentSizes {
  Index N, T, D, H;  // D is 0 where the inputs are pre-activations
  bool reverse;
  int gate_position[4];  // which block of H columns of the weights holds i, f, g, o, or z, r, n
  RecurrentActivation activation;
  bool reset_after;  // GRU: the reset gate is applied after the product with Wh; there are two biases
  bool z_keeps;      // GRU: h = z h_prev + (1 - z) n, else h = (1 - z) h_prev + z n
  bool keeps_gates;  // of all steps
  bool masked;       // there is a mask
  bool prepared;     // the weights are packed already
  int threads;       // at most
};

// Element (n, t, k) is data[n * row + t * step + k].
template <class S>
struct Sequence {
  S* data;
  Index row, step;
};

// Element (k, g) of a matrix (depth, gates H) is data[k * row + g * column]; one of the strides is 1.
template <class S>
struct Weights {
  const S* data;
  Index row, column;
};

// Where the gradient of weights goes.
template <class S>
struct WeightResult {
  S* data;  // null: not wanted
  Index row, column;
  bool accumulate;  // added to what is there
};

template <class S>
struct RecurrentForward {
  RecurrentSizes sizes;
  Sequence<const S> xs;  // (N, T, D), or pre-activations (N, T, gates H) without their bias if Wx is null
  Weights<S> Wx;         // (D, gates H) or null
  Weights<S> Wh;         // (H, gates H)
  const S* b;            // (gates H,), or (2, gates H) with reset_after, or null
  const S* h0;           // (N, H) or null
  const S* c0;           // (N, H) or null; LSTM only
  const bool* mask;      // (N, T) or null
  Sequence<S> hs;        // (N, T, H) or null: not wanted
  S* h_n;                // (N, H) or null
  S* c_n;                // (N, H) or null
  S* gates;              // gate buffer of T N rows, or null unless keeps_gates
  S* h;                  // state buffers of slots * N rows
  S* c;                  // LSTM only
  Index slots;           // T + 1 to keep the states of all steps, or 2
  S* prepared;           // with sizes.prepared, what `prepare` has left here; only read, as Wx, Wh and b are not
  S* workspace;
};

// Results that are null are not wanted, and not computed.
template <class S>
struct RecurrentBackward {
  RecurrentSizes sizes;
  Sequence<const S> xs;
  Weights<S> Wx;
  Weights<S> Wh;
  const bool* mask;
  Sequence<const S> dhs;  // (N, T, H) or null: zeros
  const S* dh_n;          // (N, H) or null
  const S* dc_n;          // (N, H) or null; LSTM only
  S* gates;               // in: as the forward pass left it; out: gradients of the pre-activations
  const S* h;             // T + 1 slots
  const S* c;
  Sequence<S> dxs;  // of the shape of xs
  WeightResult<S> dWx;
  WeightResult<S> dWh;
  WeightResult<S> db;  // of the shape of b; its rows are one behind the other
  S* dh0;              // (N, H)
  S* dc0;              // (N, H); LSTM only
  S* workspace;
};

template <class S>
struct RecurrentKernels {
  Index (*forward_workspace)(const RecurrentSizes&);
  void (*forward)(const RecurrentForward<S>&);
  Index (*backward_workspace)(const RecurrentSizes&);
  void (*backward)(const RecurrentBackward<S>&);
  // Pack the weights of forward calls whose sizes are prepared, and gates not kept, and these calls; of any N and T.
  Index (*prepared_size)(const RecurrentSizes&);
  void (*prepare)(const RecurrentForward<S>&);
  Index (*prepared_workspace)(const RecurrentSizes&);
  void (*prepared_forward)(const RecurrentForward<S>&);
};

}  // namespace fastlstm
