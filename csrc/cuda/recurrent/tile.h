// The step and persistent kernels: blocks of units by blocks of rows, one tile a block and step.
//
// The operand of the next step's product, h or dz, goes through global memory (exchange: two of them, in turns),
// rounded to the precision's operands and padded with zeros to whole chunks and tiles. The warps of a block share K
// among them; their sums meet in shared memory, where the threads that own the units take them up.
#pragma once

#include "lstm_step.h"

namespace fastlstm::cuda {

struct TilePart {
  int M;
  Index chunks, resident;
  Packed16* packed;  // [unit block][chunk][M][64]
};

template <class P>
struct TileArguments {
  using S = typename P::State;
  Sequence<S> sequence;
  Index units;        // a block
  Index unit_blocks;  // in all
  TilePart parts[kMostParts];
  Index exchange_chunks;
  Index row_blocks;       // in all
  Index exchange_rows;    // of all row blocks
  Index first_row_block;  // of this launch
  Index first_phase, last_phase;
  int packed_part;                // which pack_weights packs
  typename P::Operand* exchange;  // [2][rows][exchange_chunks * elements of a chunk]
  S* state;                       // [2][N][H]: the carried h and c
  unsigned* counters;             // [row block * kCounterStride]: arrivals at the barrier

  FASTLSTM_HOST_DEVICE static constexpr int chunk_elements() { return kChunkBytes / sizeof(typename P::Operand); }
  FASTLSTM_HOST_DEVICE Index exchange_stride() const { return exchange_chunks * chunk_elements(); }
};

// Packs the weights of a part, one block a unit block and chunk.
template <class P>
__global__ void __launch_bounds__(kTileThreads) pack_weights(TileArguments<P> a) {
  using Operand = typename P::Operand;
  constexpr int kElements = kTileChunkBytes / sizeof(Operand);
  const Sequence<typename P::State>& s = a.sequence;
  const Index unit_block = blockIdx.x, chunk = blockIdx.y;
  const TilePart& planned = a.parts[a.packed_part];
  const Part part = part_of(s.cell, a.packed_part);
  const bool forward = s.direction == Direction::kForward;
  const int columns_of_unit = forward ? part.gates : 1;
  const Index K = forward ? s.H : part.gates * s.H;
  Operand* const out =
      reinterpret_cast<Operand*>(planned.packed + (unit_block * planned.chunks + chunk) * planned.M * 64);
  for (int i = static_cast<int>(threadIdx.x); i < planned.M * kElements; i += kTileThreads) {
    const int column = i / a.chunk_elements(), k_in_chunk = i % a.chunk_elements();
    const Index k = chunk * a.chunk_elements() + k_in_chunk;
    const Index block_unit = column / columns_of_unit, unit = unit_block * a.units + block_unit;
    const bool there = k < K && block_unit < a.units && unit < s.H;
    out[column / 16 * kElements + P::element_of(column % 16, k_in_chunk)] =
        P::operand(there ? s.recurrent_weight(part, k, unit, column % columns_of_unit) : typename P::State(0));
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
  for (Index i = first; i < a.row_blocks; i += threads) a.counters[i * kCounterStride] = 0;
}

// The sums of this block's tile: partial[warp][row][column]. The first chunks of the weights are in `resident`, the
// others in `packed`; rows are row_stride elements apart.
template <class P, int M, int J>
__device__ void multiply_tile(const TilePart& part, const typename P::Operand* exchange, Index row_stride,
                              Index first_row, const Packed16* resident, const Packed16* packed,
                              typename P::State* partial) {
  constexpr int kStride = 16 * M + 4;  // spreads the rows of a column over the banks of shared memory
  constexpr int kAhead = P::kPacksAhead / J > 2 ? P::kPacksAhead / J : 2;  // chunks whose rows are on their way at once
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto* const lane_rows =
      reinterpret_cast<const Packed16*>(exchange + (first_row + lane_row(lane)) * row_stride) + lane_part(lane);
  const Index eight_rows = 8 * row_stride / (16 / static_cast<Index>(sizeof(typename P::Operand)));

  typename P::Accumulator total[M][J] = {};
  for (Index first = warp; first < part.chunks; first += kAhead * kWarps) {
    Packed16 x[kAhead][J];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const Index chunk = first + ahead * kWarps;
      if (chunk < part.chunks) {
#pragma unroll
        for (int j = 0; j < J; ++j) x[ahead][j] = load_l2(lane_rows + j * eight_rows + chunk * 4);
      }
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const Index chunk = first + ahead * kWarps;
      if (chunk < part.chunks) {
        const auto multiply = [&](const Packed16* weights) {
#pragma unroll
          for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int j = 0; j < J; ++j) P::multiply(total[m][j], weights + m * 64, x[ahead][j], lane);
          }
        };
        // Apart, so that each loads from a kind of memory that the compiler knows.
        if (chunk < part.resident) {
          multiply(resident + chunk * (M * 64));
        } else {
          multiply(packed + chunk * (M * 64));
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

// C is LstmOrRnn or Gru.
template <class P, int M, int J, class C>
__global__ void __launch_bounds__(kTileThreads, 1) run_tile(TileArguments<P> a) {
  using S = typename P::State;
  using Operand = typename P::Operand;
  constexpr int kRows = 8 * J;
  constexpr int kColumns = divide_up(16 * M * kRows, kTileThreads);      // a thread's, of the product
  constexpr int kOwned = kColumns < kMostOwned ? kColumns : kMostOwned;  // units of rows a thread owns, at most
  const Sequence<S>& s = a.sequence;
  const Index unit_block = blockIdx.x, row_block = a.first_row_block + blockIdx.y;
  const Index first_unit = unit_block * a.units, first_row = row_block * kRows;
  const bool forward = s.direction == Direction::kForward;
  unsigned* const counter = a.counters + row_block * kCounterStride;

  S* const partial = shared_memory<S>();
  Packed16* const resident = reinterpret_cast<Packed16*>(partial + kWarps * kRows * (16 * M + 4));
  // The second part's weights stand behind the first one's.
  const Index resident_packs = a.parts[0].resident * (M * 64);
  const Packed16* const packed = a.parts[0].packed + unit_block * a.parts[0].chunks * (M * 64);
  for (Index i = threadIdx.x; i < resident_packs; i += kTileThreads) resident[i] = packed[i];
  if constexpr (C::kTwoParts) {
    const TilePart& second = a.parts[1];
    const Packed16* const from = second.packed + unit_block * second.chunks * (second.M * 64);
    for (Index i = threadIdx.x; i < second.resident * (second.M * 64); i += kTileThreads) {
      resident[resident_packs + i] = from[i];
    }
  }
  __syncthreads();

  // The units of rows this thread owns: number threadIdx.x, threadIdx.x + 256 ... of the tile, units first. Divided
  // once, and two numbers in a register.
  int places[kOwned];
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    const int number = static_cast<int>(threadIdx.x) + k * kTileThreads, units = static_cast<int>(a.units);
    const int row = number / units, unit = number % units;
    const bool there = row < kRows && first_row + row < s.N && first_unit + unit < s.H;
    places[k] = there ? row << 16 | unit : -1;
  }
  const auto owned = [&](int k, int& row, int& unit) {
    row = places[k] >> 16;
    unit = places[k] & 0xffff;
    return places[k] >= 0;
  };
  Carried<S> carried[kOwned];
#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    int row, unit;
    if (owned(k, row, unit)) {
      const Index at = (first_row + row) * s.H + first_unit + unit;
      carried[k] = {a.state[at], a.state[s.N * s.H + at]};
    }
  }

  for (Index phase = a.first_phase; phase < a.last_phase; ++phase) {
    typename C::template Inputs<S> inputs[kOwned];
#pragma unroll
    for (int k = 0; k < kOwned; ++k) {
      int row, unit;
      if (owned(k, row, unit)) inputs[k] = C::load(s, phase, first_row + row, first_unit + unit);
    }
    if (forward) {
#pragma unroll
      for (int k = 0; k < kOwned; ++k) {
        int row, unit;
        if (owned(k, row, unit)) C::add_bias(s, first_unit + unit, inputs[k]);
      }
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
    const Index row_stride = a.exchange_stride();
    const int part = C::kTwoParts && parts_of(s.cell) == 2 ? static_cast<int>(phase % 2) : 0;
    const int columns_of_unit = forward ? part_of(s.cell, part).gates : 1;
    int stride = 16 * M + 4;  // of a row of the sums
    if (has_product) {
      if (part == 0) {
        multiply_tile<P, M, J>(a.parts[0], operand, row_stride, first_row, resident, packed, partial);
      } else if constexpr (C::kTwoParts) {
        const TilePart& second = a.parts[1];
        const Packed16* const behind = resident + resident_packs;
        const Packed16* const weights = second.packed + unit_block * second.chunks * (second.M * 64);
        if (forward) {  // one column a unit, after two
          constexpr int kHalf = (M + 1) / 2;
          stride = 16 * kHalf + 4;
          multiply_tile<P, kHalf, J>(second, operand, row_stride, first_row, behind, weights, partial);
        } else {
          multiply_tile<P, M, J>(second, operand, row_stride, first_row, behind, weights, partial);
        }
      }
    }
    __syncthreads();

#pragma unroll
    for (int k = 0; k < kOwned; ++k) {
      int row, unit;
      if (!owned(k, row, unit)) continue;
      S product[C::kColumns] = {};
      if (has_product) {
        const S* sums = partial + row * stride + unit * columns_of_unit;
        for (int warp = 0; warp < kWarps; ++warp, sums += kRows * stride) {
#pragma unroll
          for (int q = 0; q < C::kColumns; ++q) {
            if (q < columns_of_unit) product[q] += sums[q];
          }
        }
      }
      const Index n = first_row + row, j = first_unit + unit;
      S out[4];
      const int count = C::finish(s, phase, inputs[k], product, carried[k], out);
      Operand* const next_row = next + n * row_stride + count * j;
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        if (q < count) next_row[q] = P::operand(out[q]);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0 && a.unit_blocks > 1 && phase + 1 < a.last_phase) add_release(counter);
    // Behind the release, which would wait for these stores too.
#pragma unroll
    for (int k = 0; k < kOwned; ++k) {
      int row, unit;
      if (owned(k, row, unit)) C::store(s, phase, first_row + row, first_unit + unit, inputs[k], carried[k]);
    }
  }

#pragma unroll
  for (int k = 0; k < kOwned; ++k) {
    int row, unit;
    if (owned(k, row, unit)) {
      const Index at = (first_row + row) * s.H + first_unit + unit;
      a.state[at] = carried[k].h;
      a.state[s.N * s.H + at] = carried[k].c;
    }
  }
}

}  // namespace fastlstm::cuda
