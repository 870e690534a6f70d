// The cluster kernel (Hopper), for LSTM and RNN: a cluster of blocks owns 8 J rows and all units for the whole
// sequence, each block some of the units with their recurrent weights, which stay in its shared memory. Clusters do not
// wait for each other; blocks of a cluster wait for data alone, never at a barrier, and what they send stays on the
// chip.
//
// Forward, a block needs h of all units: each one sends its units' h, rounded, to every block's `operand`. Backward, a
// block multiplies the dz of its own units with the same weights, which gives a share of dh of all units, and sends to
// each block what belongs to its units; the receiver adds the shares in the order of the blocks.
//
// What is sent in one phase is read in the next, phase p from slot p % 2, after a wait until all its bytes have come.
// Two slots are enough, with no other barrier in the cluster. A block B writes into slot p % 2 of a block A what is for
// phase p while it is in phase p - 1, that is, after it has waited for the data of phase p - 1, A's among them. A sent
// these in phase p - 2, behind its last read of that slot: forward it read all of it for the product, which a
// __syncthreads separates from what it sends, backward before the __syncthreads that stands before its product. That
// every block sends something to every other one is why all of them have units. The same holds for the mbarriers: what
// counts for phase p + 2 comes only after all threads have seen that phase p was complete, or they would not have
// sent for p + 1.
//
// A cluster may be one block. It stores plainly, which st.async may not be asked to, and waits for its own threads.
#pragma once

#include "lstm_step.h"

namespace fastlstm::cuda {

template <class P>
struct ClusterArguments {
  Sequence<typename P::State> sequence;
  int blocks;  // of a cluster
  int units;   // of a block, at most
  int tiles, chunks, k_parts;
  ClusterMemory memory;
};

// Units come to the blocks in groups.
template <class P>
struct Units {
  static constexpr int kGroup = static_cast<int>(unit_group(sizeof(typename P::Operand)));
  int H, blocks, groups;

  __device__ Units(Index H_, int blocks_) : H(static_cast<int>(H_)), blocks(blocks_), groups(divide_up(H, kGroup)) {}
  __device__ int first_of(int block) const { return kGroup * (block * groups / blocks); }
  __device__ int count_of(int block) const {
    const int last = kGroup * ((block + 1) * groups / blocks);
    return (last < H ? last : H) - first_of(block);
  }
  __device__ int owner_of(int unit) const { return ((unit / kGroup + 1) * blocks - 1) / groups; }
};

// What both directions need of a block.
template <class P, int J>
struct ClusterBlock {
  using S = typename P::State;
  using Operand = typename P::Operand;
  static constexpr int kRows = 8 * J;
  static constexpr int kChunkElements = kChunkBytes / sizeof(Operand);
  static constexpr int kTileElements = kTileChunkBytes / sizeof(Operand);
  static constexpr int kAtOnce = cluster_tiles_at_once(P::kTensorCores);

  const ClusterArguments<P>& a;
  const Units<P> units;
  const int rank, first_unit, own;
  const Index first_row;
  int rows;  // that there are
  Mbarrier* arrivals;
  Packed16* weights;
  Packed16* operand;
  S* sums;

  __device__ explicit ClusterBlock(const ClusterArguments<P>& arguments)
      : a(arguments),
        units(a.sequence.H, a.blocks),
        rank(cluster_rank()),
        first_unit(units.first_of(rank)),
        own(units.count_of(rank)),
        first_row(static_cast<Index>(blockIdx.x) / a.blocks * kRows) {
    const Index left = a.sequence.N - first_row;
    rows = left < kRows ? static_cast<int>(left) : kRows;
    char* const memory = shared_memory<char>();
    arrivals = reinterpret_cast<Mbarrier*>(memory + a.memory.arrivals);
    weights = reinterpret_cast<Packed16*>(memory + a.memory.weights);
    operand = reinterpret_cast<Packed16*>(memory + a.memory.operand);
    sums = reinterpret_cast<S*>(memory + a.memory.sums);
  }

  // Elements of the operand of a slot.
  __device__ Index slot_elements() const { return static_cast<Index>(a.chunks) * kRows * kChunkElements; }
  __device__ Operand* operand_slot(Index phase) const {
    return reinterpret_cast<Operand*>(operand) + phase % 2 * slot_elements();
  }
  __device__ static int place_in_operand(int row, int k) {
    return (k / kChunkElements * kRows + row) * kChunkElements + k % kChunkElements;
  }

  // The columns of Wh that belong to the block's units, as operands; zeros where the weights and both slots of the
  // operand end before their last chunk or tile.
  __device__ void load_weights() const {
    const Sequence<S>& s = a.sequence;
    const Index weight_packs = static_cast<Index>(a.chunks) * a.tiles * 64,
                operand_packs = 2 * slot_elements() / kInPack;
    for (Index i = threadIdx.x; i < weight_packs; i += kTileThreads) weights[i] = Packed16{};
    for (Index i = threadIdx.x; i < operand_packs; i += kTileThreads) operand[i] = Packed16{};
    __syncthreads();
    const bool forward = s.direction == Direction::kForward;
    const int gates = gates_of(s.cell), columns = gates * own;
    Operand* const out = reinterpret_cast<Operand*>(weights);
    constexpr int kAhead = 8;  // loads on their way
    // Weight after weight, kTileThreads apart; divided once, because a division for each takes longer than some steps.
    const int rows_apart = kTileThreads / columns, columns_apart = kTileThreads % columns;
    int row = static_cast<int>(threadIdx.x) / columns, column = static_cast<int>(threadIdx.x) % columns;
    const auto gate_of = [&](int at) {
      return (at >= own ? 1 : 0) + (at >= 2 * own ? 1 : 0) + (at >= 3 * own ? 1 : 0);
    };
    while (row < units.H) {
      S values[kAhead];
      int rows_of[kAhead], columns_of[kAhead];
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        rows_of[ahead] = row;
        columns_of[ahead] = column;
        if (row < units.H) {
          const int gate = gate_of(column), unit = column - gate * own;
          values[ahead] = s.Wh[static_cast<Index>(row) * gates * s.H + s.gate_position[gate] * s.H + first_unit + unit];
        }
        row += rows_apart;
        column += columns_apart;
        if (column >= columns) {
          column -= columns;
          ++row;
        }
      }
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        if (rows_of[ahead] >= units.H) continue;
        const int gate = gate_of(columns_of[ahead]), unit = columns_of[ahead] - gate * own;
        const int block_column = gates * unit + gate;
        const auto m = static_cast<unsigned>(forward ? block_column : rows_of[ahead]);
        const auto k = static_cast<unsigned>(forward ? rows_of[ahead] : block_column);
        const unsigned tile = k / kChunkElements * static_cast<unsigned>(a.tiles) + m / 16;
        const int element = P::element_of(static_cast<int>(m % 16), static_cast<int>(k % kChunkElements));
        out[tile * kTileElements + static_cast<unsigned>(element)] = P::operand(values[ahead]);
      }
    }
  }

  // Sends 16 bytes to where `place` is in another block, or this one, for a phase.
  __device__ void send(Packed16* place, int to, Index phase, const Packed16& value) const {
    if (a.blocks == 1) {
      *place = value;
    } else {
      store_remote(place, arrivals + phase % 2, to, value);
    }
  }
  // The first two phases that receive are 1 and 2.
  __device__ void expect_first(int bytes) const {
    mbarrier_init(arrivals);
    mbarrier_init(arrivals + 1);
    mbarrier_expect(arrivals, bytes);
    mbarrier_expect(arrivals + 1, bytes);
  }
  // Until all that was sent for the phase is here.
  __device__ void receive(Index phase, int bytes) const {
    if (a.blocks == 1) {
      __syncthreads();
      return;
    }
    mbarrier_wait(arrivals + phase % 2, static_cast<int>((phase - 1) / 2 % 2));
    if (threadIdx.x == 0) mbarrier_expect(arrivals + phase % 2, bytes);
    __syncwarp();  // tensor cores want the whole warp
  }

  // The sums of `count` tiles of 16 columns over some chunks, tile_of(0), tile_of(1) ...: take(tile, sums of J rows).
  template <class TileOf, class Take>
  __device__ void multiply(const Packed16* x, int first_chunk, int last_chunk, int count, const TileOf& tile_of,
                           const Take& take) const {
    int done = 0;
    if constexpr (kAtOnce >= 4) done = multiply_some<4>(x, first_chunk, last_chunk, done, count, tile_of, take);
    if constexpr (kAtOnce >= 2) done = multiply_some<2>(x, first_chunk, last_chunk, done, count, tile_of, take);
    multiply_some<1>(x, first_chunk, last_chunk, done, count, tile_of, take);
  }

  // The units of rows that a thread finishes: number threadIdx.x, threadIdx.x + 256 ... of kRows by a.units.
  struct Owned {
    int row, unit;  // of the block
    bool there;
  };
  __device__ Owned owned(int k) const {
    const int number = static_cast<int>(threadIdx.x) + k * kTileThreads;
    const int row = number / a.units, unit = number % a.units;
    return {row, unit, row < rows && unit < own};
  }

 private:
  static constexpr int kInPack = 16 / sizeof(Operand);

  template <int n, class TileOf, class Take>
  __device__ int multiply_some(const Packed16* x, int first_chunk, int last_chunk, int done, int count,
                               const TileOf& tile_of, const Take& take) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (; count - done >= n; done += n) {
      typename P::Accumulator total[n][J] = {};
      const Packed16* tile_weights[n];
#pragma unroll
      for (int m = 0; m < n; ++m) tile_weights[m] = weights + tile_of(done + m) * 64;
#pragma unroll(n* J >= 4 ? 2 : 4)
      for (int chunk = first_chunk; chunk < last_chunk; ++chunk) {
        Packed16 mine[J];
#pragma unroll
        for (int j = 0; j < J; ++j) mine[j] = x[(chunk * J + j) * 32 + lane];
#pragma unroll
        for (int m = 0; m < n; ++m) {
#pragma unroll
          for (int j = 0; j < J; ++j) P::multiply(total[m][j], tile_weights[m] + chunk * a.tiles * 64, mine[j], lane);
        }
      }
#pragma unroll
      for (int m = 0; m < n; ++m) take(tile_of(done + m), total[m]);
    }
    return done;
  }
};

// The 16 bytes of consecutive operands to which this lane's belongs, in all of their lanes.
template <class Operand>
__device__ Packed16 gather_pack(Operand mine) {
  constexpr int kLanes = 16 / sizeof(Operand);
  const int lane = static_cast<int>(threadIdx.x) % 32, first = lane & ~(kLanes - 1);
  Packed16 pack;
  if constexpr (sizeof(Operand) == 2) {
    const std::uint32_t bits = mine, other = shuffle_xor(bits, 1);
    const std::uint32_t pair = lane % 2 == 0 ? bits | other << 16 : other | bits << 16;
    pack = {shuffle(pair, first), shuffle(pair, first + 2), shuffle(pair, first + 4), shuffle(pair, first + 6)};
  } else {
    Operand all[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) all[i] = shuffle(mine, first + i);
    std::memcpy(&pack, all, sizeof pack);
  }
  return pack;
}

template <class P, int J>
__global__ void __launch_bounds__(kTileThreads, 1) run_cluster_forward(ClusterArguments<P> a) {
#if defined(FASTLSTM_CLUSTERS)
  using S = typename P::State;
  using Operand = typename P::Operand;
  using Block = ClusterBlock<P, J>;
  constexpr int kRows = Block::kRows, kInPack = 16 / sizeof(Operand);
  const Sequence<S>& s = a.sequence;
  const Block block(a);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int bytes = block.rows * divide_up(block.units.H, kInPack) * 16;

  if (threadIdx.x == 0) block.expect_first(bytes);
  block.load_weights();
  if (s.h0) {
    Operand* const first = block.operand_slot(0);
    for (int i = static_cast<int>(threadIdx.x); i < block.rows * block.units.H; i += kTileThreads) {
      const int row = i / block.units.H, unit = i % block.units.H;
      first[Block::place_in_operand(row, unit)] = P::operand(s.h0[(block.first_row + row) * s.H + unit]);
    }
  }
  typename Block::Owned owned[kMostOwned];
  Carried<S> carried[kMostOwned];
#pragma unroll
  for (int k = 0; k < kMostOwned; ++k) {
    owned[k] = block.owned(k);
    const auto [row, unit, there] = owned[k];
    if (there) carried[k] = initial_state(s, block.first_row + row, block.first_unit + unit);
  }
  cluster_barrier();  // all mbarriers and slots are ready

  const int gates = gates_of(s.cell), stride = 16 * a.tiles + 4;
  const int warp_groups = kWarps / a.k_parts, warp_group = warp % warp_groups, k_part = warp / warp_groups;
  const int first_chunk = a.chunks * k_part / a.k_parts, last_chunk = a.chunks * (k_part + 1) / a.k_parts;
  const int tiles_of_warp = divide_up(a.tiles - warp_group, warp_groups);
  S* const part = block.sums + k_part * kRows * stride;
  for (Index phase = 0; phase < s.T; ++phase) {
    Inputs<S> inputs[kMostOwned];
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      const auto [row, unit, there] = owned[k];
      if (there) inputs[k] = load_inputs(s, phase, block.first_row + row, block.first_unit + unit);
    }
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      if (owned[k].there) add_bias(s, block.first_unit + owned[k].unit, inputs[k]);
    }
    if (phase > 0) block.receive(phase, bytes);

    // Nobody reads the sums of the phase before any more: what was received has come from all threads that did.
    block.multiply(
        reinterpret_cast<const Packed16*>(block.operand_slot(phase)), first_chunk, last_chunk, tiles_of_warp,
        [&](int i) { return warp_group + i * warp_groups; },
        [&](int tile, typename P::Accumulator(&total)[J]) {
#pragma unroll
          for (int j = 0; j < J; ++j) P::store(total[j], part + 8 * j * stride + 16 * tile, stride, lane);
        });
    __syncthreads();

#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      if (k * kTileThreads >= kRows * a.units) break;
      const auto [row, unit, there] = owned[k];
      Operand h = P::operand(S(0));
      if (there) {
        S product[4] = {};
        const S* sum = block.sums + row * stride + unit * gates;
        for (int part_of_k = 0; part_of_k < a.k_parts; ++part_of_k, sum += kRows * stride) {
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            if (q < gates) product[q] += sum[q];
          }
        }
        step_forward(s, inputs[k], product, carried[k]);
        h = P::operand(carried[k].h);
      }
      // Lanes with the same 16 bytes share the blocks to which these go; each block begins with itself.
      const Packed16 pack = gather_pack(h);
      const int first_of_pack = unit & ~(kInPack - 1);
      if (phase + 1 < s.T && row < block.rows && first_of_pack < block.own) {
        auto* const place = reinterpret_cast<Packed16*>(block.operand_slot(phase + 1) +
                                                        Block::place_in_operand(row, block.first_unit + first_of_pack));
        for (int i = lane % kInPack; i < a.blocks; i += kInPack) {
          block.send(place, (block.rank + i) & (a.blocks - 1), phase + 1, pack);
        }
      }
    }
    // Others wait for what was sent; nobody for this.
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      const auto [row, unit, there] = owned[k];
      if (there) store_forward(s, phase, block.first_row + row, block.first_unit + unit, inputs[k], carried[k]);
    }
  }
  cluster_barrier();  // nobody leaves before all have received everything
#else
  static_cast<void>(a);
  trap();
#endif
}

template <class P, int J>
__global__ void __launch_bounds__(kTileThreads, 1) run_cluster_backward(ClusterArguments<P> a) {
#if defined(FASTLSTM_CLUSTERS)
  using S = typename P::State;
  using Operand = typename P::Operand;
  using Block = ClusterBlock<P, J>;
  constexpr int kRows = Block::kRows, kInPack = 16 / sizeof(S);  // of shares of dh
  constexpr int kStride = 16 + 4;
  const Sequence<S>& s = a.sequence;
  const Block block(a);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int bytes = a.blocks * block.rows * divide_up(block.own, kInPack) * 16;
  S* const inbox = reinterpret_cast<S*>(shared_memory<char>() + a.memory.inbox);  // [2][blocks][kRows][units]
  const int share = kRows * a.units, slot = a.blocks * share;

  if (threadIdx.x == 0) block.expect_first(bytes);
  block.load_weights();
  typename Block::Owned owned[kMostOwned];
  Carried<S> carried[kMostOwned];
#pragma unroll
  for (int k = 0; k < kMostOwned; ++k) {
    owned[k] = block.owned(k);
    const auto [row, unit, there] = owned[k];
    if (there) carried[k] = initial_state(s, block.first_row + row, block.first_unit + unit);
  }
  cluster_barrier();

  const int gates = gates_of(s.cell);
  const int first_tile = block.first_unit / 16;  // its own units first, so that not all send to the same block
  S* const mine = block.sums + warp * kRows * kStride;
  for (Index phase = 0; phase <= s.T; ++phase) {
    Inputs<S> inputs[kMostOwned];
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      const auto [row, unit, there] = owned[k];
      if (there) inputs[k] = load_inputs(s, phase, block.first_row + row, block.first_unit + unit);
    }
    if (phase > 0) block.receive(phase, bytes);

    // Two slots for dz as well: other warps may still multiply that of the phase before.
    Operand* const dz = block.operand_slot(phase);
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      const auto [row, unit, there] = owned[k];
      if (!there) continue;
      S dh = 0;
      if (phase > 0) {
        const S* from = inbox + phase % 2 * slot + row * a.units + unit;
        for (int i = 0; i < a.blocks; ++i) dh += from[i * share];
      }
      step_backward(s, phase, inputs[k], dh, carried[k]);
      if (phase == s.T) continue;
      Operand* const here = dz + Block::place_in_operand(row, gates * unit);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        if (q < gates) here[q] = P::operand(inputs[k].gates[q]);
      }
    }
    if (phase < s.T) {
      __syncthreads();
      S* const next = inbox + (phase + 1) % 2 * slot + block.rank * share;
      block.multiply(
          reinterpret_cast<const Packed16*>(dz), 0, a.chunks, divide_up(a.tiles - warp, kWarps),
          [&](int i) {
            const int tile = first_tile + warp + i * kWarps;
            return tile < a.tiles ? tile : tile - a.tiles;
          },
          [&](int tile, typename P::Accumulator(&total)[J]) {
#pragma unroll
            for (int j = 0; j < J; ++j) P::store(total[j], mine + 8 * j * kStride, kStride, lane);
            __syncwarp();
            constexpr int kOfRow = 16 / kInPack;
            const int unit = 16 * tile + lane % kOfRow * kInPack;
            if (unit < block.units.H) {
              const int to = block.units.owner_of(unit), owned_unit = unit - block.units.first_of(to);
              for (int row = lane / kOfRow; row < block.rows; row += 32 / kOfRow) {
                block.send(reinterpret_cast<Packed16*>(next + row * a.units + owned_unit), to, phase + 1,
                           *reinterpret_cast<const Packed16*>(mine + row * kStride + lane % kOfRow * kInPack));
              }
            }
            __syncwarp();
          });
    }
    // Others wait for what was sent; nobody for this.
#pragma unroll
    for (int k = 0; k < kMostOwned; ++k) {
      const auto [row, unit, there] = owned[k];
      if (there) store_backward(s, phase, block.first_row + row, block.first_unit + unit, inputs[k], carried[k]);
    }
  }
  cluster_barrier();
#else
  static_cast<void>(a);
  trap();
#endif
}

}  // namespace fastlstm::cuda
