// What the recurrent layers take; see ../kernels.h.
#pragma once

#include "../../lstm_cell.h"
#include "../kernels.h"

namespace fastlstm {

// ---- LSTM and tanh RNN ----------------------------------------------------------------------------------------------
//
// Inside, units lie in blocks of `units` (16 for the LSTM, 64 for the RNN) whatever the instruction set, rows in the
// order of processing: step s = 0 .. T - 1 is time t = s, or T - 1 - s in reverse, and row r = s N + n.
//   gates  [H / units][T N][gates * units]         a row: i16 f16 g16 o16
//   h, c   [H / units][(T + 1) N][units]           slot s is the state before step s
// A block is followed by kBlockPadding elements.
// The gate buffer is the output of the recurrent product, then the place of its own gradient, the A of the products
// with Wx^T and Wh^T, and an already packed B of the weights' gradients.

struct BlockLayout {
  Index units;  // a block
  Index gates;

  constexpr Index blocks(Index H) const { return (H + units - 1) / units; }
  constexpr Index gate_stride(Index rows) const { return rows * gates * units + kBlockPadding; }
  constexpr Index state_stride(Index rows) const { return rows * units + kBlockPadding; }
  constexpr Index gate_buffer(Index rows, Index H) const { return blocks(H) * gate_stride(rows); }
  constexpr Index state_buffer(Index rows, Index H) const { return blocks(H) * state_stride(rows); }
};

inline constexpr BlockLayout kLstmLayout{16, 4};
inline constexpr BlockLayout kRnnLayout{64, 1};

struct RecurrentSizes {
  Index N, T, D, H;
  bool reverse;
  int gate_position[4];  // which block of H columns of the weights holds i, f, g, o
  RecurrentActivation activation;
  int threads;  // at most
};

template <class S>
struct RecurrentForward {
  RecurrentSizes sizes;
  const S* xs;       // (N, T, D)
  const S* Wx;       // (D, gates H)
  const S* Wh;       // (H, gates H)
  const S* b;        // (gates H,)
  const S* h0;       // (N, H) or null
  const S* c0;       // (N, H) or null; LSTM only
  const bool* mask;  // (N, T) or null
  S* hs;             // (N, T, H) or null: not wanted
  S* h_n;            // (N, H) or null
  S* c_n;            // (N, H) or null
  S* gates;          // gate buffer of T N rows, or null: keep nothing
  S* h;              // state buffers of slots * N rows
  S* c;              // LSTM only
  Index slots;       // T + 1 to keep the states of all steps, or 2
  S* workspace;
};

template <class S>
struct RecurrentBackward {
  RecurrentSizes sizes;
  const S* xs;
  const S* Wx;
  const S* Wh;
  const bool* mask;
  const S* dhs;   // (N, T, H) or null: zeros
  const S* dh_n;  // (N, H) or null
  const S* dc_n;  // (N, H) or null; LSTM only
  S* gates;       // in: as the forward pass left it; out: gradients of the pre-activations
  const S* h;     // T + 1 slots
  const S* c;
  S* dxs;  // (N, T, D)
  S* dWx;
  S* dWh;
  S* db;
  S* dh0;  // (N, H)
  S* dc0;  // (N, H); LSTM only
  S* workspace;
};

template <class S>
struct RecurrentKernels {
  Index (*forward_workspace)(const RecurrentSizes&);
  void (*forward)(const RecurrentForward<S>&);
  Index (*backward_workspace)(const RecurrentSizes&);
  void (*backward)(const RecurrentBackward<S>&);
};

// ---- GRU ------------------------------------------------------------------------------------------------------------
//
// The planes of z, r, n and q (see gru_cell.h) and the states lie in blocks of 64 units like the RNN's; rows as above.
//   planes [4][H / 64][rows][64]   h [H / 64][slots * N][64]
// The planes are activations after the forward pass, gradients of the pre-activations after the backward pass; q then
// holds that of h_prev Wh_n if reset_after.

inline constexpr BlockLayout kGruLayout{64, 1};
inline constexpr Index kGruPlanes = 4;

struct GruSizes {
  Index N, T, D, H;
  bool reverse;
  int gate_position[3];  // which block of H columns of the weights holds z, r, n
  bool reset_after;      // the reset gate is applied after the product with Wh; there are two biases
  bool z_keeps;          // h = z h_prev + (1 - z) n, else h = (1 - z) h_prev + z n
};

template <class S>
struct GruForward {
  GruSizes sizes;
  const S* xs;       // (N, T, D)
  const S* Wx;       // (D, 3H)
  const S* Wh;       // (H, 3H)
  const S* b;        // (3H,), or (2, 3H) with reset_after
  const S* h0;       // (N, H) or null
  const bool* mask;  // (N, T) or null
  S* hs;             // (N, T, H) or null: not wanted
  S* h_n;            // (N, H) or null
  bool keep;         // planes of T N rows and states of T + 1 slots, or of N rows and 2 slots
  S* planes;
  S* h;
  S* workspace;
};

template <class S>
struct GruBackward {
  GruSizes sizes;
  const S* xs;
  const S* Wx;
  const S* Wh;
  const bool* mask;
  const S* dhs;   // (N, T, H) or null: zeros
  const S* dh_n;  // (N, H) or null
  S* planes;      // in: as the forward pass left them; out: gradients
  const S* h;     // T + 1 slots
  S* dxs;         // (N, T, D)
  S* dWx;
  S* dWh;
  S* db;   // of the shape of b
  S* dh0;  // (N, H)
  S* workspace;
};

template <class S>
struct GruKernels {
  Index (*forward_workspace)(const GruSizes&);
  void (*forward)(const GruForward<S>&);
  Index (*backward_workspace)(const GruSizes&);
  void (*backward)(const GruBackward<S>&);
};

}  // namespace fastlstm
