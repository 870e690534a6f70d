// Chooses the kernel of a sequence, its tiles and memory: plain C++, tested without a GPU.
#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cost.h"
#include "plan.h"

namespace fastlstm::cuda {

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
  const bool plain = plan.kernel == Kernel::kPlain;
  const Index state = p.N * p.H * state_bytes(p.precision);
  plan.exchange_at = place(tiles   ? 2 * rows * plan.exchange_chunks * kChunkBytes
                           : plain ? 2 * gates_of(p.cell) * state
                                   : 0);
  plan.state_at = place(tiles || plain ? 2 * state : 0);
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

// What may be asked of a kernel, for tests and measurements: the columns of a tile or the blocks of a cluster, and the
// rows of either; 0 is any.
struct Shape {
  int width = 0, rows = 0;
};

inline std::optional<Plan> best_tile(const Problem& p, const Device& device, Kernel kernel, Shape asked) {
  std::optional<Plan> best;
  for (const Tile tile : tiles_of(p.precision)) {
    if ((asked.width != 0 && asked.width != 16 * tile.M) || (asked.rows != 0 && asked.rows != 8 * tile.J)) continue;
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
      const int in_registers = row_registers(width, rows);
      // Weights that are not in registers; x: h, or dz of four gates; the sums of four gates; the bias.
      plan.shared_bytes = 4 * (4 * width * (width - in_registers) + rows * 4 * width + rows * 4 * width + 4 * width);
      if (plan.shared_bytes > device.shared_bytes) return std::nullopt;
      place_workspace(p, plan);
      return plan;
    }
  }
  return std::nullopt;
}

inline Plan plan_plain(const Problem& p) {
  Plan plan{};
  plan.kernel = Kernel::kPlain;
  plan.tile = {static_cast<int>(p.H), 1};
  plan.units = p.H;
  plan.unit_blocks = 1;
  plan.row_blocks = plan.pass_blocks = p.N;
  place_workspace(p, plan);
  return plan;
}

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

inline std::optional<Plan> best_cluster(const Problem& p, const Device& device, Shape asked) {
  if (p.cell != Cell::kLstm && p.cell != Cell::kRnn) return std::nullopt;
  std::optional<Plan> best;
  for (const int blocks : kClusterSizes) {
    if (blocks > std::min(device.largest_cluster, device.multiprocessors)) break;
    if (asked.width != 0 && asked.width != blocks) continue;
    for (const int J : cluster_Js_of(p.precision)) {
      if (asked.rows != 0 && asked.rows != 8 * J) continue;
      const std::optional<Plan> plan = plan_cluster(p, device, blocks, J);
      if (plan && (!best || cluster_step_cycles(p, *plan) < cluster_step_cycles(p, *best))) best = plan;
    }
  }
  return best;
}

inline std::string why_no_cluster(const Problem& p, const Device& device, Shape asked) {
  if (p.cell != Cell::kLstm && p.cell != Cell::kRnn) return "the cluster kernel takes LSTMs and RNNs, not GRUs";
  if (device.largest_cluster == 0) {
    return "the cluster kernel needs a GPU of compute capability 9.0 or later";
  }
  if (asked.width != 0 || asked.rows != 0) {
    return "no cluster of " + std::to_string(asked.width) + " blocks and " + std::to_string(asked.rows) +
           " rows holds the units of H = " + std::to_string(p.H) + " here (0: any)";
  }
  return "the cluster kernel keeps all recurrent weights in the shared memory of up to " +
         std::to_string(device.largest_cluster) + " blocks of " + std::to_string(device.shared_bytes) +
         " bytes; those of H = " + std::to_string(p.H) + " do not fit";
}

inline std::string why_no_tile(Shape asked) {
  return "no tile of " + std::to_string(asked.width) + " columns and " + std::to_string(asked.rows) +
         " rows was compiled and fits on the device (0: any)";
}

// The choice:
//   float32 LSTM, H <= 128                                    rows
//   T > 1, and a step is estimated to be shortest there:
//     the weights fit into the shared memory of a cluster     cluster
//     the units fit on the multiprocessors                    persistent
//   else                                                      step, and where it does not fit, plain
// `asked` overrides it, for tests and measurements; it is an error where that kernel cannot run the problem.
inline Plan make_plan(const Problem& p, const Device& device, std::optional<Kernel> asked = std::nullopt,
                      Shape shape = {}) {
  if (asked == Kernel::kPlain) return plan_plain(p);
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
    const std::optional<Plan> persistent = best_tile(p, device, Kernel::kPersistent, shape);
    if (!plan || (persistent && step_cycles(p, *persistent, device) < step_cycles(p, *plan, device))) plan = persistent;
  }
  if (!plan && asked == Kernel::kPersistent) {
    if (shape.width != 0 || shape.rows != 0) throw std::invalid_argument(why_no_tile(shape));
    throw std::invalid_argument("the units of H = " + std::to_string(p.H) + " do not fit on " +
                                std::to_string(device.multiprocessors) + " multiprocessors at a time");
  }
  if (!plan) plan = best_tile(p, device, Kernel::kStep, shape);
  if (!plan && asked) throw std::invalid_argument(why_no_tile(shape));
  return plan ? *plan : plan_plain(p);
}

}  // namespace fastlstm::cuda
