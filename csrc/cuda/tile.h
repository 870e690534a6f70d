// The step and persistent kernels: blocks of units by blocks of rows, one tile a block and step.
//
// The operand of the next step's product, h or dz, goes through global memory (exchange: two of them, in turns),
// rounded to the precision's operands and padded with zeros to whole chunks and tiles. The warps of a block share K
// among them; their sums meet in shared memory, where the threads that own the units take them up.
#pragma once

#include "step.h"

namespace fastlstm::cuda {

template <class P>
struct TileArguments {
  using S = typename P::State;
  Sequence<S> sequence;
  Index units;        // a block
  Index unit_blocks;  // in all
  Index chunks, resident;
  Index row_blocks;       // in all
  Index exchange_rows;    // of all row blocks
  Index first_row_block;  // of this launch
  Index first_phase, last_phase;
  Quad* packed;                   // [unit block][chunk][M][64]
  typename P::Operand* exchange;  // [2][rows][chunks * elements of a chunk]
  S* state;                       // [2][N][H]: the carried h and c
  unsigned* counters;             // [row block]: arrivals at the barrier

  FASTLSTM_HOST_DEVICE static constexpr int chunk_elements() { return kChunkBytes / sizeof(typename P::Operand); }
  FASTLSTM_HOST_DEVICE Index exchange_stride() const { return chunks * chunk_elements(); }
};

// Packs the weights, one block a unit block and chunk.
template <class P, int M>
__global__ void __launch_bounds__(kTileThreads) pack_weights(TileArguments<P> a) {
  using Operand = typename P::Operand;
  constexpr int kElements = kTileChunkBytes / sizeof(Operand);
  const Sequence<typename P::State>& s = a.sequence;
  const Index unit_block = blockIdx.x, chunk = blockIdx.y;
  const bool by_gates = s.cell == Cell::kLstm && s.direction == Direction::kForward;
  const Index K = s.direction == Direction::kBackward ? s.gates_of_cell() * s.H : s.H;
  Operand* const out = reinterpret_cast<Operand*>(a.packed + (unit_block * a.chunks + chunk) * M * 64);
  for (int element = static_cast<int>(threadIdx.x); element < M * kElements; element += kTileThreads) {
    int column, k_in_chunk;
    P::column_and_k(element % kElements, column, k_in_chunk);
    column += element / kElements * 16;
    const Index k = chunk * a.chunk_elements() + k_in_chunk;
    const Index unit = unit_block * a.units + (by_gates ? column / 4 : column);
    const int gate = by_gates ? column % 4 : 0;
    out[element] = P::operand(k < K && unit < s.H ? s.recurrent_weight(k, unit, gate) : typename P::State(0));
  }
}

// The carried state, the first operand and the counters.
template <class P>
__global__ void __launch_bounds__(kTileThreads) prepare(TileArguments<P> a) {
  const Sequence<typename P::State>& s = a.sequence;
  const Index threads = static_cast<Index>(gridDim.x) * kTileThreads;
  const Index first = static_cast<Index>(blockIdx.x) * kTileThreads + threadIdx.x;
  const Index stride = a.exchange_stride();
  const bool forward = s.direction == Direction::kForward;
  for (Index i = first; i < 2 * a.exchange_rows * stride; i += threads) {
    const Index n = i / stride, unit = i % stride;  // of the first exchange; n reaches beyond N in the second
    const bool first_h = forward && s.h0 && n < s.N && unit < s.H;
    a.exchange[i] = P::operand(first_h ? s.h0[n * s.H + unit] : typename P::State(0));
  }
  for (Index i = first; i < s.N * s.H; i += threads) {
    const Carried<typename P::State> state = initial_state(s, i / s.H, i % s.H);
    a.state[i] = state.h;
    a.state[s.N * s.H + i] = state.c;
  }
  for (Index i = first; i < a.row_blocks; i += threads) a.counters[i] = 0;
}

// The sums of this block's tile: partial[warp][row][column].
template <class P, int M, int J>
__device__ void multiply_tile(const TileArguments<P>& a, const typename P::Operand* exchange, Index first_row,
                              const Quad* resident, const Quad* packed, typename P::State* partial) {
  constexpr int kStride = 16 * M + 4;  // spreads the rows of a column over the banks of shared memory
  constexpr int kAhead = P::kQuadsAhead / J > 2 ? P::kQuadsAhead / J : 2;  // chunks whose rows are on their way at once
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Index row_stride = a.exchange_stride();
  const auto* const lane_rows =
      reinterpret_cast<const Quad*>(exchange + (first_row + lane_row(lane)) * row_stride) + lane_part(lane);
  const Index eight_rows = 8 * row_stride / (16 / static_cast<Index>(sizeof(typename P::Operand)));

  typename P::Accumulator total[M][J] = {};
  for (Index first = warp; first < a.chunks; first += kAhead * kWarps) {
    Quad x[kAhead][J];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const Index chunk = first + ahead * kWarps;
      if (chunk < a.chunks) {
#pragma unroll
        for (int j = 0; j < J; ++j) x[ahead][j] = load_l2(lane_rows + j * eight_rows + chunk * 4);
      }
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const Index chunk = first + ahead * kWarps;
      if (chunk < a.chunks) {
        const Quad* const weights = (chunk < a.resident ? resident : packed) + chunk * (M * 64);
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
          for (int j = 0; j < J; ++j) P::multiply(total[m][j], weights + m * 64, x[ahead][j], lane);
        }
      }
    }
  }
  typename P::State* const mine = partial + warp * (8 * J) * kStride;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int j = 0; j < J; ++j) P::store(total[m][j], mine + 8 * j * kStride + 16 * m, kStride, lane);
  }
}

template <class P, int M, int J>
__global__ void __launch_bounds__(kTileThreads, 1) run_tile(TileArguments<P> a) {
  using S = typename P::State;
  using Operand = typename P::Operand;
  constexpr int kRows = 8 * J, kStride = 16 * M + 4;
  constexpr int kColumns = (16 * M * kRows + kTileThreads - 1) / kTileThreads;  // a thread's, of the product
  constexpr int kOwned = kColumns < kMostOwned ? kColumns : kMostOwned;         // units of rows a thread owns, at most
  const Sequence<S>& s = a.sequence;
  const Index unit_block = blockIdx.x, row_block = a.first_row_block + blockIdx.y;
  const Index first_unit = unit_block * a.units, first_row = row_block * kRows;
  const bool forward = s.direction == Direction::kForward;
  const int columns_of_unit = s.cell == Cell::kLstm && forward ? 4 : 1;
  unsigned* const counter = a.counters + row_block;

  S* const partial = shared_memory<S>();
  Quad* const resident = reinterpret_cast<Quad*>(partial + kWarps * kRows * kStride);
  const Quad* const packed = a.packed + unit_block * a.chunks * (M * 64);
  for (Index i = threadIdx.x; i < a.resident * (M * 64); i += kTileThreads) resident[i] = packed[i];
  __syncthreads();

  // The units of rows this thread owns: number threadIdx.x, threadIdx.x + 256 ... of the tile, units first.
  const auto owned = [&](int k, Index& row, Index& unit) {
    const Index number = static_cast<Index>(threadIdx.x) + k * kTileThreads;
    row = number / a.units;
    unit = number % a.units;
    return row < kRows && first_row + row < s.N && first_unit + unit < s.H;
  };
  Carried<S> carried[kOwned];
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    Index row, unit;
    if (owned(k, row, unit)) {
      const Index at = (first_row + row) * s.H + first_unit + unit;
      carried[k] = {a.state[at], a.state[s.N * s.H + at]};
    }
  }

  for (Index phase = a.first_phase; phase < a.last_phase; ++phase) {
    Inputs<S> inputs[kOwned];
#pragma unroll
    for (int k = 0; k < kOwned; ++k) {
      Index row, unit;
      if (owned(k, row, unit)) inputs[k] = load_inputs(s, phase, first_row + row, first_unit + unit);
    }

    if (phase > a.first_phase && a.unit_blocks > 1) {
      // All blocks of these rows have written what this product reads. They have read, too, what this phase overwrites:
      // the operand of the product before.
      if (threadIdx.x == 0) {
        const unsigned arrivals = static_cast<unsigned>((phase - a.first_phase) * a.unit_blocks);
        while (load_acquire(counter) < arrivals) {
        }
      }
      __syncthreads();
    }

    const Index slot = a.exchange_rows * a.exchange_stride();
    const Operand* const operand = a.exchange + phase % 2 * slot;
    Operand* const next = a.exchange + (phase + 1) % 2 * slot;
    const bool has_product = phase >= s.first_product();
    if (has_product) multiply_tile<P, M, J>(a, operand, first_row, resident, packed, partial);
    __syncthreads();

#pragma unroll
    for (int k = 0; k < kOwned; ++k) {
      Index row, unit;
      if (!owned(k, row, unit)) continue;
      S product[4] = {};
      if (has_product) {
        const S* sums = partial + row * kStride + unit * columns_of_unit;
        for (int warp = 0; warp < kWarps; ++warp, sums += kRows * kStride) {
          product[0] += sums[0];
          if (columns_of_unit == 4) {
            product[1] += sums[1];
            product[2] += sums[2];
            product[3] += sums[3];
          }
        }
      }
      const Index n = first_row + row, j = first_unit + unit;
      Operand* const next_row = next + n * a.exchange_stride();
      if (forward) {
        finish_forward(s, phase, n, j, inputs[k], product, carried[k]);
        next_row[j] = P::operand(carried[k].h);
      } else {
        S dz[4];
        finish_backward(s, phase, n, j, inputs[k], product[0], carried[k], dz);
        if (phase < s.T) {
          if (s.cell == Cell::kLstm) {
#pragma unroll
            for (int q = 0; q < 4; ++q) next_row[4 * j + q] = P::operand(dz[q]);
          } else {
            next_row[j] = P::operand(dz[0]);
          }
        }
      }
    }
    __syncthreads();
    if (threadIdx.x == 0 && a.unit_blocks > 1 && phase + 1 < a.last_phase) add_release(counter);
  }

#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    Index row, unit;
    if (owned(k, row, unit)) {
      const Index at = (first_row + row) * s.H + first_unit + unit;
      a.state[at] = carried[k].h;
      a.state[s.N * s.H + at] = carried[k].c;
    }
  }
}

}  // namespace fastlstm::cuda
