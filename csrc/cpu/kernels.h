// The table of functions that every instruction set exports. What a family's functions take, argument blocks with
// named fields, is in its folder's kernels.h. Letters as in contract.py: N batch, T time steps, D input width, H hidden
// width, M rows, V vocabulary, E embedding width. Arrays are C-contiguous where nothing else is said. Kernels do not
// allocate and do not throw; where one needs memory to work in, *_workspace says how many elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlstm {

using Index = std::ptrdiff_t;

// Elements between the blocks of a buffer, so that blocks do not fall on the same cache sets.
inline constexpr Index kBlockPadding = 16;

template <class S>
struct RecurrentKernels;
template <class S, class Id>
struct EmbeddingKernels;
template <class S>
struct ProductKernels;
template <class S, class Id>
struct LossKernels;
template <class S>
struct LinearLossKernels;
template <class S>
struct SampledKernels;
template <class S>
struct SkipgramKernels;
template <class S>
struct OptimKernels;
template <class S>
struct DropoutKernels;

template <class S>
struct Kernels {
  const RecurrentKernels<S>* lstm;
  const RecurrentKernels<S>* rnn;
  const RecurrentKernels<S>* gru;
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

// Of float32 arrays, with the factors of products rounded to bfloat16.
struct Bf16Kernels {
  bool in_hardware;  // the products are the processor's, else the factors are rounded before
  const ProductKernels<float>* product;
  const LinearLossKernels<float>* linear_loss;
  const RecurrentKernels<float>* lstm;
  const RecurrentKernels<float>* rnn;
  const RecurrentKernels<float>* gru;
};

struct InstructionSet {
  const char* name;
  Kernels<float> float32;
  Kernels<double> float64;
  Bf16Kernels bf16;
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
