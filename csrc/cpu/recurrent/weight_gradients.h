// dWx = x^T dA, dWh = h_prev^T dA, db = sum of dA: all steps at once, after the last of them.
//
// The work is split over the results: a group of blocks of rows of dWx and dWh (they share what is read of dA) by a
// group of gate blocks of columns (their results are written together: single cache lines far from each other take
// longer than the sums).
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

template <class S, class Cell>
struct WeightGradients {
  using P = Plan<S, Cell>;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth;
  // Rows of one chain of sums: as many as stay in the first cache level. Longer ones lose accuracy, too.
  static constexpr Index kChunk = 384 / static_cast<Index>(sizeof(S));
  // Blocks of rows that are summed at a time, and of columns that are stored at a time.
  static constexpr Index kLeftBlocks = 128 / kUnits;
  static Index gate_blocks(const P& plan) { return plan.H < 256 ? 1 : 8; }

  const RecurrentBackward<S>& args;
  const P& plan;
  const S* x;  // see pack_inputs
  S* sums;     // workspace() elements a thread
  Index left_blocks, left_groups, column_groups;

  WeightGradients(const RecurrentBackward<S>& a, const P& p, const S* packed_x, S* workspace, const Team& team)
      : args(a),
        plan(p),
        x(packed_x),
        sums(workspace),
        left_blocks(p.input_blocks + p.blocks),
        column_groups(ceil_div(p.blocks, gate_blocks(p))) {
    // At least two items of work a thread.
    left_groups = min_of(
        max_of(ceil_div(left_blocks, kLeftBlocks), ceil_div(2 * team.size(), max_of(column_items(), 1))), left_blocks);
  }

  static Index workspace(const P& plan) { return kLeftBlocks * gate_blocks(plan) * kUnits * kWidth; }

  Index column_items() const { return P::kPlanes * column_groups; }
  Index count() const { return left_groups * column_items(); }

  void run(const Team& team, Index item) const {
    const Range lefts = piece(left_blocks, item / column_items(), left_groups);
    const int plane = static_cast<int>(item % column_items() / column_groups);
    const Range columns = piece(plan.blocks, item % column_groups, column_groups);
    S* const results = sums + team.member() * workspace(plan);
    for (Index j = columns.begin; j < columns.end; ++j) {
      weight_blocks(lefts, plane, j, results + (j - columns.begin) * kLeftBlocks * kUnits * kWidth);
      if (item < column_items()) bias_blocks(plane, j);
    }
    store_weight_blocks(lefts, plane, columns, results);
  }

  // The plane of the gradients that dWh's columns of a plane come from: the GRU's reset gate may stand between.
  int state_plane(int plane) const {
    if constexpr (Cell::kHasResetGate) {
      if (plane == Cell::kN && plan.sizes.reset_after) return Cell::kQ;
    }
    return plane;
  }
  // What they are multiplied by, block i: h_prev, or the GRU's r h_prev.
  const S* state_left(int plane, Index i) const {
    if constexpr (Cell::kHasResetGate) {
      if (plane == Cell::kN && !plan.sizes.reset_after) return gates(Cell::kQ, i);
    }
    return args.h + P::state_place(plan.rows + plan.N, 0, i * kUnits);
  }
  const S* gates(int plane, Index j) const { return args.gates + plan.gate_place(plane, 0, j * kUnits); }

  // A block of rows of dWx or dWh, in the columns of a plane: its left operand, the plane of its right one, its place,
  // and how many rows of it there are.
  struct WeightRows {
    const S* left;
    int right;
    S* dW;
    Index count;
  };
  WeightRows weight_rows(Index block, int plane) const {
    if (block < plan.input_blocks) {
      return {x + P::state_place(plan.rows, 0, block * kUnits), plane, args.dWx + block * kUnits * plan.G,
              min_of(kUnits, plan.D - block * kUnits)};
    }
    const Index i = block - plan.input_blocks;
    return {state_left(plane, i), state_plane(plane), args.dWh + i * kUnits * plan.G,
            min_of(kUnits, plan.H - i * kUnits)};
  }

  // Some blocks of rows of dWx and dWh, columns of gate block j. A chunk of dA stays in the first cache level while it
  // meets all of them.
  void weight_blocks(Range lefts, int plane, Index j, S* results) const {
    for (Index k = 0; k < (lefts.end - lefts.begin) * kUnits * kWidth; k += kLanes<S>) store(results + k, Vec<S>{});
    const Index chunks = ceil_div(plan.rows, kChunk);
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const Range rows = piece(plan.rows, chunk, chunks);
      for (Index left = lefts.begin; left < lefts.end; ++left) {
        const WeightRows block = weight_rows(left, plane);
        add_weight_block(block, gates(block.right, j), rows, plan.columns(j),
                         results + (left - lefts.begin) * kUnits * kWidth);
      }
    }
  }

  static void add_weight_block(const WeightRows& block, const S* gates, Range rows, Index columns, S* results) {
    for_each_panel<S>(0, columns, [&](Index panel, Index width) {
      with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
        for (Index lane = 0; lane < block.count;) {
          const Index tile = next_tile(block.count, lane, kTileRows<vectors>);
          kTransposedTilesOf<S, vectors>.by_rows[tile](block.left + rows.begin * kUnits + lane, kUnits,
                                                       gates + rows.begin * kWidth + panel, kWidth,
                                                       rows.end - rows.begin, results + lane * kWidth + panel, kWidth);
          lane += tile;
        }
      });
    });
  }

  void store_weight_blocks(Range lefts, int plane, Range columns, const S* results) const {
    for (Index left = lefts.begin; left < lefts.end; ++left) {
      const WeightRows block = weight_rows(left, plane);
      for (Index lane = 0; lane < block.count; ++lane) {
        const S* const row = results + ((left - lefts.begin) * kUnits + lane) * kWidth;
        unpack_gates(row, kLeftBlocks * kUnits * kWidth, plane, columns, block.dW + lane * plan.G);
      }
    }
  }

  // With the reset gate behind the product there are two biases, of the inputs and of the state.
  void bias_blocks(int plane, Index j) const {
    bias_block(plane, plane, j, args.db);
    if (Cell::kHasResetGate && plan.sizes.reset_after) bias_block(state_plane(plane), plane, j, args.db + plan.G);
  }

  void bias_block(int right, int plane, Index j, S* db) const {
    alignas(64) S totals[kWidth];
    const S* const dA = gates(right, j);
    for (Index column = 0; column < plan.columns(j); column += kLanes<S>) {
      Vec<S> total{};
      for (Index r = 0; r < plan.rows; r += kChunk) {
        Vec<S> sum{};
        for (Index k = r; k < min_of(r + kChunk, plan.rows); ++k) sum += load(dA + k * kWidth + column);
        total += sum;
      }
      store(totals + column, total);
    }
    unpack_gates(totals, 0, plane, {j, j + 1}, db);
  }

  // A row of a plane's gate blocks, `stride` from each other, to its places in a row of G columns.
  void unpack_gates(const S* row, Index stride, int plane, Range columns, S* out) const {
    for (Index gate = 0; gate < P::kGates; ++gate) {
      S* const places = out + plan.gate_column(plane * P::kGates + gate);
      for (Index j = columns.begin; j < columns.end; ++j) {
        const S* const block = row + (j - columns.begin) * stride + gate * kUnits;
        for (Index u = 0; u < min_of(kUnits, plan.H - j * kUnits); u += kLanes<S>) {
          const Index unit = j * kUnits + u;
          store_partial(places + unit, load(block + u), plan.H - unit);
        }
      }
    }
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
