// The time loop of a recurrent layer, forward and backward, in one parallel region each.
//
// A cell (LstmCell in lstm.cc, RnnCell in rnn.cc) says what happens to a tile's pre-activations; everything else - the
// packing of the weights, the split of the work, the products - is here, once.
//
// The split: if the packed weights fit the cache and the batch is large enough, threads take rows of the batch and
// never wait for each other; else they take units, and meet at a barrier each step.
#pragma once

#include "../gemm/tile.h"
#include "../threads.h"
#include "../vector_math.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {

// Sizes of one call, derived once.
template <class S, class Cell>
struct Plan {
  static constexpr Index kUnits = Cell::kLayout.units;
  static constexpr Index kGates = Cell::kLayout.gates;
  static constexpr Index kWidth = kUnits * kGates;  // columns of a gate block
  static constexpr Index kPanel = kTileColumns<S>;  // columns of a packed panel
  static_assert(kWidth % kPanel == 0 && kUnits % kLanes<S> == 0);

  const RecurrentSizes& sizes;
  Index N, T, D, H;
  Index G;             // columns of the weights
  Index blocks;        // of units
  Index input_blocks;  // of input columns, as wide as blocks of units
  Index rows;          // T N

  explicit Plan(const RecurrentSizes& s)
      : sizes(s),
        N(s.N),
        T(s.N == 0 ? 0 : s.T),  // no rows, no steps
        D(s.D),
        H(s.H),
        G(kGates * s.H),
        blocks(Cell::kLayout.blocks(s.H)),
        input_blocks(Cell::kLayout.blocks(s.D)),
        rows(s.T * s.N) {}

  Index time(Index step) const { return sizes.reverse ? T - 1 - step : step; }

  // Columns of block j that hold units, in whole vectors. Only a cell of one gate can leave the rest out: its units
  // are neighbours.
  Index columns(Index j) const {
    if constexpr (kGates == 1) return min_of(kUnits, ceil_div(H - j * kUnits, kLanes<S>) * kLanes<S>);
    return kWidth;
  }

  Index padded_units() const { return blocks * kUnits; }
  // Columns of dx, in whole vectors.
  Index padded_inputs() const { return ceil_div(D, kLanes<S>) * kLanes<S>; }

  bool split_rows() const {
    constexpr Index kCachedBytes = 1536 * 1024;
    return N >= 8 && (D + H) * G * static_cast<Index>(sizeof(S)) <= kCachedBytes;
  }

  // Weights that meet one row once or twice are read where they lie: packing them takes longer than the products.
  bool packs() const {
    constexpr Index kFewSteps = 2;
    return N != 1 || T > kFewSteps;
  }

  int threads() const {
    // Below this, waking another thread costs more than it brings.
    constexpr double kSmallWork = 4e6;
    const double work = static_cast<double>(rows) * static_cast<double>(D + H + 64) * static_cast<double>(G);
    if (work < kSmallWork) return 1;
    return static_cast<int>(min_of(sizes.threads, split_rows() ? ceil_div(N, 4) : max_of(blocks, 1)));
  }

  Range own_rows(const Team& team) const { return split_rows() ? piece(N, team.member(), team.size()) : Range{0, N}; }
  Range own_blocks(const Team& team) const {
    return split_rows() ? Range{0, blocks} : piece(blocks, team.member(), team.size());
  }
  // What each thread packs for itself: everything shared evenly, or what it alone reads.
  Range packed_blocks(const Team& team) const { return piece(blocks, team.member(), team.size()); }
};

// Weights of more bytes are read from beyond the first cache level.
inline constexpr Index kFirstLevelBytes = 40 * 1024;

// ---- Packing -------------------------------------------------------------------------------------------------------

// The columns of gate block j of W (depth, G) as panels [depth][width]; zeros beside the units.
template <class S, class P>
void pack_gate_block(const P& plan, const S* W, Index depth, Index j, S* packed) {
  for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
    for (Index column = panel; column < panel + width; column += kLanes<S>) {
      const Index unit = j * P::kUnits + column % P::kUnits;
      const S* source = W + plan.sizes.gate_position[column / P::kUnits] * plan.H + unit;
      S* out = packed + panel * depth + (column - panel);
      for (Index k = 0; k < depth; ++k) store(out + k * width, load_partial(source + k * plan.G, plan.H - unit));
    }
  });
}

// The transpose of rows [first, first + width) of W (count, G), as a panel [kGates H][width] whose rows stand in the
// order of the gate buffer's columns. Rows from count on are zero.
template <class S, class P>
void pack_transposed_panel(const P& plan, const S* W, Index count, Index first, Index width, S* packed) {
  for (Index j = 0; j < plan.blocks; ++j) {
    const Index units = min_of(P::kUnits, plan.H - j * P::kUnits);
    for (Index gate = 0; gate < P::kGates; ++gate) {
      const S* source = W + plan.sizes.gate_position[gate] * plan.H + j * P::kUnits;
      for (Index i = 0; i < width; i += kLanes<S>) {
        transpose_into(source + (first + i) * plan.G, plan.G, count - first - i, units, packed + i, width);
      }
      packed += units * width;
    }
  }
}

// ---- Forward -------------------------------------------------------------------------------------------------------

template <class S, class Cell>
struct ForwardPass {
  using P = Plan<S, Cell>;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth, kPanel = P::kPanel;

  const RecurrentForward<S>& args;
  P plan;
  S* packed_Wx;
  S* packed_Wh;
  S* packed_b;

  explicit ForwardPass(const RecurrentForward<S>& a) : args(a), plan(a.sizes) {
    packed_Wx = args.workspace;
    packed_Wh = packed_Wx + plan.blocks * kWidth * plan.D;
    packed_b = packed_Wh + plan.blocks * kWidth * plan.H;
  }

  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return plan.blocks * kWidth * (plan.D + plan.H + 1);
  }

  Index state_stride() const { return Cell::kLayout.state_stride(args.slots * plan.N); }
  Index slot_row(Index step) const { return (args.slots == plan.T + 1 ? step : step % 2) * plan.N; }

  // The products with Wx for all steps at once read each panel of Wx once. While both weights stay in the cache, doing
  // them in the step saves writing and reading the gates.
  bool hoist_inputs() const { return plan.packs() && args.gates != nullptr && plan.T > 1 && !plan.split_rows(); }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team);
    const Range blocks = plan.own_blocks(team);
    const bool hoisted = hoist_inputs();
    pack(plan.packed_blocks(team), hoisted);
    load_state(args.h0, args.h, rows, blocks);
    if constexpr (Cell::kHasCellState) load_state(args.c0, args.c, rows, blocks);
    team.wait();
    if (hoisted) {
      // Each block of Wx is used once: packed where the last one was, it never leaves the cache.
      S* const packed = packed_Wx + blocks.begin * kWidth * plan.D;
      for (Index j = blocks.begin; j < blocks.end; ++j) {
        pack_gate_block(plan, args.Wx, plan.D, j, packed);
        multiply_inputs(packed, j, rows);
      }
    }
    for (Index step = 0; step < plan.T; ++step) {
      if (plan.packs()) {
        for (Index j = blocks.begin; j < blocks.end; ++j) step_forward(step, j, blocks, rows, hoisted);
      } else {
        step_forward_one_row(step, blocks);
      }
      if (!plan.split_rows()) team.wait();
    }
    store_state(args.h, args.h_n, rows, blocks);
    if constexpr (Cell::kHasCellState) store_state(args.c, args.c_n, rows, blocks);
  }

  void pack(Range blocks, bool hoisted) const {
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      if (plan.packs()) {
        if (!hoisted) pack_gate_block(plan, args.Wx, plan.D, j, packed_Wx + j * kWidth * plan.D);
        pack_gate_block(plan, args.Wh, plan.H, j, packed_Wh + j * kWidth * plan.H);
      }
      pack_gate_block(plan, args.b, 1, j, packed_b + j * kWidth);
    }
  }

  void load_state(const S* from, S* to, Range rows, Range blocks) const {
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        for (Index u = 0; u < kUnits; u += kLanes<S>) {
          const Index unit = j * kUnits + u;
          const Vec<S> value = from ? load_partial(from + n * plan.H + unit, plan.H - unit) : Vec<S>{};
          store(to + j * state_stride() + (slot_row(0) + n) * kUnits + u, value);
        }
      }
    }
  }

  void store_state(const S* from, S* to, Range rows, Range blocks) const {
    if (to == nullptr) return;
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        for (Index u = 0; u < plan.columns(j) / P::kGates; u += kLanes<S>) {
          const Index unit = j * kUnits + u;
          const Vec<S> value = load(from + j * state_stride() + (slot_row(plan.T) + n) * kUnits + u);
          store_partial(to + n * plan.H + unit, value, plan.H - unit);
        }
      }
    }
  }

  Operand<S> inputs(Index step, Index n) const {
    return row_major(args.xs + (n * plan.T + plan.time(step)) * plan.D, plan.T * plan.D, plan.D);
  }

  S* gate_row(Index step, Index j, Index n) const {
    return args.gates + j * Cell::kLayout.gate_stride(plan.rows) + (step * plan.N + n) * kWidth;
  }

  // gates = b + x Wx, for all steps of some rows of the batch. A tile takes neighbours in the batch or in time,
  // whichever makes fewer tiles; neighbours in time are neighbours in memory.
  void multiply_inputs(const S* packed, Index j, Range rows) const {
    const Index count_rows = rows.end - rows.begin;
    constexpr Index kMost = kTileRows<kTileVectors>;
    const bool along_time = ceil_div(plan.T, kMost) * count_rows <= ceil_div(count_rows, kMost) * plan.T;
    const Index tiled = along_time ? plan.T : count_rows;
    const Index repeated = along_time ? count_rows : plan.T;
    for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
      const S* Wx = packed + panel * plan.D;
      const S* bias = packed_b + j * kWidth + panel;
      with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
        for (Index outer = 0; outer < repeated; ++outer) {
          for (Index inner = 0; inner < tiled;) {
            const Index count = next_tile(tiled, inner, kTileRows<vectors>);
            const Index step = along_time ? inner : outer, n = rows.begin + (along_time ? outer : inner);
            Term<S> term{inputs(step, n), Wx};
            if (along_time) {
              term.a.row_stride = plan.sizes.reverse ? -plan.D : plan.D;
              term.next = term.a.data + (plan.sizes.reverse ? -2 * count + 1 : count) * plan.D;
            }
            kTilesOf<S, vectors>.by_rows[count](&term, 1, bias, 0, gate_row(step, j, n) + panel,
                                                along_time ? plan.N * kWidth : kWidth);
            inner += count;
          }
        }
      });
    });
  }

  // One step of block j of this thread's blocks of units.
  void step_forward(Index step, Index j, Range blocks, Range rows, bool hoisted) const {
    alignas(64) S tile[kTileRows<kTileVectors> * kWidth];
    const Index columns = plan.columns(j);
    // Weights that do not stay in the first cache level: those of the next block are prefetched bit by bit meanwhile.
    const bool look_ahead = kPanel * plan.H * static_cast<Index>(sizeof(S)) > kFirstLevelBytes;
    const Index next_j = j + 1 < blocks.end ? j + 1 : blocks.begin;
    Index prefetched = 0;
    for (Index n = rows.begin; n < rows.end;) {
      // A last panel narrower than the tile could take more rows, but all panels of a block share them.
      const Index count = next_tile(rows.end - rows.begin, n - rows.begin, kTileRows<kTileVectors>);
      const Operand<S> h{args.h + (slot_row(step) + n) * kUnits, kUnits, state_stride(), kUnits, 1, plan.H};
      if (hoisted) prefetch(gate_row(step, next_j, n), count * kWidth);
      for_each_panel<S>(0, columns, [&](Index panel, Index width) {
        const S* Wh = packed_Wh + j * kWidth * plan.H + panel * plan.H;
        const S* Wx = packed_Wx + j * kWidth * plan.D + panel * plan.D;
        const S* next = nullptr;
        if (look_ahead) next = prefetched < kWidth * plan.H ? packed_Wh + next_j * kWidth * plan.H + prefetched : Wh;
        prefetched += plan.H * kCacheLine<S>;
        const Term<S> terms[2] = {{inputs(step, n), Wx}, {h, Wh, next}};
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          const Tile<S> multiply = kTilesOf<S, vectors>.by_rows[count];
          if (hoisted) {
            multiply(terms + 1, 1, gate_row(step, j, n) + panel, kWidth, tile + panel, kWidth);
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

  // One step of the only row, without packed weights. Sums run over k in the order of the tiles: the same bits.
  void step_forward_one_row(Index step, Range blocks) const {
    S* const sums = packed_Wx;  // blocks of gates; free, because nothing is packed but the bias
    for (Index k = blocks.begin * kWidth; k < blocks.end * kWidth; ++k) sums[k] = packed_b[k];
    add_row(inputs(step, 0).data, plan.D, args.Wx, blocks, sums);
    for (Index j = 0; j < plan.blocks; ++j) {
      add_row(args.h + j * state_stride() + slot_row(step) * kUnits, min_of(kUnits, plan.H - j * kUnits),
              args.Wh + j * kUnits * plan.G, blocks, sums);
    }
    for (Index j = blocks.begin; j < blocks.end; ++j) {
      activate_gates(step, j, 0, sums + j * kWidth);
      store_output(step, j, 0, sums + j * kWidth);
    }
  }

  // sums += a W, for a of `depth` elements and as many rows of W, which are read in runs of neighbours.
  void add_row(const S* a, Index depth, const S* W, Range blocks, S* sums) const {
    constexpr Index kRows = 8;
    Index k = 0;
    for (; k + kRows <= depth; k += kRows) add_rows<kRows>(a + k, W + k * plan.G, blocks, sums);
    for (; k < depth; ++k) add_rows<1>(a + k, W + k * plan.G, blocks, sums);
  }

  template <Index count>
  void add_rows(const S* a, const S* W, Range blocks, S* sums) const {
    Vec<S> factors[count];
#pragma GCC unroll 8
    for (Index k = 0; k < count; ++k) factors[k] = broadcast(a[k]);
    for (Index gate = 0; gate < P::kGates; ++gate) {
      const S* const column = W + plan.sizes.gate_position[gate] * plan.H;
      for (Index j = blocks.begin; j < blocks.end; ++j) {
        for (Index u = 0; u < plan.columns(j) / P::kGates; u += kLanes<S>) {
          const Index unit = j * kUnits + u;
          S* const place = sums + j * kWidth + gate * kUnits + u;
          Vec<S> sum = load(place);
#pragma GCC unroll 8
          for (Index k = 0; k < count; ++k) {
            sum += factors[k] * load_partial(column + k * plan.G + unit, plan.H - unit);
          }
          store(place, sum);
        }
      }
    }
  }

  bool valid(Index step, Index n) const { return args.mask == nullptr || args.mask[n * plan.T + plan.time(step)]; }
  // Where the state of row n before a step lies, in block j.
  Index place_before(Index step, Index j, Index n) const { return j * state_stride() + (slot_row(step) + n) * kUnits; }

  // The cell's arithmetic on one row of a tile comes in two parts, so that the long chain from the gates to h is
  // broken: the first one of all rows runs while the processor waits for none.
  void activate_gates(Index step, Index j, Index n, S* tile_row) const {
    if constexpr (Cell::kHasCellState) {
      if (!valid(step, n)) return;
      const Index before = place_before(step, j, n), after = place_before(step + 1, j, n);
      S* const activated = args.gates ? gate_row(step, j, n) : tile_row;
      for (Index u = 0; u < kUnits; u += kLanes<S>) {
        Cell::template activate_gates<S>(tile_row + u, activated + u, args.c, before + u, after + u);
      }
    }
  }

  void store_output(Index step, Index j, Index n, const S* tile_row) const {
    const Index t = plan.time(step);
    const Index before = place_before(step, j, n), after = place_before(step + 1, j, n);
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
      if (args.hs) {
        const Index unit = j * kUnits + u;
        store_partial(args.hs + (n * plan.T + t) * plan.H + unit, h, plan.H - unit);
      }
    }
  }
};

// ---- Backward ------------------------------------------------------------------------------------------------------

template <class S, class Cell>
struct BackwardPass {
  using P = Plan<S, Cell>;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth, kPanel = P::kPanel;
  // Rows of one chain of sums in the weights' gradients: as many as stay in the first cache level. Longer ones lose
  // accuracy, too.
  static constexpr Index kChunk = 384 / static_cast<Index>(sizeof(S));
  // Blocks of rows of the weights' gradients that are summed at a time, and of columns that are stored at a time.
  static constexpr Index kLeftBlocks = 128 / kUnits;
  static Index gate_blocks(const P& plan) { return plan.H < 256 ? 1 : 8; }
  static Index results_size(const P& plan) { return kLeftBlocks * gate_blocks(plan) * kUnits * kWidth; }
  // Rows and columns of the gates' gradients that stay in the cache while they meet all panels of a weight.
  static constexpr Index kRowBlock = 64;
  static constexpr Index kColumnBlock = 1024;

  const RecurrentBackward<S>& args;
  P plan;
  S* packed_Wh;    // transposed: panels of units, each [G][width]
  S* packed_Wx;    // transposed: panels of inputs
  S* x;            // inputs in blocks [D / kUnits][T N][kUnits], in the order of processing
  S* product;      // panels of dh for all rows, or of dx for kRowBlock rows a thread
  S* dc;           // state layout, one slot
  S* carried;      // what a masked step hands through, state layout, one slot
  S* weight_sums;  // results_size() a thread

  explicit BackwardPass(const RecurrentBackward<S>& a) : args(a), plan(a.sizes) {
    packed_Wh = args.workspace;
    packed_Wx = packed_Wh + plan.padded_units() * plan.G;
    x = packed_Wx + plan.padded_inputs() * plan.G;
    product = x + plan.input_blocks * Cell::kLayout.state_stride(plan.rows);
    dc = product + product_size(plan);
    carried = dc + plan.blocks * state_stride();
    weight_sums = carried + plan.blocks * state_stride();
  }

  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return (plan.padded_units() + plan.padded_inputs()) * plan.G +
           plan.input_blocks * Cell::kLayout.state_stride(plan.rows) + product_size(plan) +
           2 * plan.blocks * Cell::kLayout.state_stride(plan.N) + plan.threads() * results_size(plan);
  }

  static Index product_size(const P& plan) {
    return max_of(plan.padded_units() * plan.N, plan.threads() * plan.padded_inputs() * kRowBlock);
  }

  Index state_stride() const { return Cell::kLayout.state_stride(plan.N); }
  Index kept_state_stride() const { return Cell::kLayout.state_stride(plan.rows + plan.N); }
  Index gate_stride() const { return Cell::kLayout.gate_stride(plan.rows); }

  // Where the units before a block end, in whole vectors.
  Index units_end(Index block) const { return min_of(block * kUnits, ceil_div(plan.H, kLanes<S>) * kLanes<S>); }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team);
    const Range blocks = plan.own_blocks(team);
    const Range units{blocks.begin * kUnits, units_end(blocks.end)};
    pack_Wh(team, units);
    pack_inputs(piece(plan.rows, team.member(), team.size()));
    if (plan.split_rows()) team.wait();  // all of Wh is packed

    init_backward(rows, units);
    for (Index step = plan.T - 1; step >= 0; --step) {
      if (!plan.split_rows()) team.wait();  // all gradients of this step's gates are there
      step_backward(step, units, rows);
    }
    if constexpr (Cell::kHasCellState) store_dc0(rows, units);

    for_each_own_input_panel(team, [&](Index first, Index width) {
      pack_transposed_panel(plan, args.Wx, plan.D, first, width, packed_Wx + first * plan.G);
    });
    const Index input_items = row_pieces(plan.rows, kRowBlock, team.size());
    const WeightGroups groups(plan, team);
    team.deal(input_items + groups.count());
    team.wait();
    for (Index item; (item = team.take()) >= 0;) {
      if (item < input_items) {
        multiply_dx(team, item, input_items);
      } else {
        multiply_dW(team, groups, item - input_items);
      }
    }
  }

  template <class Body>
  void for_each_own_input_panel(const Team& team, const Body& body) const {
    Index index = 0;
    for_each_panel<S>(0, plan.padded_inputs(), [&](Index first, Index width) {
      if (index++ % team.size() == team.member()) body(first, width);
    });
  }

  // A panel is packed where its first column is. Threads that own rows share all panels; threads that own units pack
  // the panels of their own units.
  void pack_Wh(const Team& team, Range units) const {
    Index index = 0;
    for_each_panel<S>(units.begin, units.end, [&](Index first, Index width) {
      if (!plan.split_rows() || index++ % team.size() == team.member()) {
        pack_transposed_panel(plan, args.Wh, plan.H, first, width, packed_Wh + first * plan.G);
      }
    });
  }

  void pack_inputs(Range rows) const {
    const Index stride = Cell::kLayout.state_stride(plan.rows);
    for (Index r = rows.begin; r < rows.end; ++r) {
      const Index n = r % plan.N, t = plan.time(r / plan.N);
      const bool valid = args.mask == nullptr || args.mask[n * plan.T + t];
      const S* source = args.xs + (n * plan.T + t) * plan.D;
      for (Index d = 0; d < plan.D; d += kLanes<S>) {
        // Masked steps may hold anything; zeros keep it out of the weights' gradients.
        const Vec<S> value = valid ? load_partial(source + d, plan.D - d) : Vec<S>{};
        store(x + d / kUnits * stride + r * kUnits + d % kUnits, value);
      }
    }
  }

  // The gradients after the last step, and through the last step's cell.
  void init_backward(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        const Index place = n * plan.H + u;
        if constexpr (Cell::kHasCellState) {
          store(state(dc, n, u), args.dc_n ? load_partial(args.dc_n + place, plan.H - u) : Vec<S>{});
        }
        const Vec<S> dh = args.dh_n ? load_partial(args.dh_n + place, plan.H - u) : Vec<S>{};
        if (plan.T > 0) {
          cell_backward(plan.T - 1, n, u, dh);
        } else {
          store_partial(args.dh0 + place, dh, plan.H - u);
        }
      }
    }
  }

  S* state(S* buffer, Index n, Index u) const { return buffer + u / kUnits * state_stride() + n * kUnits + u % kUnits; }

  S* gate_row(Index step, Index n, Index u) const {
    return args.gates + u / kUnits * gate_stride() + (step * plan.N + n) * kWidth + u % kUnits;
  }

  // From dh, the gradient of h after a step (without dhs): the gradients of the step's pre-activations.
  FASTLSTM_INLINE void cell_backward(Index step, Index n, Index u, Vec<S> dh) const {
    const Index t = plan.time(step);
    if (args.dhs) dh += load_partial(args.dhs + (n * plan.T + t) * plan.H + u, plan.H - u);
    const bool valid = args.mask == nullptr || args.mask[n * plan.T + t];
    if (args.mask) store(state(carried, n, u), valid ? Vec<S>{} : dh);
    S* const gates = gate_row(step, n, u);
    if (!valid) {
      for (Index gate = 0; gate < P::kGates; ++gate) store(gates + gate * kUnits, Vec<S>{});
      return;
    }
    const Index before = u / kUnits * kept_state_stride() + (step * plan.N + n) * kUnits + u % kUnits;
    const Index after = before + plan.N * kUnits;
    Cell::template backward<S>(gates, args.h, args.c, before, after, dh,
                               Cell::kHasCellState ? state(dc, n, u) : nullptr);
  }

  // out = dA W^T for `count` rows of the gates' gradients from `row` on, and columns of W^T: panels [count][width].
  // While a part of dA meets the panels, the part that is next is prefetched: in the end that of the `following` rows.
  void multiply_gate_gradients(Index row, Index count, Range columns, const S* packed, S* out, Index following) const {
    constexpr Index kBlocks = kColumnBlock / kWidth;
    const Index width_in_vectors = ceil_div(columns.end - columns.begin, kLanes<S>);
    const Index panels = ceil_div(width_in_vectors, kTileVectors);
    const Index first_width = next_tile(width_in_vectors, 0, kTileVectors) * kLanes<S>;
    for (Index first = 0; first < plan.blocks; first += kBlocks) {
      const Operand<S> part = gate_gradients(row).blocks(first, first + kBlocks);
      const bool last_part = first + kBlocks >= plan.blocks;
      const Index next_first = last_part ? 0 : first + kBlocks;
      Index panel = 0;
      for_each_panel<S>(columns.begin, columns.end, [&](Index column, Index width) {
        const S* const b = packed + column * plan.G + first * kWidth * width;
        const bool last = column + width >= columns.end;
        const S* const next = last ? packed + columns.begin * plan.G + next_first * kWidth * first_width
                                   : packed + (column + width) * plan.G + first * kWidth * width;
        const Range prefetched = piece(min_of(kBlocks, plan.blocks - next_first), panel++, panels);
        for (Index j = next_first + prefetched.begin; j < next_first + prefetched.end; ++j) {
          const S* const gates = args.gates + j * gate_stride() + row * kWidth;
          prefetch(last_part ? gates + count * kWidth : gates, (last_part ? following : count) * kWidth);
        }
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          multiply_rows<S, vectors>(part, b, next, count, first == 0, out + (column - columns.begin) * count);
        });
      });
    }
  }

  // dh before a step: dA Wh^T; then on through the cell of the step before it.
  void step_backward(Index step, Range units, Range rows) const {
    const Index count = rows.end - rows.begin;
    // Each thread's own part: of the rows, or of the units.
    S* const dh_panels = product + units.begin * plan.N + rows.begin * plan.padded_units();
    multiply_gate_gradients(step * plan.N + rows.begin, count, units, packed_Wh, dh_panels, 0);
    for_each_panel<S>(units.begin, units.end, [&](Index first, Index width) {
      for (Index u = first; u < first + width; u += kLanes<S>) {
        const S* const column = dh_panels + (first - units.begin) * count + (u - first);
        for (Index n = rows.begin; n < rows.end; ++n) {
          Vec<S> dh = load(column + (n - rows.begin) * width);
          if (args.mask) dh += load(state(carried, n, u));
          if (step > 0) {
            cell_backward(step - 1, n, u, dh);
          } else {
            store_partial(args.dh0 + n * plan.H + u, dh, plan.H - u);
          }
        }
      }
    });
  }

  void store_dc0(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store_partial(args.dc0 + n * plan.H + u, load(state(dc, n, u)), plan.H - u);
      }
    }
  }

  Operand<S> gate_gradients(Index row) const {
    return {args.gates + row * kWidth, kWidth, gate_stride(), kUnits, static_cast<int>(P::kGates), plan.H};
  }

  // dx = dA Wx^T, of one piece of the rows.
  void multiply_dx(const Team& team, Index item, Index items) const {
    const Range rows = piece(plan.rows, item, items);
    const Index count = rows.end - rows.begin;
    const Index following = item + 1 < items ? piece(plan.rows, item + 1, items).end - rows.end : 0;
    S* const dx_panels = product + team.member() * plan.padded_inputs() * kRowBlock;
    multiply_gate_gradients(rows.begin, count, {0, plan.padded_inputs()}, packed_Wx, dx_panels, following);
    for (Index r = rows.begin; r < rows.end; ++r) store_dx(r, dx_panels, count, r - rows.begin);
  }

  // Row m of panels of `count` rows to the input gradient of row r.
  void store_dx(Index r, const S* panels, Index count, Index m) const {
    S* const out = args.dxs + (r % plan.N * plan.T + plan.time(r / plan.N)) * plan.D;
    for_each_panel<S>(0, plan.padded_inputs(), [&](Index first, Index width) {
      for (Index v = 0; v < width; v += kLanes<S>) {
        store_partial(out + first + v, load(panels + first * count + m * width + v), plan.D - first - v);
      }
    });
  }

  // dWx = x^T dA, dWh = h_prev^T dA, db = sum of dA: all steps at once. The work is split over blocks of the results:
  // a group of blocks of rows of dWx and dWh (they share what is read of dA) and a group of gate blocks of columns
  // (their results are written together: single cache lines far from each other take longer than the sums).
  struct WeightGroups {
    Index left_blocks, left_groups, column_groups;
    WeightGroups(const P& plan, const Team& team)
        : left_blocks(plan.input_blocks + plan.blocks), column_groups(ceil_div(plan.blocks, gate_blocks(plan))) {
      // At least two items of work a thread.
      left_groups = min_of(
          max_of(ceil_div(left_blocks, kLeftBlocks), ceil_div(2 * team.size(), max_of(column_groups, 1))), left_blocks);
    }
    Index count() const { return left_groups * column_groups; }
  };
  void multiply_dW(const Team& team, const WeightGroups& groups, Index item) const {
    const Range lefts = piece(groups.left_blocks, item / groups.column_groups, groups.left_groups);
    const Range columns = piece(plan.blocks, item % groups.column_groups, groups.column_groups);
    S* const results = weight_sums + team.member() * results_size(plan);
    for (Index j = columns.begin; j < columns.end; ++j) {
      weight_blocks(lefts, j, results + (j - columns.begin) * kLeftBlocks * kUnits * kWidth);
      if (item < groups.column_groups) bias_block(j);
    }
    store_weight_blocks(lefts, columns, results);
  }

  // A block of rows of dWx or dWh: its left operand, its place, and how many rows of it there are.
  struct WeightRows {
    const S* left;
    S* dW;
    Index count;
  };
  WeightRows weight_rows(Index block) const {
    if (block < plan.input_blocks) {
      return {x + block * Cell::kLayout.state_stride(plan.rows), args.dWx + block * kUnits * plan.G,
              min_of(kUnits, plan.D - block * kUnits)};
    }
    const Index i = block - plan.input_blocks;
    return {args.h + i * kept_state_stride(), args.dWh + i * kUnits * plan.G, min_of(kUnits, plan.H - i * kUnits)};
  }

  // Some blocks of rows of dWx and dWh, columns of gate block j. A chunk of dA stays in the first cache level while it
  // meets all of them.
  void weight_blocks(Range lefts, Index j, S* sums) const {
    for (Index k = 0; k < (lefts.end - lefts.begin) * kUnits * kWidth; k += kLanes<S>) store(sums + k, Vec<S>{});
    const S* const gates = args.gates + j * gate_stride();
    const Index chunks = ceil_div(plan.rows, kChunk);
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const Range rows = piece(plan.rows, chunk, chunks);
      for (Index left = lefts.begin; left < lefts.end; ++left) {
        add_weight_block(weight_rows(left), gates, rows, plan.columns(j),
                         sums + (left - lefts.begin) * kUnits * kWidth);
      }
    }
  }

  void store_weight_blocks(Range lefts, Range columns, const S* results) const {
    for (Index left = lefts.begin; left < lefts.end; ++left) {
      const WeightRows block = weight_rows(left);
      for (Index lane = 0; lane < block.count; ++lane) {
        const S* const row = results + ((left - lefts.begin) * kUnits + lane) * kWidth;
        unpack_gates(row, kLeftBlocks * kUnits * kWidth, columns, block.dW + lane * plan.G);
      }
    }
  }

  static void add_weight_block(const WeightRows& block, const S* gates, Range rows, Index columns, S* sums) {
    for_each_panel<S>(0, columns, [&](Index panel, Index width) {
      with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
        for (Index lane = 0; lane < block.count;) {
          const Index tile = next_tile(block.count, lane, kTileRows<vectors>);
          kTransposedTilesOf<S, vectors>.by_rows[tile](block.left + rows.begin * kUnits + lane, kUnits,
                                                       gates + rows.begin * kWidth + panel, kWidth,
                                                       rows.end - rows.begin, sums + lane * kWidth + panel, kWidth);
          lane += tile;
        }
      });
    });
  }

  void bias_block(Index j) const {
    alignas(64) S sums[kWidth];
    const S* const gates = args.gates + j * gate_stride();
    for (Index column = 0; column < plan.columns(j); column += kLanes<S>) {
      Vec<S> total{};
      for (Index r = 0; r < plan.rows; r += kChunk) {
        Vec<S> sum{};
        for (Index k = r; k < min_of(r + kChunk, plan.rows); ++k) sum += load(gates + k * kWidth + column);
        total += sum;
      }
      store(sums + column, total);
    }
    unpack_gates(sums, 0, {j, j + 1}, args.db);
  }

  // A row of gate blocks, `stride` from each other, to its places in a row of G columns.
  void unpack_gates(const S* row, Index stride, Range columns, S* out) const {
    for (Index gate = 0; gate < P::kGates; ++gate) {
      S* const places = out + plan.sizes.gate_position[gate] * plan.H;
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

// ---- Table ---------------------------------------------------------------------------------------------------------

template <class Pass>
void run_pass(void* pass, Team& team) {
  static_cast<const Pass*>(pass)->run(team);
}

template <class S, class Cell>
void run_forward(const RecurrentForward<S>& args) {
  ForwardPass<S, Cell> pass(args);
  run_team(pass.plan.threads(), run_pass<ForwardPass<S, Cell>>, &pass);
}

template <class S, class Cell>
void run_backward(const RecurrentBackward<S>& args) {
  BackwardPass<S, Cell> pass(args);
  run_team(pass.plan.threads(), run_pass<BackwardPass<S, Cell>>, &pass);
}

}  // namespace fastlstm::FASTLSTM_ISA
