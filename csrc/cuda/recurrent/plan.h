// Which kernel runs a sequence, in which tiles, with how much memory: plain C++, tested without a GPU.
//
// One step of a recurrence is a product with the recurrent weights and the cell's arithmetic:
//   forward   z (N, gates H) = h (N, H) Wh           the columns of a block of units are its units' gates
//   backward  dh (N, H)      = dz (N, gates H) Wh^T  its columns are the units themselves
// A GRU whose reset gate stands before the product with Wh takes two such products a step, one after the other: its
// step has two parts. A tile is what a block of threads computes in a part: 16 M columns by 8 J rows, M and J
// compile-time constants. Along K, weights and states lie in chunks of 64 bytes; an M-tile's 16 columns of a chunk are
// 1024 bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../lstm_cell.h"
#include "../device/index.h"

namespace fastlstm::cuda {

enum class Cell { kLstm, kRnn, kGruResetAfter, kGruResetBefore };
enum class Direction { kForward, kBackward };
enum class Precision { kFloat32, kFloat64, kTf32, kBf16 };
enum class Kernel {
  kStep,        // one launch a step; the weights come from L2
  kPersistent,  // one cooperative launch a sequence; weights stay in shared memory, blocks of the same rows wait for
                // each other once a step
  kRows,        // one launch a sequence; a block owns some rows and all units, and waits for nobody
  kCluster,     // one launch a sequence; a cluster of blocks owns some rows and all units, with all weights in the
                // shared memory of its blocks, which send each other what they computed. Hopper
};

// A product's gates: forward those it is summed for, backward those whose gradients it takes. Their order is i, f, g, o
// or z, r, n.
struct Part {
  int first_gate, gates;
};

inline constexpr int kMostParts = 2;

FASTLSTM_HOST_DEVICE inline int parts_of(Cell cell) { return cell == Cell::kGruResetBefore ? 2 : 1; }
FASTLSTM_HOST_DEVICE inline int gates_of(Cell cell) { return cell == Cell::kLstm ? 4 : cell == Cell::kRnn ? 1 : 3; }
FASTLSTM_HOST_DEVICE inline Part part_of(Cell cell, int part) {
  if (cell != Cell::kGruResetBefore) return {0, gates_of(cell)};
  return part == 0 ? Part{0, 2} : Part{2, 1};  // z and r; then n, of r h or, backward, to it
}
FASTLSTM_HOST_DEVICE inline bool is_gru(Cell cell) {
  return cell == Cell::kGruResetAfter || cell == Cell::kGruResetBefore;
}

struct Device {
  int multiprocessors;
  Index shared_bytes;   // most that a block may ask for
  int largest_cluster;  // with so much shared memory a block; 0 where the cluster kernel cannot run
};

struct Problem {
  Cell cell;
  Direction direction;
  Precision precision;
  Index N, T, H;
};

struct Tile {
  int M, J;
};

inline constexpr int kTileThreads = 256;
inline constexpr int kWarps = kTileThreads / 32;
inline constexpr Index kChunkBytes = 64;
inline constexpr Index kTileChunkBytes = 16 * kChunkBytes;
// From counter to counter of a barrier between blocks: a line of L2 each, so that rows do not wait for other rows'.
inline constexpr Index kCounterBytes = 128, kCounterStride = kCounterBytes / static_cast<Index>(sizeof(unsigned));

// Compiled tiles. Accumulators of exact products take four times the registers of those of the tensor cores, and
// float64 twice as many again.
inline constexpr Tile kTensorTiles[] = {{1, 1}, {1, 2}, {1, 4}, {1, 8}, {2, 1}, {2, 2},
                                        {2, 4}, {2, 8}, {3, 4}, {4, 1}, {4, 2}};
inline constexpr Tile kFloat32Tiles[] = {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {4, 1}};
inline constexpr Tile kFloat64Tiles[] = {{1, 1}, {1, 2}, {2, 1}};

// The row kernel: the width that H is padded to, and the rows of a block.
inline constexpr int kRowWidths[] = {32, 64, 96, 128};
inline constexpr int kRowCounts[] = {1, 2, 4};

// A thread owns at most so many units of rows. The largest tiles are for the LSTM's forward pass, whose units have four
// columns.
inline constexpr int kMostOwned = 4;

// Of the row kernel's weights, all H of a column, so many stay in a thread's registers; the rest in shared memory.
inline constexpr int kMostRowRegisters = 96, kRowRegistersBeyond = 64;

// The cluster kernel: blocks of a cluster, and J of a row group. Float64 accumulators leave room for one.
inline constexpr int kClusterSizes[] = {1, 2, 4, 8, 16};
inline constexpr int kClusterJs[] = {1, 2, 4}, kFloat64ClusterJs[] = {1};

// A warp's tiles that share a load of the rows, powers of 2. Exact products have registers for one.
FASTLSTM_HOST_DEVICE constexpr int cluster_tiles_at_once(bool tensor_cores, int J) {
  return !tensor_cores ? 1 : J == 4 ? 2 : 4;
}

// Where things lie in the shared memory of a block of a cluster, in bytes.
struct ClusterMemory {
  Index arrivals;  // the mbarriers of two slots
  Index weights;   // [chunk][tile][64 packs]
  Index operand;  // [slot][chunk][row][64 bytes]: forward h of all units, as it arrives; backward dz of the block's own
  Index inbox;    // backward: [slot][block it came from][row][unit], shares of dh
  Index sums;     // forward [part of K][row][column]; backward [warp][row][column of a tile]
  Index bytes;
};

struct PlannedPart {
  int M;            // tiles of 16 columns
  Index chunks;     // along K
  Index resident;   // of them in shared memory for the whole sequence
  Index packed_at;  // in the workspace, in bytes
};

struct Plan {
  Kernel kernel;
  Tile tile;          // rows kernel: {width, rows}
  int threads;        // a block
  Index units;        // a block, at most
  Index unit_blocks;  // blocks that share rows; a cluster
  Index row_blocks;   // in all
  Index pass_blocks;  // row blocks that run at a time
  int part_count;
  PlannedPart parts[kMostParts];
  Index exchange_chunks;  // of a row of an operand
  int k_parts;            // cluster kernel, forward: the warps' shares of K
  ClusterMemory memory;   // cluster kernel
  Index shared_bytes;     // a block
  // Places in the workspace, in bytes.
  Index exchange_at, state_at, counters_at, workspace_bytes;
};

// Of an operand of the product, and of the states and sums.
inline Index operand_bytes(Precision p) { return p == Precision::kFloat64 ? 8 : p == Precision::kBf16 ? 2 : 4; }
inline Index state_bytes(Precision p) { return p == Precision::kFloat64 ? 8 : 4; }
constexpr bool on_tensor_cores(Precision p) { return p == Precision::kTf32 || p == Precision::kBf16; }

// Calls body<p>() for a precision that is known when the program runs.
template <class Body>
auto with_precision(Precision p, const Body& body) {
  switch (p) {
    case Precision::kFloat32:
      return body.template operator()<Precision::kFloat32>();
    case Precision::kFloat64:
      return body.template operator()<Precision::kFloat64>();
    case Precision::kTf32:
      return body.template operator()<Precision::kTf32>();
    default:
      return body.template operator()<Precision::kBf16>();
  }
}

template <Precision p>
constexpr const auto& compiled_tiles() {
  if constexpr (on_tensor_cores(p)) {
    return kTensorTiles;
  } else if constexpr (p == Precision::kFloat32) {
    return kFloat32Tiles;
  } else {
    return kFloat64Tiles;
  }
}
template <Precision p>
constexpr const auto& compiled_cluster_Js() {
  if constexpr (p == Precision::kFloat64) {
    return kFloat64ClusterJs;
  } else {
    return kClusterJs;
  }
}

inline std::vector<Tile> tiles_of(Precision precision) {
  return with_precision(precision, []<Precision p>() {
    const auto& tiles = compiled_tiles<p>();
    return std::vector<Tile>(std::begin(tiles), std::end(tiles));
  });
}
inline std::vector<int> cluster_Js_of(Precision precision) {
  return with_precision(precision, []<Precision p>() {
    const auto& Js = compiled_cluster_Js<p>();
    return std::vector<int>(std::begin(Js), std::end(Js));
  });
}

// Columns of a unit in a product.
inline int columns_of(const Problem& p, int part) {
  return p.direction == Direction::kForward ? part_of(p.cell, part).gates : 1;
}
// The first part has the most columns.
inline Index units_of(const Problem& p, Tile tile) { return 16 * tile.M / columns_of(p, 0); }
inline Index width_of_product(const Problem& p, int part) {
  return p.direction == Direction::kBackward ? part_of(p.cell, part).gates * p.H : p.H;
}
// Sums of the warps' shares of K: [warp][row][column], rows apart by 4 more than their columns (see tile.h).
inline Index partial_bytes(Precision p, Tile tile) { return kWarps * 8 * tile.J * (16 * tile.M + 4) * state_bytes(p); }

// What a step costs, in clock cycles. Rates of an H100 or H200, per multiprocessor, as published; only their order of
// magnitude matters here, which decides between tiles and kernels.
inline constexpr double kSharedRate = 128, kL2Rate = 40;  // bytes a cycle
inline constexpr double kBarrier = 2000, kLaunch = 4000;  // cycles
// Guesses, to be measured (benchmarks/gpu_latencies.cu): between blocks of a cluster, the way of a store, and the bytes
// that a block takes in a cycle.
inline constexpr double kPush = 700, kPushRate = 32;

inline double arithmetic_rate(Precision p) {
  return p == Precision::kBf16 ? 1024 : p == Precision::kTf32 ? 512 : p == Precision::kFloat32 ? 128 : 64;
}

inline double tile_step_cycles(const Problem& p, const Plan& plan, const Device& device) {
  const double rows = 8.0 * plan.tile.J;
  const double operands = kChunkBytes / static_cast<double>(operand_bytes(p.precision));  // of a chunk
  double cycles = 0;
  for (int part = 0; part < plan.part_count; ++part) {
    const PlannedPart& planned = plan.parts[part];
    const double weights = static_cast<double>(kTileChunkBytes * planned.M);
    const double chunks = static_cast<double>(planned.chunks), resident = static_cast<double>(planned.resident);
    const double read = weights * (resident / kSharedRate + (chunks - resident) / kL2Rate);
    const double exchanged = rows * chunks * static_cast<double>(kChunkBytes) / kL2Rate;
    const double arithmetic = 16.0 * planned.M * rows * chunks * operands / arithmetic_rate(p.precision);
    const double block = std::max(read + exchanged, arithmetic);
    if (plan.kernel == Kernel::kPersistent) {
      const double passes = static_cast<double>(divide_up(plan.row_blocks, plan.pass_blocks));
      cycles += passes * (block + (plan.unit_blocks > 1 ? kBarrier : 0));
    } else {
      const Index blocks = plan.unit_blocks * plan.row_blocks;
      cycles += kLaunch + block * static_cast<double>(divide_up(blocks, device.multiprocessors));
    }
  }
  return cycles;
}

inline double cluster_step_cycles(const Problem& p, const Plan& plan) {
  const PlannedPart& part = plan.parts[0];
  const Index rows = 8 * plan.tile.J, warp_groups = kWarps / plan.k_parts;
  // As if all warps had as many tiles and chunks as the one that has most.
  const Index tiles_of_warp = divide_up(part.M, warp_groups);
  const Index tiles = tiles_of_warp * warp_groups, chunks = divide_up(part.chunks, plan.k_parts) * plan.k_parts;
  const Index turns = divide_up(tiles_of_warp, cluster_tiles_at_once(on_tensor_cores(p.precision), plan.tile.J));
  const Index weights = tiles * chunks * kTileChunkBytes;
  const Index operand = warp_groups * turns * chunks * rows * kChunkBytes;
  const Index sums = 2 * plan.k_parts * rows * 16 * part.M * state_bytes(p.precision);
  const double read = static_cast<double>(weights + operand + sums) / kSharedRate;
  const double arithmetic = static_cast<double>(16 * tiles * rows * chunks * kChunkBytes) /
                            static_cast<double>(operand_bytes(p.precision)) / arithmetic_rate(p.precision);
  const bool forward = p.direction == Direction::kForward;
  const Index pushed = rows * p.H * (forward ? operand_bytes(p.precision) : state_bytes(p.precision));
  const double exchange = plan.unit_blocks == 1 ? 0 : kPush + static_cast<double>(pushed) / kPushRate;
  return static_cast<double>(divide_up(plan.row_blocks, plan.pass_blocks)) * (std::max(read, arithmetic) + exchange);
}

inline double step_cycles(const Problem& p, const Plan& plan, const Device& device) {
  return plan.kernel == Kernel::kCluster ? cluster_step_cycles(p, plan) : tile_step_cycles(p, plan, device);
}

inline void place_workspace(const Problem& p, Plan& plan) {
  Index at = 0;
  const auto place = [&](Index bytes) {
    const Index here = at;
    at = round_up(at + bytes, kAlignment);
    return here;
  };
  const bool tiles = plan.kernel == Kernel::kStep || plan.kernel == Kernel::kPersistent;
  const Index rows = plan.row_blocks * 8 * plan.tile.J;
  for (PlannedPart& part : plan.parts) {
    part.packed_at = place(tiles ? plan.unit_blocks * part.chunks * part.M * kTileChunkBytes : 0);
  }
  plan.exchange_at = place(tiles ? 2 * rows * plan.exchange_chunks * kChunkBytes : 0);
  plan.state_at = place(tiles ? 2 * p.N * p.H * state_bytes(p.precision) : 0);
  plan.counters_at = place(tiles ? plan.row_blocks * kCounterBytes : 0);
  plan.workspace_bytes = at;
}

// The plan with this kernel and tile; none if it does not fit on the device.
inline std::optional<Plan> plan_tile(const Problem& p, const Device& device, Kernel kernel, Tile tile) {
  Plan plan{};
  plan.kernel = kernel;
  plan.tile = tile;
  plan.threads = kTileThreads;
  plan.units = units_of(p, tile);
  plan.unit_blocks = divide_up(p.H, plan.units);
  plan.row_blocks = divide_up(p.N, 8 * tile.J);
  plan.pass_blocks = plan.row_blocks;
  plan.part_count = parts_of(p.cell);
  for (int part = 0; part < plan.part_count; ++part) {
    PlannedPart& planned = plan.parts[part];
    planned.M = static_cast<int>(divide_up(plan.units * columns_of(p, part), 16));
    planned.chunks = divide_up(width_of_product(p, part) * operand_bytes(p.precision), kChunkBytes);
    plan.exchange_chunks = std::max(plan.exchange_chunks, planned.chunks);
  }
  plan.shared_bytes = partial_bytes(p.precision, tile);
  if (plan.shared_bytes > device.shared_bytes) return std::nullopt;
  if (plan.units * 8 * tile.J > kMostOwned * kTileThreads) return std::nullopt;
  if (kernel == Kernel::kPersistent) {
    // All blocks of a launch wait for each other, so all have to run at once: one a multiprocessor.
    if (plan.unit_blocks > device.multiprocessors) return std::nullopt;
    plan.pass_blocks = std::min<Index>(plan.row_blocks, device.multiprocessors / plan.unit_blocks);
    for (int part = 0; part < plan.part_count; ++part) {
      PlannedPart& planned = plan.parts[part];
      const Index chunk_bytes = planned.M * kTileChunkBytes;
      planned.resident = std::min(planned.chunks, (device.shared_bytes - plan.shared_bytes) / chunk_bytes);
      plan.shared_bytes += planned.resident * chunk_bytes;
    }
  }
  place_workspace(p, plan);
  return plan;
}

inline std::optional<Plan> best_tile(const Problem& p, const Device& device, Kernel kernel) {
  std::optional<Plan> best;
  for (const Tile tile : tiles_of(p.precision)) {
    const std::optional<Plan> plan = plan_tile(p, device, kernel, tile);
    if (plan && (!best || step_cycles(p, *plan, device) < step_cycles(p, *best, device))) best = plan;
  }
  return best;
}

inline std::optional<Plan> plan_rows(const Problem& p, const Device& device) {
  if (p.cell != Cell::kLstm || p.precision != Precision::kFloat32) return std::nullopt;
  for (const int width : kRowWidths) {
    if (width < p.H) continue;
    for (const int rows : kRowCounts) {
      if (divide_up(p.N, rows) > device.multiprocessors && rows != kRowCounts[std::size(kRowCounts) - 1]) continue;
      Plan plan{};
      plan.kernel = Kernel::kRows;
      plan.tile = {width, rows};
      plan.threads = 4 * width;
      plan.units = p.H;
      plan.unit_blocks = 1;
      plan.row_blocks = plan.pass_blocks = divide_up(p.N, rows);
      const int in_registers = width <= kMostRowRegisters ? width : kRowRegistersBeyond;
      // Weights that are not in registers; x: h, or dz of four gates; the sums of four gates; the bias.
      plan.shared_bytes = 4 * (4 * width * (width - in_registers) + rows * 4 * width + rows * 4 * width + 4 * width);
      if (plan.shared_bytes > device.shared_bytes) return std::nullopt;
      place_workspace(p, plan);
      return plan;
    }
  }
  return std::nullopt;
}

// Units come to the blocks of a cluster in groups whose operands fill 16 bytes, what a store sends, and whose columns
// fill a tile.
constexpr Index unit_group(Index operand_bytes) { return operand_bytes < 4 ? 8 : 4; }

// Clusters that run at a time, one block a multiprocessor. A GPC of a Hopper, within which a cluster stays, has 16 or
// 18 of these: one cluster of 16.
inline Index clusters_at_once(const Device& device, int blocks) {
  constexpr int kOfGpc = 18;
  const Index most = device.multiprocessors / (blocks > 8 ? kOfGpc : blocks);
  return std::max<Index>(most, 1);
}

inline ClusterMemory cluster_memory(const Problem& p, const Plan& plan) {
  const bool forward = p.direction == Direction::kForward;
  const PlannedPart& part = plan.parts[0];
  const Index rows = 8 * plan.tile.J, state = state_bytes(p.precision);
  ClusterMemory memory{};
  const auto place = [&](Index& at, Index bytes) {
    at = memory.bytes;
    memory.bytes += round_up(bytes, 16);
  };
  place(memory.arrivals, 2 * 8);
  place(memory.weights, part.chunks * part.M * kTileChunkBytes);
  place(memory.operand, 2 * part.chunks * rows * kChunkBytes);
  place(memory.inbox, forward ? 0 : 2 * plan.unit_blocks * rows * plan.units * state);
  place(memory.sums, (forward ? plan.k_parts * rows * (16 * part.M + 4) : kWarps * rows * (16 + 4)) * state);
  return memory;
}

// The plan with clusters of so many blocks and this J; none if it does not fit on the device.
inline std::optional<Plan> plan_cluster(const Problem& p, const Device& device, int blocks, int J) {
  const Index group = unit_group(operand_bytes(p.precision)), groups = divide_up(p.H, group);
  if (groups < blocks) return std::nullopt;  // every block has units: that it sends some says how far it is
  const bool forward = p.direction == Direction::kForward;
  Plan plan{};
  plan.kernel = Kernel::kCluster;
  plan.threads = kTileThreads;
  plan.units = group * divide_up(groups, blocks);
  if (8 * J * plan.units > kMostOwned * kTileThreads) return std::nullopt;
  plan.unit_blocks = blocks;
  plan.row_blocks = divide_up(p.N, 8 * J);
  plan.pass_blocks = std::min(plan.row_blocks, clusters_at_once(device, blocks));
  plan.part_count = 1;
  PlannedPart& part = plan.parts[0];
  const Index width = gates_of(p.cell) * plan.units;
  part.M = static_cast<int>(divide_up(forward ? width : p.H, 16));
  part.chunks = part.resident = divide_up((forward ? p.H : width) * operand_bytes(p.precision), kChunkBytes);
  plan.tile = {part.M, J};
  std::optional<Plan> best;
  for (plan.k_parts = 1; plan.k_parts <= (forward ? kWarps : 1); plan.k_parts *= 2) {
    plan.memory = cluster_memory(p, plan);
    plan.shared_bytes = plan.memory.bytes;
    const bool fits = plan.shared_bytes <= device.shared_bytes;
    if (fits && (!best || cluster_step_cycles(p, plan) < cluster_step_cycles(p, *best))) best = plan;
  }
  return best;
}

// What may be asked of a cluster kernel; 0 is any.
struct ClusterShape {
  int blocks = 0, rows = 0;
};

inline std::optional<Plan> best_cluster(const Problem& p, const Device& device, ClusterShape asked) {
  if (p.cell != Cell::kLstm && p.cell != Cell::kRnn) return std::nullopt;
  std::optional<Plan> best;
  for (const int blocks : kClusterSizes) {
    if (blocks > std::min(device.largest_cluster, device.multiprocessors)) break;
    if (asked.blocks != 0 && asked.blocks != blocks) continue;
    for (const int J : cluster_Js_of(p.precision)) {
      if (asked.rows != 0 && asked.rows != 8 * J) continue;
      const std::optional<Plan> plan = plan_cluster(p, device, blocks, J);
      if (plan && (!best || cluster_step_cycles(p, *plan) < cluster_step_cycles(p, *best))) best = plan;
    }
  }
  return best;
}

inline std::string why_no_cluster(const Problem& p, const Device& device, ClusterShape asked) {
  if (p.cell != Cell::kLstm && p.cell != Cell::kRnn) return "the cluster kernel takes LSTMs and RNNs, not GRUs";
  if (device.largest_cluster == 0) {
    return "the cluster kernel needs a GPU of compute capability 9.x, with machine code for it in the module";
  }
  if (asked.blocks != 0 || asked.rows != 0) {
    return "no cluster of " + std::to_string(asked.blocks) + " blocks and " + std::to_string(asked.rows) +
           " rows holds the units of H = " + std::to_string(p.H) + " here (0: any)";
  }
  return "the cluster kernel keeps all recurrent weights in the shared memory of up to " +
         std::to_string(device.largest_cluster) + " blocks of " + std::to_string(device.shared_bytes) +
         " bytes; those of H = " + std::to_string(p.H) + " do not fit";
}

// The choice:
//   float32 LSTM, H <= 128                                    rows
//   T > 1, and a step is estimated to be shortest there:
//     the weights fit into the shared memory of a cluster     cluster
//     the units fit on the multiprocessors                    persistent
//   else                                                      step
// `asked` overrides it, for tests and measurements; it is an error where that kernel cannot run the problem.
inline Plan make_plan(const Problem& p, const Device& device, std::optional<Kernel> asked = std::nullopt,
                      ClusterShape shape = {}) {
  const bool sequence = !asked && p.T > 1;
  std::optional<Plan> plan;
  if (!asked || asked == Kernel::kRows) plan = plan_rows(p, device);
  if (!plan && asked == Kernel::kRows) {
    throw std::invalid_argument("the row kernel takes float32 LSTMs with H <= 128, got H = " + std::to_string(p.H) +
                                ", or a block may not use enough shared memory here");
  }
  if (!plan && (asked == Kernel::kCluster || sequence)) plan = best_cluster(p, device, shape);
  if (!plan && asked == Kernel::kCluster) throw std::invalid_argument(why_no_cluster(p, device, shape));
  if (asked == Kernel::kPersistent || (sequence && (!plan || plan->kernel == Kernel::kCluster))) {
    const std::optional<Plan> persistent = best_tile(p, device, Kernel::kPersistent);
    if (!plan || (persistent && step_cycles(p, *persistent, device) < step_cycles(p, *plan, device))) plan = persistent;
  }
  if (!plan && asked == Kernel::kPersistent) {
    throw std::invalid_argument("the units of H = " + std::to_string(p.H) + " do not fit on " +
                                std::to_string(device.multiprocessors) + " multiprocessors at a time");
  }
  if (!plan) plan = best_tile(p, device, Kernel::kStep);
  if (!plan) {
    throw std::invalid_argument("a block may use " + std::to_string(device.shared_bytes) +
                                " bytes of shared memory, too few for any kernel");
  }
  return *plan;
}

}  // namespace fastlstm::cuda
