// The forward pass over a sequence: what all cells share, and the time loop of the LSTM and the tanh RNN. That of the
// GRU is in gru.cc.
#pragma once

#include <type_traits>

#include "../vector_math.h"
#include "pack.h"
#include "single_row.h"

namespace fastlstm::FASTLSTM_ISA {

// The states, the products with the inputs, and those of a single row.
template <class Format, class Cell>
struct ForwardPass {
  using P = Plan<Format, Cell>;
  using Word = typename P::Word;
  using Packed = typename P::Packed;
  using S = typename P::S;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth, kDepth = P::kDepth;

  const RecurrentForward<S>& args;
  P plan;
  // Unless exact, the words that are factors; else they are the numbers in args.
  Index input_slots;  // steps whose inputs there is room for
  Word* input_words;  // rows of D_words, in the order of processing
  Word* state_words;  // as args.h, along units, with two slots

  ForwardPass(const RecurrentForward<S>& a, Index slots)
      : args(a), plan(a.sizes), input_slots(slots), input_words(nullptr), state_words(nullptr) {}

  // Whole cache lines, as what follows is aligned to them.
  static Index words_workspace(const P& plan, Index slots) {
    if (!has_words(plan)) return 0;
    const Index size = slots * plan.N * plan.D_words + P::kWordLayout.state_buffer(2 * plan.N, plan.H_words);
    return ceil_div(size, kCacheLine<Word>) * kCacheLine<Word>;
  }
  void place_words(Word* workspace) {
    input_words = workspace;
    state_words = input_words + input_slots * plan.N * plan.D_words;
  }
  static bool has_words(const P& plan) { return !Format::kIsExact && plan.packs(); }

  Index state_stride() const { return P::kLayout.state_stride(args.slots * plan.N); }
  Index slot_row(Index step) const { return (args.slots == plan.T + 1 ? step : step % 2) * plan.N; }
  // Where the state of row n before a step lies.
  Index state_place(Index step, Index n, Index u) const {
    return u / kUnits * state_stride() + (slot_row(step) + n) * kUnits + u % kUnits;
  }
  bool valid(Index step, Index n) const { return plan.valid(args.mask, step, n); }
  Range valid_rows(Index step, Range rows) const { return plan.valid_rows(args.mask, step, rows); }
  Word* state_words_at(Index step, Index n, Index u) const {
    return state_words + P::state_words_place(2 * plan.N, step % 2 * plan.N + n, u);
  }

  // A vector of h before a step, as the step's product takes it.
  FASTLSTM_INLINE void put_state_words(Index step, Index n, Index u) const {
    if constexpr (!Format::kIsExact) {
      if (plan.packs()) put_along_k<Format>(args.h + state_place(step, n, u), plan.H - u, state_words_at(step, n, u));
    }
  }

  void load_h(Range rows, Range units) const {
    load_state(args.h0, args.h, rows, units);
    for (Index u = units.begin; u < units.end && has_words(plan); u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) put_state_words(0, n, u);
    }
  }

  // A thread's share of the inputs of some steps, which all threads that need them wait for: all steps at once, or the
  // next one while the others are at this one's.
  void pack_input_words(const Team& team, Range own_rows, Range steps) const {
    if (!has_words(plan) || plan.D == 0) return;
    const Range rows = plan.split_rows() ? own_rows : piece(plan.N, team.member(), team.size());
    for (Index step = steps.begin; step < min_of(steps.end, plan.T); ++step) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        pack_rows<Format>(plan.at(args.xs, step, n), plan.D, {0, 1},
                          input_words + (step % input_slots * plan.N + n) * plan.D_words);
      }
    }
  }

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

  // Operands whose first row is n, of numbers and of what they are as factors.
  Operand<S> input_numbers(Index step, Index n) const {
    return row_major(plan.at(args.xs, step, n), args.xs.row, plan.D);
  }
  Operand<S> state_numbers(Index step, Index n) const {
    return {args.h + state_place(step, n, 0), kUnits, state_stride(), kUnits, 1, plan.H};
  }
  Operand<Word> inputs(Index step, Index n) const {
    if constexpr (Format::kIsExact) {
      return input_numbers(step, n);
    } else {
      return row_major(input_words + (step % input_slots * plan.N + n) * plan.D_words, plan.D_words, plan.D_words);
    }
  }
  Operand<Word> states(Index step, Index n) const {
    if constexpr (Format::kIsExact) {
      return state_numbers(step, n);
    } else {
      constexpr Index kWords = kUnits / kDepth;
      return {state_words_at(step, n, 0), kWords, P::kWordLayout.state_stride(2 * plan.N), kWords, 1, plan.H_words};
    }
  }
  // From a row of a step's inputs to that of the next step.
  Index input_step() const {
    if constexpr (Format::kIsExact) {
      return plan.sizes.reverse ? -args.xs.step : args.xs.step;
    } else {
      return plan.N * plan.D_words;
    }
  }

  // out = bias + x Wx for a panel of Wx and some rows of some steps; out is the place of row 0 in the first of them.
  void multiply_inputs(Range steps, Range rows, const Packed* Wx, const S* bias, Index width, S* out) const {
    if (args.mask == nullptr) return multiply_all_inputs(steps, rows, Wx, bias, width, out);
    for (Index step = steps.begin; step < steps.end; ++step, out += plan.N * kWidth) {
      multiply_all_inputs({step, step + 1}, valid_rows(step, rows), Wx, bias, width, out);
    }
  }

  // A tile takes neighbours in the batch or in time, whichever makes fewer tiles.
  void multiply_all_inputs(Range steps, Range rows, const Packed* Wx, const S* bias, Index width, S* out) const {
    const Index count_steps = steps.end - steps.begin, count_rows = rows.end - rows.begin;
    constexpr Index kMost = rows_of_tile(kTileVectors);
    const bool along_time = ceil_div(count_steps, kMost) * count_rows <= ceil_div(count_rows, kMost) * count_steps;
    const Index tiled = along_time ? count_steps : count_rows, repeated = along_time ? count_rows : count_steps;
    const Index row_stride = kWidth, step_stride = plan.N * kWidth;
    const Index stride = along_time ? input_step() : inputs(steps.begin, rows.begin).row_stride;
    const Index vectors = width / kLanes<S>, most = rows_of_tile(vectors);
    for (Index outer = 0; outer < repeated; ++outer) {
      for (Index inner = 0; inner < tiled;) {
        const Index count = next_tile(tiled, inner, most);
        const Index step = along_time ? inner : outer, n = along_time ? outer : inner;
        Term<Word, Packed> term{inputs(steps.begin + step, rows.begin + n), Wx};
        term.a.row_stride = stride;
        // The rows of the next tile are prefetched where they are neighbours in memory.
        const auto* const row = reinterpret_cast<const Packed*>(term.a.data);
        if (stride == plan.D_words) term.next = row + count * plan.D_words;
        if (stride == -plan.D_words) term.next = row - (2 * count - 1) * plan.D_words;
        Tiles<Word, Packed>::product.of[vectors][count](&term, 1, bias, 0,
                                                        out + step * step_stride + (rows.begin + n) * row_stride,
                                                        along_time ? step_stride : row_stride);
        inner += count;
      }
    }
  }

  // sums += a W for the only row of a, some gates and units, and weights that are not packed: sums of a gate stand
  // where `gate_places` says, in blocks that are `stride` from each other.
  template <class GatePlaces>
  void multiply_single_row(const Operand<S>& a, const Weights<S>& W, Range gates, Range units, Index stride,
                           const GatePlaces& gate_places) const {
    using Factors = std::conditional_t<Format::kIsExact, Format, Bf16>;
    const Index first_row = 0, count = gates.end - gates.begin;
    Weights<S> of_gate[Cell::kGates];
    UnitPlaces<S> sums[Cell::kGates];
    for (Index g = 0; g < count; ++g) {
      const Index gate = gates.begin + g;
      of_gate[g] = {W.data + plan.gate_column(gate) * W.column, W.row, W.column};
      sums[g] = {gate_places(gate), P::kLog2Units, stride};
      if (W.column != 1) add_single_row<Factors>(a, &first_row, of_gate[g], units, plan.H, sums[g]);
    }
    if (W.column == 1) add_single_row<Factors>(a, of_gate, sums, count, units, plan.H);
  }
};

// The size of what `prepare` leaves, and `prepare`, of a forward pass.
template <class Pass>
Index prepared_size(const RecurrentSizes& sizes) {
  return Pass::packed_size(typename Pass::P(sizes));
}
template <class Pass, class Args>
void run_prepare(const Args& args) {
  Pass(args).prepare();
}

// The gates of a unit lie beside each other and share a tile, on which the cell's arithmetic follows at once.
template <class Format, class Cell>
struct SequenceForward : ForwardPass<Format, Cell> {
  using Base = ForwardPass<Format, Cell>;
  using Base::args, Base::plan, Base::kUnits, Base::kWidth, Base::state_place, Base::valid, Base::valid_rows;
  using typename Base::P, typename Base::S, typename Base::Word, typename Base::Packed;

  Packed* packed_Wh;
  S* packed_b;
  Packed* packed_Wx;  // last: a part of it alone is written if inputs are hoisted

  explicit SequenceForward(const RecurrentForward<S>& a) : Base(a, input_slots_of(P(a.sizes))) {
    Word* const words = reinterpret_cast<Word*>(args.workspace);
    this->place_words(words);
    packed_Wh = plan.sizes.prepared ? reinterpret_cast<Packed*>(args.prepared)
                                    : reinterpret_cast<Packed*>(words + Base::words_workspace(plan, this->input_slots));
    packed_b = reinterpret_cast<S*>(packed_Wh + (plan.packs() ? plan.blocks * kWidth * plan.H_packed : 0));
    packed_Wx = reinterpret_cast<Packed*>(packed_b + plan.blocks * kWidth);
  }

  static Index packed_size(const P& plan) {
    return plan.blocks * kWidth * (plan.packs() ? plan.H_packed + 1 + plan.D_packed : 2);
  }
  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return Base::words_workspace(plan, input_slots_of(plan)) + (sizes.prepared ? 0 : packed_size(plan));
  }

  // The products with Wx for all steps at once read each panel of Wx once. While both weights stay in the cache, doing
  // them in the step saves writing and reading the gates.
  static bool hoists_inputs(const P& plan) {
    return plan.packs() && plan.D > 0 && plan.sizes.keeps_gates && plan.T > 1 && !plan.split_rows();
  }
  static Index input_slots_of(const P& plan) { return hoists_inputs(plan) ? plan.T : 2; }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team, args.mask), units = plan.own_units(team);
    const Range blocks{units.begin / kUnits, ceil_div(units.end, kUnits)};
    const Range states{blocks.begin * kUnits, blocks.end * kUnits};
    const bool hoisted = hoists_inputs(plan);
    if (!plan.sizes.prepared) pack(piece(plan.blocks, team.member(), team.size()), hoisted);
    this->load_h(rows, states);
    this->pack_input_words(team, rows, {0, hoisted ? plan.T : 1});
    if constexpr (Cell::kHasCellState) this->load_state(args.c0, args.c, rows, states);
    team.wait();
    if (hoisted) hoist_inputs(team, rows, blocks);
    for (Index step = 0; step < plan.T; ++step) {
      if (!hoisted) this->pack_input_words(team, rows, {step + 1, step + 2});
      if (plan.packs() && plan.N == 1) {
        step_forward_row(step, blocks, hoisted);
      } else if (plan.packs()) {
        const Range some = valid_rows(step, rows);
        for (Index j = blocks.begin; j < blocks.end; ++j) {
          step_forward(step, j, blocks, some, hoisted);
          for (Index n = rows.begin; n < some.begin; ++n) store_output(step, j, n, nullptr);
          for (Index n = some.end; n < rows.end; ++n) store_output(step, j, n, nullptr);
        }
      } else {
        step_forward_single_row(step, blocks, units);
      }
      if (!plan.meet(team)) break;
    }
    this->store_state(args.h, args.h_n, rows, units);
    if constexpr (Cell::kHasCellState) this->store_state(args.c, args.c_n, rows, units);
  }

  void pack(Range blocks, bool hoisted) const {
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      if (plan.packs()) {
        if (!hoisted)
          pack_gate_block<Packing<Format>>(plan, args.Wx, plan.D, j, packed_Wx + j * kWidth * plan.D_packed);
        pack_gate_block<Packing<Format>>(plan, args.Wh, plan.H, j, packed_Wh + j * kWidth * plan.H_packed);
      }
      pack_gate_block<Exact<S>>(plan, Weights<S>{args.b, plan.G, 1}, 1, j, packed_b + j * kWidth);
    }
  }

  void prepare() const { pack({0, plan.blocks}, false); }

  S* gate_row(Index step, Index j, Index n) const {
    return args.gates + plan.gate_place(0, step * plan.N + n, j * kUnits);
  }

  // Each block of Wx is used once: packed where the last one was, it never leaves the cache.
  void hoist_inputs(const Team& team, Range rows, Range blocks) const {
    Packed* const packed = packed_Wx + blocks.begin * kWidth * plan.D_packed;
    for (Index j = blocks.begin; j < blocks.end && !team.stopped(); ++j) {
      pack_gate_block<Packing<Format>>(plan, args.Wx, plan.D, j, packed);
      for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
        this->multiply_inputs({0, plan.T}, rows, packed + panel * plan.D_packed, packed_b + j * kWidth + panel, width,
                              gate_row(0, j, 0) + panel);
      });
    }
  }

  // One step of block j of this thread's blocks of units.
  void step_forward(Index step, Index j, Range blocks, Range rows, bool hoisted) const {
    alignas(64) S tile[rows_of_tile(kTileVectors) * kWidth];
    const Index columns = plan.columns(j);
    // Weights that do not stay in the first cache level: those of the next block are prefetched bit by bit meanwhile.
    const bool look_ahead = kTileColumns<S> * plan.H_packed * static_cast<Index>(sizeof(Packed)) > kFirstLevelBytes;
    const Index next_j = j + 1 < blocks.end ? j + 1 : blocks.begin;
    Index prefetched = 0;
    for (Index n = rows.begin; n < rows.end;) {
      // A last panel narrower than the tile could take more rows, but all panels of a block share them.
      const Index count = next_tile(rows.end - rows.begin, n - rows.begin, rows_of_tile(kTileVectors));
      if (hoisted) prefetch(gate_row(step, next_j, n), count * kWidth);
      if (plan.D == 0) {
        for (Index m = 0; m < count; ++m) load_pre_activations(step, j, n + m, tile + m * kWidth);
      }
      for_each_panel<S>(0, columns, [&](Index panel, Index width) {
        const Packed* Wh = packed_Wh + (j * kWidth + panel) * plan.H_packed;
        const Packed* Wx = packed_Wx + (j * kWidth + panel) * plan.D_packed;
        const Packed* next = nullptr;
        const Index block_size = kWidth * plan.H_packed;
        if (look_ahead) next = prefetched < block_size ? packed_Wh + next_j * block_size + prefetched : Wh;
        prefetched += plan.H_packed * kCacheLine<Packed>;
        const Term<Word, Packed> terms[2] = {{this->inputs(step, n), Wx}, {this->states(step, n), Wh, next}};
        const auto multiply = Tiles<Word, Packed>::product.of[width / kLanes<S>][count];
        if (hoisted) {
          multiply(terms + 1, 1, gate_row(step, j, n) + panel, kWidth, tile + panel, kWidth);
        } else if (plan.D == 0) {
          multiply(terms + 1, 1, tile + panel, kWidth, tile + panel, kWidth);
        } else {
          multiply(terms, 2, packed_b + j * kWidth + panel, 0, tile + panel, kWidth);
        }
      });
      for (Index m = 0; m < count; ++m) activate_gates(step, j, n + m, tile + m * kWidth);
      for (Index m = 0; m < count; ++m) store_output(step, j, n + m, tile + m * kWidth);
      n += count;
    }
  }

  // One step of the only row: as many blocks at once as make kStreams panels.
  void step_forward_row(Index step, Range blocks, bool hoisted) const {
    constexpr Index kTogether = max_of(1, kStreams * kTileColumns<S> / kWidth);
    alignas(64) S tile[kTogether * kWidth];
    for (Index first = blocks.begin, end; first < blocks.end; first = end) {
      end = min_of(first + kTogether, blocks.end);
      if (end - first > 1 && plan.columns(end - 1) < kWidth) --end;  // its panels may be narrower
      const auto of_block = [&](Index j) { return tile + (j - first) * kWidth; };
      for (Index j = first; j < end; ++j) {
        if (plan.D == 0) {
          load_pre_activations(step, j, 0, of_block(j));
        } else {
          const S* const begin = hoisted ? gate_row(step, j, 0) : packed_b + j * kWidth;
          for (Index k = 0; k < plan.columns(j); k += kLanes<S>) store(of_block(j) + k, load(begin + k));
        }
      }
      const Term<Word, Packed> terms[2] = {{this->inputs(step, 0), packed_Wx + first * kWidth * plan.D_packed},
                                           {this->states(step, 0), packed_Wh + first * kWidth * plan.H_packed}};
      const bool only_state = hoisted || plan.D == 0;
      const Index columns = (end - 1 - first) * kWidth + plan.columns(end - 1);
      multiply_row(terms + only_state, only_state ? 1 : 2, tile, columns, tile);
      for (Index j = first; j < end; ++j) activate_gates(step, j, 0, of_block(j));
      for (Index j = first; j < end; ++j) store_output(step, j, 0, of_block(j));
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
    S* const sums = packed_b + plan.blocks * kWidth;  // blocks of gates; nothing is packed behind the bias
    const auto place = [&](Index gate) { return sums + gate * kUnits; };
    if (plan.D > 0) {
      for (Index k = blocks.begin * kWidth; k < blocks.end * kWidth; ++k) sums[k] = packed_b[k];
      this->multiply_single_row(this->input_numbers(step, 0), args.Wx, {0, Cell::kGates}, units, kWidth, place);
    } else {
      for (Index j = blocks.begin; j < blocks.end; ++j) load_pre_activations(step, j, 0, sums + j * kWidth);
    }
    this->multiply_single_row(this->state_numbers(step, 0), args.Wh, {0, Cell::kGates}, units, kWidth, place);
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
        Cell::template activate_gates<S>(plan.sizes, tile_row + u, activated + u, args.c, before + u, after + u);
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
      this->put_state_words(step + 1, n, j * kUnits + u);
      if (hs) store_partial(hs + u, h, plan.H - j * kUnits - u);
    }
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
