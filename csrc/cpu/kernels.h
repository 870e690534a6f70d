// What the kernels take: argument blocks with named fields, and the table of functions that every instruction set
// exports. Letters as in contract.py: N batch, T time steps, D input width, H hidden width, M rows, V vocabulary, E
// embedding width. Arrays are C-contiguous. Kernels do not allocate and do not throw; where one needs memory to work
// in, *_workspace says how many elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../lstm_cell.h"
#include "../optim_rules.h"

namespace fastlstm {

using Index = std::ptrdiff_t;

// ---- Recurrent layers ----------------------------------------------------------------------------------------------
//
// Inside, units lie in blocks of `units` (16 for the LSTM, 64 for the RNN) whatever the instruction set, rows in the
// order of processing: step s = 0 .. T - 1 is time t = s, or T - 1 - s in reverse, and row r = s N + n.
//   gates  [H / units][T N][gates * units]         a row: i16 f16 g16 o16
//   h, c   [H / units][(T + 1) N][units]           slot s is the state before step s
// A block is followed by kBlockPadding elements, so that blocks do not fall on the same cache sets.
// The gate buffer is the output of the recurrent product, then the place of its own gradient, the A of the products
// with Wx^T and Wh^T, and an already packed B of the weights' gradients.

inline constexpr Index kBlockPadding = 16;

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

// ---- GRU -----------------------------------------------------------------------------------------------------------
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

// ---- Embedding -----------------------------------------------------------------------------------------------------

template <class S, class Id>
struct EmbeddingKernels {
  // out[m] = W[ids[m]]
  void (*gather)(const S* W, const Id* ids, Index M, Index E, S* out);
  // target[ids[m]] += rows[m], in the order of m; with clear, target (V, E) is zeroed first. Rows whose id is skip
  // (-1: none) are left out.
  void (*scatter_add)(S* target, Index V, const Id* ids, const S* rows, Index M, Index E, bool clear, Index skip);
  // target[ids[m]] = 0
  void (*clear_rows)(S* target, const Id* ids, Index M, Index E);
  // out[u] = sum of rows[order[k]] for k in [starts[u], starts[u + 1])
  void (*sum_segments)(const S* rows, const Index* order, const Index* starts, Index U, Index E, S* out);
};

// ---- Matrix products -----------------------------------------------------------------------------------------------

template <class S>
struct Product {
  Index M, K, L;
  bool a_transposed, b_transposed;
  const S* a;     // (M, K), or (K, M) where transposed
  const S* b;     // (K, L), or (L, K) where transposed
  const S* bias;  // (L,) or null
  S* out;         // (M, L) = a b + bias
  int threads;    // at most
  S* workspace;
};

template <class S>
struct ProductKernels {
  Index (*workspace)(const Product<S>&);
  void (*run)(const Product<S>&);
};

// ---- Losses --------------------------------------------------------------------------------------------------------

template <class S, class Id>
struct LossKernels {
  // losses (M,): a row's loss, 0 where ignored. dlogits (M, V) = (softmax - one-hot) * scale, zero where ignored.
  void (*softmax_cross_entropy)(const S* logits, const Id* targets, Index M, Index V, Id ignore_index, S scale,
                                double* losses, S* dlogits);
};

template <class S>
struct LinearLoss {
  Index M, H, V;
  bool transposed;              // W and dW are (V, H)
  const S* h;                   // (M, H)
  const S* W;                   // (H, V)
  const S* b;                   // (V,)
  const std::int64_t* targets;  // (M,), in [0, V)
  Index block;                  // columns of the logits held at once, a multiple of kLossPanel
  int threads;                  // at most
  double* losses;               // (M,)
  S* dh;                        // (M, H)
  S* dW;                        // (H, V)
  S* db;                        // (V,)
  S* workspace;
};

inline constexpr Index kLossPanel = 64;

template <class S>
struct LinearLossKernels {
  Index (*workspace)(const LinearLoss<S>&);
  void (*run)(const LinearLoss<S>&);
};

// ---- Sampled classes -----------------------------------------------------------------------------------------------
//
// Logits (B, K + S) of K = num_true true and S sampled classes. The rows of weights that take part are gathered once,
// into the workspace.

enum class SampledLossKind { kSigmoid, kSoftmax };

template <class S>
struct SampledLogits {
  Index B, K, sampled_count, E;
  const S* weights;                // (V, E)
  const S* biases;                 // (V,) or null
  const std::int64_t* labels;      // (B, K)
  const S* inputs;                 // (B, E)
  const std::int64_t* sampled;     // (S,)
  const double* true_expected;     // (B, K) or null; logarithms are subtracted from the logits
  const double* sampled_expected;  // (S,) or null
  bool remove_accidental_hits;
  S* logits;     // (B, K + S), out of forward
  S* workspace;  // kept from forward to backward
  // Backward. The classes - labels, then sampled - in segments: see find_segments.
  const S* dlogits;  // (B, K + S), into backward
  const Index* order;
  const Index* starts;
  Index U;
  S* dinputs;   // (B, E)
  S* dweights;  // (U, E)
  S* dbiases;   // (U,) or null
};

template <class S>
struct SampledKernels {
  Index (*workspace)(const SampledLogits<S>&);
  void (*forward)(const SampledLogits<S>&);
  void (*backward)(const SampledLogits<S>&);
  // Forward, losses (B,), the gradients of their mean, backward.
  void (*loss)(const SampledLogits<S>&, SampledLossKind, S* losses);
};

// ---- Word vectors --------------------------------------------------------------------------------------------------

// Negative sampling, one step of gradient descent a pair.
template <class S>
struct SkipgramUpdate {
  Index M, K, E;                  // pairs, negatives a pair
  S* vectors;                     // (V, E), changed in place
  S* weights;                     // (V, E), changed in place
  const std::int64_t* centers;    // (M,)
  const std::int64_t* contexts;   // (M,)
  const std::int64_t* negatives;  // (M, K)
  S lr;
  S* workspace;
};

template <class S>
struct SkipgramKernels {
  Index (*workspace)(const SkipgramUpdate<S>&);
  // Returns the sum of the pairs' losses.
  double (*update)(const SkipgramUpdate<S>&);
};

// ---- Optimisers ----------------------------------------------------------------------------------------------------

// One parameter, changed in place. grad has `rows` rows of `width` elements; row u belongs to row ids[u] of the
// parameter and its state, or to row u where ids is null.
template <class S>
struct OptimUpdate {
  OptimRule rule;
  S* param;
  const S* grad;
  S* first;   // velocity, accumulator or Adam's m
  S* second;  // Adam's v
  const std::int64_t* ids;
  Index rows, width;
  OptimNumbers<S> numbers;
};

template <class S>
struct OptimKernels {
  void (*update)(const OptimUpdate<S>&);
  // In float64, in chunks of fixed size summed in order.
  double (*squared_norm)(const S* values, Index count);
  void (*scale)(S* values, Index count, S factor);
};

// ---- Dropout -------------------------------------------------------------------------------------------------------

template <class S>
struct DropoutKernels {
  // mask[j] = kept if draw j of splitmix.h is at least ratio, else 0.
  void (*mask)(S* mask, Index count, double ratio, double kept, std::uint64_t seed);
};

// ---- The table -----------------------------------------------------------------------------------------------------

template <class S>
struct Kernels {
  const RecurrentKernels<S>* lstm;
  const RecurrentKernels<S>* rnn;
  const GruKernels<S>* gru;
  const EmbeddingKernels<S, std::int32_t>* embedding_int32;
  const EmbeddingKernels<S, std::int64_t>* embedding_int64;
  const LossKernels<S, std::int32_t>* loss_int32;
  const LossKernels<S, std::int64_t>* loss_int64;
  const LinearLossKernels<S>* linear_loss;
  const SampledKernels<S>* sampled;
  const OptimKernels<S>* optim;
  const SkipgramKernels<S>* skipgram;
  const ProductKernels<S>* product;
  const DropoutKernels<S>* dropout;
};

struct InstructionSet {
  const char* name;
  Kernels<float> float32;
  Kernels<double> float64;
};

// The one that this processor runs best, or a lower one that FASTLSTM_MAX_ISA names. Chosen once.
// Throws std::invalid_argument if FASTLSTM_MAX_ISA names none.
const InstructionSet& instruction_set();

template <class S>
const Kernels<S>& kernels();

template <>
inline const Kernels<float>& kernels<float>() {
  return instruction_set().float32;
}
template <>
inline const Kernels<double>& kernels<double>() {
  return instruction_set().float64;
}

}  // namespace fastlstm
