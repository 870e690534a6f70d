// The forward pass over a sequence: what all cells share, and the time loop of the LSTM and the tanh RNN. That of the
// GRU is in gru.cc.
#pragma once

#include "../vector_math.h"
#include "pack.h"
#include "single_row.h"

namespace fastlstm::FASTLSTM_ISA {

// The states, the products with the inputs, and those of a single row.
template <class S, class Cell>
struct ForwardPass {
  using P = Plan<S, Cell>;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth;

  const RecurrentForward<S>& args;
  P plan;

  explicit ForwardPass(const RecurrentForward<S>& a) : args(a), plan(a.sizes) {}

  Index state_stride() const { return P::kLayout.state_stride(args.slots * plan.N); }
  Index slot_row(Index step) const { return (args.slots == plan.T + 1 ? step : step % 2) * plan.N; }
  // Where the state of row n before a step lies.
  Index state_place(Index step, Index n, Index u) const {
    return u / kUnits * state_stride() + (slot_row(step) + n) * kUnits + u % kUnits;
  }
  bool valid(Index step, Index n) const { return plan.valid(args.mask, step, n); }

  void load_state(const S* from, S* to, Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store(to + state_place(0, n, u), from ? load_partial(from + n * plan.H + u, plan.H - u) : Vec<S>{});
      }
    }
  }

  void store_state(const S* from, S* to, Range rows, Range units) const {
    if (to == nullptr) return;
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store_partial(to + n * plan.H + u, load(from + state_place(plan.T, n, u)), plan.H - u);
      }
    }
  }

  // Operands whose first row is n.
  Operand<S> inputs(Index step, Index n) const { return row_major(plan.at(args.xs, step, n), args.xs.row, plan.D); }
  Operand<S> states(Index step, Index n) const {
    return {args.h + state_place(step, n, 0), kUnits, state_stride(), kUnits, 1, plan.H};
  }

  // out = bias + x Wx for a panel of Wx and some rows of some steps; out is the place of the first of them. A tile
  // takes neighbours in the batch or in time, whichever makes fewer tiles.
  void multiply_inputs(Range steps, Range rows, const S* Wx, const S* bias, Index width, S* out) const {
    const Index count_steps = steps.end - steps.begin, count_rows = rows.end - rows.begin;
    constexpr Index kMost = kTileRows<kTileVectors>;
    const bool along_time = ceil_div(count_steps, kMost) * count_rows <= ceil_div(count_rows, kMost) * count_steps;
    const Index tiled = along_time ? count_steps : count_rows, repeated = along_time ? count_rows : count_steps;
    const Index row_stride = kWidth, step_stride = plan.N * kWidth;
    const Index time_stride = plan.sizes.reverse ? -args.xs.step : args.xs.step;
    const Index stride = along_time ? time_stride : args.xs.row;
    with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
      for (Index outer = 0; outer < repeated; ++outer) {
        for (Index inner = 0; inner < tiled;) {
          const Index count = next_tile(tiled, inner, kTileRows<vectors>);
          const Index step = along_time ? inner : outer, n = along_time ? outer : inner;
          Term<S> term{inputs(steps.begin + step, rows.begin + n), Wx};
          term.a.row_stride = stride;
          // The rows of the next tile are prefetched where they are neighbours in memory.
          if (stride == plan.D) term.next = term.a.data + count * plan.D;
          if (stride == -plan.D) term.next = term.a.data - (2 * count - 1) * plan.D;
          kTilesOf<S, vectors>.by_rows[count](&term, 1, bias, 0, out + step * step_stride + n * row_stride,
                                              along_time ? step_stride : row_stride);
          inner += count;
        }
      }
    });
  }

  // sums += a W for the only row of a, some gates and units, and weights that are not packed: place(gate, u) is where
  // the sum of a unit stands.
  template <class Place>
  void multiply_single_row(const Operand<S>& a, const Weights<S>& W, Range gates, Range units,
                           const Place& place) const {
    const auto runs = [&](const auto& body) {
      for (Index k = 0; k < a.depth; k += a.width) {
        body(a.data + k / a.width * a.block_stride, k, min_of(a.width, a.depth - k));
      }
    };
    for (Index gate = gates.begin; gate < gates.end; ++gate) {
      add_single_row(W.data + plan.gate_column(gate) * W.column, W.row, W.column, runs, units, plan.H,
                     [&](Index u) { return place(gate, u); });
    }
  }
};

// The gates of a unit lie beside each other and share a tile, on which the cell's arithmetic follows at once.
template <class S, class Cell>
struct SequenceForward : ForwardPass<S, Cell> {
  using Base = ForwardPass<S, Cell>;
  using Base::args, Base::plan, Base::kUnits, Base::kWidth, Base::state_place, Base::valid;
  using typename Base::P;

  S* packed_Wh;
  S* packed_b;
  S* packed_Wx;  // last: a part of it alone is written if inputs are hoisted

  explicit SequenceForward(const RecurrentForward<S>& a) : Base(a) {
    packed_Wh = args.workspace;
    packed_b = packed_Wh + (plan.packs() ? plan.blocks * kWidth * plan.H : 0);
    packed_Wx = packed_b + plan.blocks * kWidth;
  }

  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return plan.blocks * kWidth * (plan.packs() ? plan.H + 1 + plan.D : 2);
  }

  // The products with Wx for all steps at once read each panel of Wx once. While both weights stay in the cache, doing
  // them in the step saves writing and reading the gates.
  bool hoist_inputs() const {
    return plan.packs() && args.Wx.data && args.gates != nullptr && plan.T > 1 && !plan.split_rows();
  }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team), units = plan.own_units(team);
    const Range blocks{units.begin / kUnits, ceil_div(units.end, kUnits)};
    const Range states{blocks.begin * kUnits, blocks.end * kUnits};
    const bool hoisted = hoist_inputs();
    pack(piece(plan.blocks, team.member(), team.size()), hoisted);
    this->load_state(args.h0, args.h, rows, states);
    if constexpr (Cell::kHasCellState) this->load_state(args.c0, args.c, rows, states);
    team.wait();
    if (hoisted) multiply_all_inputs(rows, blocks);
    for (Index step = 0; step < plan.T; ++step) {
      if (plan.packs()) {
        for (Index j = blocks.begin; j < blocks.end; ++j) step_forward(step, j, blocks, rows, hoisted);
      } else {
        step_forward_single_row(step, blocks, units);
      }
      plan.meet(team);
    }
    this->store_state(args.h, args.h_n, rows, units);
    if constexpr (Cell::kHasCellState) this->store_state(args.c, args.c_n, rows, units);
  }

  void pack(Range blocks, bool hoisted) const {
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      if (plan.packs()) {
        if (!hoisted) pack_gate_block(plan, args.Wx, plan.D, j, packed_Wx + j * kWidth * plan.D);
        pack_gate_block(plan, args.Wh, plan.H, j, packed_Wh + j * kWidth * plan.H);
      }
      pack_gate_block(plan, {args.b, plan.G, 1}, 1, j, packed_b + j * kWidth);
    }
  }

  S* gate_row(Index step, Index j, Index n) const {
    return args.gates + plan.gate_place(0, step * plan.N + n, j * kUnits);
  }

  // Each block of Wx is used once: packed where the last one was, it never leaves the cache.
  void multiply_all_inputs(Range rows, Range blocks) const {
    S* const packed = packed_Wx + blocks.begin * kWidth * plan.D;
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      pack_gate_block(plan, args.Wx, plan.D, j, packed);
      for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
        this->multiply_inputs({0, plan.T}, rows, packed + panel * plan.D, packed_b + j * kWidth + panel, width,
                              gate_row(0, j, rows.begin) + panel);
      });
    }
  }

  // One step of block j of this thread's blocks of units.
  void step_forward(Index step, Index j, Range blocks, Range rows, bool hoisted) const {
    alignas(64) S tile[kTileRows<kTileVectors> * kWidth];
    const Index columns = plan.columns(j);
    // Weights that do not stay in the first cache level: those of the next block are prefetched bit by bit meanwhile.
    const bool look_ahead = kTileColumns<S> * plan.H * static_cast<Index>(sizeof(S)) > kFirstLevelBytes;
    const Index next_j = j + 1 < blocks.end ? j + 1 : blocks.begin;
    Index prefetched = 0;
    for (Index n = rows.begin; n < rows.end;) {
      // A last panel narrower than the tile could take more rows, but all panels of a block share them.
      const Index count = next_tile(rows.end - rows.begin, n - rows.begin, kTileRows<kTileVectors>);
      if (hoisted) prefetch(gate_row(step, next_j, n), count * kWidth);
      if (!args.Wx.data) {
        for (Index m = 0; m < count; ++m) load_pre_activations(step, j, n + m, tile + m * kWidth);
      }
      for_each_panel<S>(0, columns, [&](Index panel, Index width) {
        const S* Wh = packed_Wh + j * kWidth * plan.H + panel * plan.H;
        const S* Wx = packed_Wx + j * kWidth * plan.D + panel * plan.D;
        const S* next = nullptr;
        if (look_ahead) next = prefetched < kWidth * plan.H ? packed_Wh + next_j * kWidth * plan.H + prefetched : Wh;
        prefetched += plan.H * kCacheLine<S>;
        const Term<S> terms[2] = {{this->inputs(step, n), Wx}, {this->states(step, n), Wh, next}};
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          const Tile<S> multiply = kTilesOf<S, vectors>.by_rows[count];
          if (hoisted) {
            multiply(terms + 1, 1, gate_row(step, j, n) + panel, kWidth, tile + panel, kWidth);
          } else if (!args.Wx.data) {
            multiply(terms + 1, 1, tile + panel, kWidth, tile + panel, kWidth);
          } else {
            multiply(terms, 2, packed_b + j * kWidth + panel, 0, tile + panel, kWidth);
          }
        });
      });
      for (Index m = 0; m < count; ++m) activate_gates(step, j, n + m, tile + m * kWidth);
      for (Index m = 0; m < count; ++m) store_output(step, j, n + m, tile + m * kWidth);
      n += count;
    }
  }

  // Row n of block j of the pre-activations that come in place of inputs, and the bias.
  void load_pre_activations(Index step, Index j, Index n, S* tile_row) const {
    const S* const x = plan.at(args.xs, step, n);
    for (Index gate = 0; gate < P::kGates; ++gate) {
      for (Index u = 0; u < kUnits; u += kLanes<S>) {
        const Index unit = j * kUnits + u;
        const Vec<S> bias = load(packed_b + j * kWidth + gate * kUnits + u);
        store(tile_row + gate * kUnits + u, bias + load_partial(x + plan.gate_column(gate) + unit, plan.H - unit));
      }
    }
  }

  // One step of the only row, without packed weights.
  void step_forward_single_row(Index step, Range blocks, Range units) const {
    S* const sums = packed_Wx;  // blocks of gates; free, because nothing is packed but the bias
    const auto place = [&](Index gate, Index u) { return sums + u / kUnits * kWidth + gate * kUnits + u % kUnits; };
    if (args.Wx.data) {
      for (Index k = blocks.begin * kWidth; k < blocks.end * kWidth; ++k) sums[k] = packed_b[k];
      this->multiply_single_row(this->inputs(step, 0), args.Wx, {0, Cell::kGates}, units, place);
    } else {
      for (Index j = blocks.begin; j < blocks.end; ++j) load_pre_activations(step, j, 0, sums + j * kWidth);
    }
    this->multiply_single_row(this->states(step, 0), args.Wh, {0, Cell::kGates}, units, place);
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      activate_gates(step, j, 0, sums + j * kWidth);
      store_output(step, j, 0, sums + j * kWidth);
    }
  }

  // The cell's arithmetic on one row of a tile comes in two parts, so that the long chain from the gates to h is
  // broken: the first one of all rows runs while the processor waits for none.
  void activate_gates(Index step, Index j, Index n, S* tile_row) const {
    if constexpr (Cell::kHasCellState) {
      if (!valid(step, n)) return;
      const Index before = state_place(step, n, j * kUnits), after = state_place(step + 1, n, j * kUnits);
      S* const activated = args.gates ? gate_row(step, j, n) : tile_row;
      for (Index u = 0; u < kUnits; u += kLanes<S>) {
        Cell::template activate_gates<S>(tile_row + u, activated + u, args.c, before + u, after + u);
      }
    }
  }

  void store_output(Index step, Index j, Index n, const S* tile_row) const {
    const Index before = state_place(step, n, j * kUnits), after = state_place(step + 1, n, j * kUnits);
    S* const hs = args.hs.data ? plan.at(args.hs, step, n) + j * kUnits : nullptr;
    const S* const activated = Cell::kHasCellState && args.gates ? gate_row(step, j, n) : tile_row;
    for (Index u = 0; u < plan.columns(j) / P::kGates; u += kLanes<S>) {
      Vec<S> h;
      if (valid(step, n)) {
        h = Cell::template output<S>(activated + u, args.c, after + u);
      } else {
        h = load(args.h + before + u);
        if constexpr (Cell::kHasCellState) store(args.c + after + u, load(args.c + before + u));
      }
      store(args.h + after + u, h);
      if (hs) store_partial(hs + u, h, plan.H - j * kUnits - u);
    }
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
