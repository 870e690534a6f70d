// The step and persistent kernels of a precision: the time loop of the one, the passes of the other.
#pragma once

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "run.h"
#include "tile.h"

namespace fastlstm::cuda {

// The compiled kernel of a tile; `tiles` is one of the tables of plan.h.
template <class P, const auto& tiles, class C, std::size_t... i>
auto* find_tile(Tile tile, std::index_sequence<i...>) {
  void (*found)(TileArguments<P>) = nullptr;
  const auto consider = [&]<int M, int J>() {
    if (M == tile.M && J == tile.J) found = run_tile<P, M, J, C>;
  };
  (consider.template operator()<tiles[i].M, tiles[i].J>(), ...);
  if (found == nullptr) throw std::logic_error("no kernel was compiled for the planned tile");
  return found;
}

template <class P, const auto& tiles, class C>
void run_tiles(const Plan& plan, const Sequence<typename P::State>& sequence, char* workspace, cudaStream_t stream) {
  TileArguments<P> a{};
  a.sequence = sequence;
  a.units = plan.units;
  a.unit_blocks = plan.unit_blocks;
  for (int part = 0; part < plan.part_count; ++part) {
    const PlannedPart& planned = plan.parts[part];
    a.parts[part] = {planned.M, planned.chunks, planned.resident,
                     reinterpret_cast<Packed16*>(workspace + planned.packed_at)};
  }
  a.exchange_chunks = plan.exchange_chunks;
  a.row_blocks = plan.row_blocks;
  a.exchange_rows = plan.row_blocks * 8 * plan.tile.J;
  a.first_phase = 0;
  a.last_phase = sequence.phases();
  a.exchange = reinterpret_cast<typename P::Operand*>(workspace + plan.exchange_at);
  a.state = reinterpret_cast<typename P::State*>(workspace + plan.state_at);
  a.counters = reinterpret_cast<unsigned*>(workspace + plan.counters_at);

  auto* const kernel = find_tile<P, tiles, C>(plan.tile, std::make_index_sequence<std::size(tiles)>());
  const auto unit_blocks = static_cast<unsigned>(plan.unit_blocks);
  for (a.packed_part = 0; a.packed_part < plan.part_count; ++a.packed_part) {
    const dim3 packing(unit_blocks, static_cast<unsigned>(plan.parts[a.packed_part].chunks));
    launch(pack_weights<P>, packing, kTileThreads, 0, stream, false, a);
  }
  constexpr Index kMostBlocks = 1024;
  const Index preparing = divide_up(2 * a.exchange_rows * a.exchange_stride(), kTileThreads);
  launch(prepare<P>, dim3(static_cast<unsigned>(std::min(preparing, kMostBlocks))), kTileThreads, 0, stream, false, a);

  if (plan.kernel == Kernel::kPersistent) {
    for (a.first_row_block = 0; a.first_row_block < plan.row_blocks; a.first_row_block += plan.pass_blocks) {
      const Index blocks = std::min(plan.pass_blocks, plan.row_blocks - a.first_row_block);
      const dim3 grid(unit_blocks, static_cast<unsigned>(blocks));
      const bool together = plan.unit_blocks > 1;
      launch(kernel, grid, plan.threads, plan.shared_bytes, stream, together, a);
    }
    return;
  }
  const dim3 grid(unit_blocks, static_cast<unsigned>(plan.row_blocks));
  for (Index phase = 0; phase < sequence.phases(); ++phase) {
    a.first_phase = phase;
    a.last_phase = phase + 1;
    launch(kernel, grid, plan.threads, plan.shared_bytes, stream, false, a);
  }
}

}  // namespace fastlstm::cuda
