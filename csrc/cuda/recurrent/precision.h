// The arithmetic of a precision: operands as they lie in memory, and a warp's product of two of their fragments.
//
// A chunk of K is 64 bytes of a row: the four lanes of a row hold 16 bytes each, in words of 32 bits. How K falls on
// the lanes is free as long as weights and rows agree, so lane `part` takes words 4 part .. 4 part + 3, and one 16-byte
// load serves two tensor core instructions: the first takes its words 0 and 1, the second 2 and 3.
#pragma once

#include <cstring>
#include <type_traits>

#include "../../lstm_cell.h"
#include "../device/device.h"
#include "plan.h"

namespace fastlstm::cuda {

// ---- Numbers -------------------------------------------------------------------------------------------------------

FASTLSTM_HOST_DEVICE inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
FASTLSTM_HOST_DEVICE inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The nearest number of 10 bits after the point; halfway away from zero, as cvt.rna.tf32. NaN stays NaN.
FASTLSTM_HOST_DEVICE inline float round_to_tf32(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return float_of((bits + 0x1000u) & 0xffffe000u);
}

// The upper half of a float, rounded to nearest, halfway to even. NaN stays NaN.
FASTLSTM_HOST_DEVICE inline std::uint16_t bfloat16_of(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// What lstm_cell.h needs, of the CUDA math library: a few units in the last place, no fast approximations.
template <class S>
struct Math;

template <>
struct Math<float> {
  FASTLSTM_HOST_DEVICE static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
  FASTLSTM_HOST_DEVICE static float tanh(float x) { return tanhf(x); }
  FASTLSTM_HOST_DEVICE static float hard_sigmoid(float x) {
    const float y = 0.2f * x + 0.5f;
    return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;  // NaN falls through
  }
  FASTLSTM_HOST_DEVICE static float hard_sigmoid_slope(float s) {
    return s != s ? s : s > 0.0f && s < 1.0f ? 0.2f : 0.0f;
  }
};

template <>
struct Math<double> {
  FASTLSTM_HOST_DEVICE static double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
  FASTLSTM_HOST_DEVICE static double tanh(double x) { return ::tanh(x); }
  FASTLSTM_HOST_DEVICE static double hard_sigmoid(double x) {
    const double y = 0.2 * x + 0.5;
    return y < 0.0 ? 0.0 : y > 1.0 ? 1.0 : y;
  }
  FASTLSTM_HOST_DEVICE static double hard_sigmoid_slope(double s) {
    return s != s ? s : s > 0.0 && s < 1.0 ? 0.2 : 0.0;
  }
};

// ---- Products ------------------------------------------------------------------------------------------------------
//
// Of a precision:
//   kTensorCores               which units multiply
//   State, Operand             states and sums; what the products multiply
//   kPacksAhead                packs of rows that a lane asks for before it multiplies the first
//   Accumulator                a lane's share of 16 columns by 8 rows
//   multiply(sum, weights, x)  adds a chunk: weights are its 64 packs in shared or global memory, x the lane's pack
//   store(sum, partial)        partial[row * stride + column] = sum, for 8 rows and 16 columns
//   element_of(column, k)      where in a chunk's 1024 bytes of weights a column's k stands

// Which of a warp's 8 rows a lane loads, and which 16 bytes of the chunk.
__device__ inline int lane_row(int lane) { return lane / 4; }
__device__ inline int lane_part(int lane) { return lane % 4; }

// Exact products on the ordinary units. A lane multiplies its own k with all 16 columns; the four lanes of a row are
// summed at the end.
template <class S>
struct Exact {
  static constexpr bool kTensorCores = false;
  using State = S;
  using Operand = S;
  static constexpr int kPerPack = 16 / sizeof(S);
  static constexpr int kPacksAhead = 4;  // registers are short
  struct Accumulator {
    S sum[16];
  };

  FASTLSTM_HOST_DEVICE static Operand operand(State x) { return x; }

  __device__ static void multiply(Accumulator& total, const Packed16* weights, const Packed16& x, int lane) {
    S rows[kPerPack];
    std::memcpy(rows, &x, sizeof x);
#pragma unroll
    for (int column = 0; column < 16; ++column) {
      const Packed16 pack = weights[column * 4 + lane_part(lane)];
      S w[kPerPack];
      std::memcpy(w, &pack, sizeof pack);
#pragma unroll
      for (int k = 0; k < kPerPack; ++k) total.sum[column] += rows[k] * w[k];
    }
  }

  __device__ static void store(Accumulator& total, State* partial, int stride, int lane) {
    sum_over_four_lanes(total.sum);
    // A quarter of the columns each, with compile-time indices: total stays in registers.
#pragma unroll
    for (int column = 0; column < 16; ++column) {
      if (column % 4 == lane_part(lane)) partial[lane_row(lane) * stride + column] = total.sum[column];
    }
  }

  FASTLSTM_HOST_DEVICE static int element_of(int column, int k) { return column * 4 * kPerPack + k; }
};

using Float32 = Exact<float>;
using Float64 = Exact<double>;

// Tensor cores: weights are the A of mma.m16n8k8 or m16n8k16 (16 columns of ours), rows its B.
template <class Format>
struct Tensor {
  static constexpr bool kTensorCores = true;
  using State = float;
  using Operand = typename Format::Operand;
  static constexpr int kPerWord = 4 / sizeof(Operand);
  static constexpr int kPacksAhead = 8;
  struct Accumulator {
    float sum[4];
  };

  FASTLSTM_HOST_DEVICE static Operand operand(State x) { return Format::operand(x); }

  __device__ static void multiply(Accumulator& total, const Packed16* weights, const Packed16& x, int lane) {
    Format::mma(total.sum, weights[lane], x.x, x.y);
    Format::mma(total.sum, weights[32 + lane], x.z, x.w);
  }

  // Fragment C: lane 4 g + p holds columns g and g + 8 of rows 2 p and 2 p + 1.
  __device__ static void store(Accumulator& total, State* partial, int stride, int lane) {
    State* const here = partial + 2 * lane_part(lane) * stride + lane_row(lane);
    here[0] = total.sum[0];
    here[stride] = total.sum[1];
    here[8] = total.sum[2];
    here[stride + 8] = total.sum[3];
  }

  // Fragment A: register r of lane 4 g + p holds column g, or g + 8 for odd r; the k of B's register r / 2.
  FASTLSTM_HOST_DEVICE static int element_of(int column, int k) {
    const int word = k / kPerWord, instruction = word % 4 / 2;
    const int lane = column % 8 * 4 + word / 4, r = word % 2 * 2 + column / 8;
    return ((instruction * 32 + lane) * 4 + r) * kPerWord + k % kPerWord;
  }
};

struct Tf32Format {
  using Operand = float;
  FASTLSTM_HOST_DEVICE static Operand operand(float x) { return round_to_tf32(x); }
  __device__ static void mma(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
    mma_tf32(c, a, b0, b1);
  }
};

struct Bf16Format {
  using Operand = std::uint16_t;
  FASTLSTM_HOST_DEVICE static Operand operand(float x) { return bfloat16_of(x); }
  __device__ static void mma(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
    mma_bf16(c, a, b0, b1);
  }
};

using Tf32 = Tensor<Tf32Format>;
using Bf16 = Tensor<Bf16Format>;

template <Precision p>
using Arithmetic = std::conditional_t<on_tensor_cores(p), std::conditional_t<p == Precision::kTf32, Tf32, Bf16>,
                                      std::conditional_t<p == Precision::kFloat32, Float32, Float64>>;

}  // namespace fastlstm::cuda
