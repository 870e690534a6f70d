// The row kernel: a block owns a few rows and all units, for float32 LSTMs with small H. Nothing waits between blocks.
//
// A thread owns one gate of one unit. Its column of the recurrent weights stays with it for the whole sequence, in
// registers and, for the widest, partly in shared memory. Forward, it sums its gate over h; backward, its share of its
// unit's gradient over the dz of its gate, and the four shares meet in shared memory.
#pragma once

#include "lstm_step.h"

namespace fastlstm::cuda {

template <int width, int R>
__global__ void __launch_bounds__(4 * width, 1) run_rows(Sequence<float> s) {
  constexpr int kInRegisters = row_registers(width, R);
  constexpr int kInShared = width - kInRegisters;
  constexpr int kThreads = 4 * width;
  static_assert(kInRegisters % 4 == 0 && kInShared % 4 == 0);
  const int thread = static_cast<int>(threadIdx.x), gate = thread / width, unit = thread % width;
  const bool forward = s.direction == Direction::kForward;
  const int H = static_cast<int>(s.H);
  const Index first_row = static_cast<Index>(blockIdx.x) * R;

  float4* const weights = shared_memory<float4>();  // [kInShared / 4][kThreads]
  float* const operand =
      reinterpret_cast<float*>(weights + kInShared / 4 * kThreads);  // [R][4 width]: h, or dz by gates
  float* const sums = operand + R * kThreads;                        // [R][4][width]
  // [4][width]. Added after the product: before it, that would wait for the inputs.
  float* const bias = sums + R * kThreads;

  const float* const Wh = s.Wh + s.gate_position[gate] * s.H;
  const auto weight = [&](int k) {
    if (unit >= H || k >= H) return 0.0f;
    return forward ? Wh[static_cast<Index>(k) * 4 * H + unit] : Wh[static_cast<Index>(unit) * 4 * H + k];
  };
  // Backward the threads of a warp read from rows of the weights that are far apart: four numbers at a time, but with
  // four rows, which leave no registers for it.
  const bool by_four = R < 4 && !forward && H % 4 == 0 && reinterpret_cast<std::uintptr_t>(Wh) % sizeof(float4) == 0;
  const auto four_weights = [&](int k) -> float4 {
    if (!by_four || unit >= H || k >= H) return {weight(k), weight(k + 1), weight(k + 2), weight(k + 3)};
    return *reinterpret_cast<const float4*>(Wh + static_cast<Index>(unit) * 4 * H + k);
  };
  float mine[kInRegisters];
#pragma unroll
  for (int k = 0; k < kInRegisters; k += 4) {
    const float4 four = four_weights(k);
    mine[k] = four.x;
    mine[k + 1] = four.y;
    mine[k + 2] = four.z;
    mine[k + 3] = four.w;
  }
  for (int k = 0; k < kInShared; k += 4) weights[k / 4 * kThreads + thread] = four_weights(kInRegisters + k);

  // The unit of a row that this thread finishes: thread number `unit` of the gate's threads, the gate counts rows.
  const Index n = first_row + gate;
  const bool owner = gate < R && n < s.N && unit < H;
  Carried<float> carried{};
  bias[thread] = forward && unit < H ? s.b[s.gate_position[gate] * s.H + unit] : 0.0f;
  for (int i = thread; i < R * kThreads; i += kThreads) operand[i] = 0.0f;
  __syncthreads();
  if (owner) {
    carried = initial_state(s, n, unit);
    if (forward) operand[gate * kThreads + unit] = carried.h;
  }
  __syncthreads();

  // Forward every gate reads h, backward its own dz.
  const float4* const x = reinterpret_cast<const float4*>(operand + (forward ? 0 : gate * width));
  for (Index phase = 0; phase < s.phases(); ++phase) {
    Inputs<float> inputs{};
    if (owner) inputs = load_inputs(s, phase, n, unit);
    float total[R] = {};
    if (phase >= s.first_product()) {
#pragma unroll
      for (int k = 0; k < kInRegisters; k += 4) {
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const float4 v = x[r * width + k / 4];
          total[r] += v.x * mine[k] + v.y * mine[k + 1] + v.z * mine[k + 2] + v.w * mine[k + 3];
        }
      }
#pragma unroll 4
      for (int k = 0; k < kInShared; k += 4) {
        const float4 w = weights[k / 4 * kThreads + thread];
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const float4 v = x[r * width + (kInRegisters + k) / 4];
          total[r] += v.x * w.x + v.y * w.y + v.z * w.z + v.w * w.w;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) sums[r * kThreads + thread] = total[r];
    __syncthreads();
    if (owner) {
      const float* const row_sums = sums + gate * kThreads + unit;
      const float product[4] = {row_sums[0], row_sums[width], row_sums[2 * width], row_sums[3 * width]};
      float* const out = operand + gate * kThreads + unit;
      if (forward) {
#pragma unroll
        for (int q = 0; q < 4; ++q) inputs.gates[q] += bias[q * width + unit];
        step_forward(s, inputs, product, carried);
        out[0] = carried.h;
      } else {
        const float dh = (product[0] + product[1]) + (product[2] + product[3]);
        step_backward(s, phase, inputs, dh, carried);
#pragma unroll
        for (int q = 0; q < 4; ++q) out[q * width] = inputs.gates[q];
      }
      LstmOrRnn::store(s, phase, n, unit, inputs, carried);
    }
    __syncthreads();
  }
}

}  // namespace fastlstm::cuda
