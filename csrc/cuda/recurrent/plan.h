// What a plan says: which kernel runs a sequence, in which tiles, with how much memory. make_plan.h makes one.
//
// One step of a recurrence is a product with the recurrent weights and the cell's arithmetic:
//   forward   z (N, gates H) = h (N, H) Wh           the columns of a block of units are its units' gates
//   backward  dh (N, H)      = dz (N, gates H) Wh^T  its columns are the units themselves
// A GRU whose reset gate stands before the product with Wh takes two such products a step, one after the other: its
// step has two parts. A tile is what a block of threads computes in a part: 16 M columns by 8 J rows, M and J
// compile-time constants. Along K, weights and states lie in chunks of 64 bytes; an M-tile's 16 columns of a chunk are
// 1024 bytes.
#pragma once

#include <cstdint>

#include "../../lstm_cell.h"
#include "../device/index.h"

namespace fastlstm::cuda {

enum class Cell { kLstm, kRnn, kGruResetAfter, kGruResetBefore };
enum class Direction { kForward, kBackward };
enum class Precision { kFloat32, kFloat64, kTf32, kBf16 };
enum class Kernel {
  kPlain,       // one launch a step, a thread for each unit of each row; the ground that the others stand on
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
inline constexpr Tile kTensorTiles[] = {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {2, 4}, {3, 4}, {4, 1}, {4, 2}, {4, 4}};
inline constexpr Tile kFloat32Tiles[] = {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {4, 1}};
inline constexpr Tile kFloat64Tiles[] = {{1, 1}, {1, 2}, {2, 1}};

// The row kernel: the width that H is padded to, and the rows of a block.
inline constexpr int kRowWidths[] = {32, 64, 96, 128};
inline constexpr int kRowCounts[] = {1, 2, 4};

// A thread owns at most so many units of rows. The largest tiles are for the LSTM's forward pass, whose units have four
// columns.
inline constexpr int kMostOwned = 4;

// Of the row kernel's weights, all H of a column, so many stay in a thread's registers. Of the widest, which has 128
// registers a thread, the rest is in shared memory: no more than fits into 99 KB with the sums of the rows.
FASTLSTM_HOST_DEVICE constexpr int row_registers(int width, int rows) {
  return width <= 96 ? width : rows == 2 ? 84 : 88;
}

// The cluster kernel: blocks of a cluster, and J of a row group. Of tensor cores, larger groups were never the fastest;
// float64 accumulators leave room for one.
inline constexpr int kClusterSizes[] = {1, 2, 4, 8, 16};
inline constexpr int kTensorClusterJs[] = {1, 2}, kFloat32ClusterJs[] = {1, 2, 4}, kFloat64ClusterJs[] = {1};

// A warp's tiles that share a load of the rows, powers of 2. Exact products have registers for one.
FASTLSTM_HOST_DEVICE constexpr int cluster_tiles_at_once(bool tensor_cores) { return tensor_cores ? 4 : 1; }

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

// Units come to the blocks of a cluster in groups whose operands fill 16 bytes, what a store sends, and whose columns
// fill a tile.
constexpr Index unit_group(Index operand_bytes) { return operand_bytes < 4 ? 8 : 4; }

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
  if constexpr (on_tensor_cores(p)) {
    return kTensorClusterJs;
  } else if constexpr (p == Precision::kFloat32) {
    return kFloat32ClusterJs;
  } else {
    return kFloat64ClusterJs;
  }
}

}  // namespace fastlstm::cuda
