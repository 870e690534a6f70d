// What a step of a plan costs, as an estimate.
#pragma once

#include <algorithm>

#include "plan.h"

namespace fastlstm::cuda {

// What a step costs, in clock cycles. Rates of an H100 or H200, per multiprocessor, as published; only their order of
// magnitude matters here, which decides between tiles and kernels.
inline constexpr double kSharedRate = 128, kL2Rate = 26;  // bytes a cycle; of L2 when all multiprocessors read
inline constexpr double kBarrier = 2000, kLaunch = 4000;  // cycles
// Guesses, to be measured (benchmarks/gpu_latencies.cu): between blocks of a cluster, the way of a store, and the bytes
// that a block takes in a cycle.
inline constexpr double kPush = 700, kPushRate = 32;

// How often a warp loads a byte of the weights from shared memory: in exact products the lanes of each of its 8 rows
// load the same ones, at the rate of different ones.
inline double loads_of_weights(Precision p) { return on_tensor_cores(p) ? 1 : 8; }

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
    const double read =
        weights * (resident * loads_of_weights(p.precision) / kSharedRate + (chunks - resident) / kL2Rate);
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
  const Index tiles_of_warp = divide_up<Index>(part.M, warp_groups);
  const Index tiles = tiles_of_warp * warp_groups, chunks = divide_up(part.chunks, plan.k_parts) * plan.k_parts;
  const Index turns = divide_up(tiles_of_warp, cluster_tiles_at_once(on_tensor_cores(p.precision)));
  const double weights = static_cast<double>(tiles * chunks * kTileChunkBytes) * loads_of_weights(p.precision);
  const Index operand = warp_groups * turns * chunks * rows * kChunkBytes;
  const Index sums = 2 * plan.k_parts * rows * 16 * part.M * state_bytes(p.precision);
  const double read = (weights + static_cast<double>(operand + sums)) / kSharedRate;
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

}  // namespace fastlstm::cuda
