// The backward pass over a sequence, of all cells: back through the steps, then what all steps share.
//
// The gradients of the pre-activations take the place of the gates, plane by plane (see kernels.h). The GRU alone has
// more planes than its weights have: the last one belongs to the columns of the one before it. Unless exact, they are
// written beside it too, as words along units (Plan::gate_words_place).
#pragma once

#include "../vector_math.h"
#include "pack.h"
#include "single_row.h"
#include "weight_gradients.h"

namespace fastlstm::FASTLSTM_ISA {

// Where a cell's backward finds a vector of units of one step.
template <class S>
struct CellPlaces {
  S* gates;     // in the first plane
  Index plane;  // from a plane to the next
  const S* h_prev;
  const S* h;
  const S* c_prev;  // LSTM only
  const S* c;
  S* dc;       // of c, then of c_prev
  S* carried;  // GRU: what goes around the products to h_prev
};

template <class Format, class Cell>
struct SequenceBackward {
  using P = Plan<Format, Cell>;
  using Word = typename P::Word;
  using S = typename P::S;
  using Weighted = WeightGradients<Format, Cell>;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth, kDepth = P::kDepth;
  // Rows and columns of the gates' gradients that stay in the cache while they meet all panels of a weight.
  static constexpr Index kRowBlock = 64;
  static constexpr Index kColumnBlock = 1024;
  // Rows of dhs are far from each other, often in the same cache set.
  static constexpr Index kRowsPrefetched = 4;

  const RecurrentBackward<S>& args;
  P plan;
  // What the products after the time loop meet: the rows of all steps that are not masked, one behind the other.
  Index count;             // of them
  Index* rows_that_count;  // null if all do
  Word* packed_weights;    // transposed: panels of Wh's units, then of Wx's inputs, each [words along G][width]
  Word* x;                 // inputs along rows, see pack_along_rows
  Word* dA;                // the gates' gradients along units
  Word* h;                 // h_prev along rows; null if it is read where it lies
  Word* reset;             // of the GRU's r h_prev; null if exact
  S* product;              // panels of dh for all rows, or of dx for kRowBlock rows a thread
  S* dc;                   // state layout, one slot
  S* carried;              // what goes around the products to the state before a step, state layout, one slot
  S* weight_sums;

  explicit SequenceBackward(const RecurrentBackward<S>& a) : args(a), plan(a.sizes) {
    rows_that_count = rows_size(plan) > 0 ? reinterpret_cast<Index*>(args.workspace) : nullptr;
    count = rows_that_count ? 0 : plan.rows;
    for (Index r = 0; rows_that_count && r < plan.rows; ++r) {
      if (is_valid(r)) rows_that_count[count++] = r;
    }
    packed_weights = reinterpret_cast<Word*>(args.workspace) + rows_size(plan);
    x = packed_weights + packed_size(plan);
    dA = x + inputs_size(plan);
    h = dA + words_size(plan);
    reset = h + states_size(plan);
    product = reinterpret_cast<S*>(reset + reset_size(plan));
    if constexpr (Format::kIsExact) dA = args.gates;
    if (states_size(plan) == 0) h = nullptr;
    if (reset_size(plan) == 0) reset = nullptr;
    dc = product + product_size(plan);
    carried = dc + (Cell::kHasCellState ? P::kLayout.state_buffer(plan.N, plan.H) : 0);
    weight_sums = carried + P::kLayout.state_buffer(plan.N, plan.H);
  }

  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return rows_size(plan) + packed_size(plan) + inputs_size(plan) + words_size(plan) + states_size(plan) +
           reset_size(plan) + product_size(plan) +
           (Cell::kHasCellState ? 2 : 1) * P::kLayout.state_buffer(plan.N, plan.H) +
           plan.threads() * Weighted::workspace(plan);
  }
  // Whole cache lines, as what follows is aligned to them.
  static Index rows_size(const P& plan) {
    constexpr Index kLine = kCacheLine<S>, kIndices = kCacheLine<Index>;
    return plan.sizes.masked && plan.packs() ? ceil_div(plan.rows, kIndices) * kLine : 0;
  }
  static Index packed_size(const P& plan) {
    return plan.packs() ? max_of(plan.padded_units(), plan.padded_inputs()) * Cell::kGates * plan.H_words : 0;
  }
  // Few rows are numbers (see Plan::packs).
  static Index inputs_size(const P& plan) {
    return plan.input_blocks * P::kLayout.state_stride(plan.packs() ? words<Format>(plan.rows) : plan.rows);
  }
  static Index words_size(const P& plan) {
    return Format::kIsExact ? 0 : P::kWordLayout.gate_buffer(plan.rows, plan.H_words);
  }
  static Index states_size(const P& plan) {
    const bool packs = plan.packs() && (!Format::kIsExact || plan.sizes.masked);
    return packs ? P::kLayout.state_buffer(words<Format>(plan.rows), plan.H) : 0;
  }
  static Index reset_size(const P& plan) { return !Format::kIsExact && packs_reset(plan) ? states_size(plan) : 0; }
  static bool packs_reset(const P& plan) { return Cell::kHasResetGate && !plan.sizes.reset_after; }
  static Index product_size(const P& plan) {
    return max_of(plan.padded_units() * plan.N, plan.threads() * plan.padded_inputs() * kRowBlock);
  }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team, args.mask), units = plan.own_units(team);
    if (plan.packs()) pack_Wh(team, units);
    pack_left_factors(team);
    if (plan.split_rows()) team.wait();  // all of Wh is packed

    init_backward(rows, units);
    for (Index step = plan.T - 1; step >= 0; --step) {
      if (!plan.meet(team)) break;  // all gradients of this step's gates are there
      if constexpr (Cell::kHasResetGate) {
        if (!plan.sizes.reset_after) {
          reset_backward(step, rows, units);
          plan.meet(team);
        }
      }
      if (step > 0 || args.dh0) step_backward(step, rows, units);
    }
    if constexpr (Cell::kHasCellState) store_dc0(rows, units);

    team.wait();  // nobody needs Wh any more: Wx takes its place
    if (plan.packs() && args.dxs.data) pack_Wx(team);
    if (rows_that_count) close_gaps(team);
    const Index input_items = args.dxs.data ? row_pieces(count, kRowBlock, team.size()) : 0;
    const Weighted weights(args, plan, {count, x, h, reset, dA}, weight_sums, team);
    team.deal(input_items + weights.count());
    team.wait();
    for (Index item; (item = team.take()) >= 0;) {
      if (item < input_items) {
        inputs_backward(team, item, input_items, weights);
      } else {
        weights.run(team, item - input_items);
      }
    }
  }

  // Threads that own rows share all panels; threads that own units pack the panels of their own units.
  void pack_Wh(const Team& team, Range units) const {
    Index index = 0;
    for_each_panel<S>(units.begin, units.end, [&](Index first, Index width) {
      if (plan.split_rows() && index++ % team.size() != team.member()) return;
      pack_transposed_gates<Format>(plan, args.Wh, plan.H, first, width, panel_of_weights(first));
    });
  }

  void pack_Wx(const Team& team) const {
    Index index = 0;
    for_each_panel<S>(0, plan.padded_inputs(), [&](Index first, Index width) {
      if (index++ % team.size() != team.member()) return;
      pack_transposed_gates<Format>(plan, args.Wx, plan.D, first, width, panel_of_weights(first));
    });
  }

  Word* panel_of_weights(Index column) const { return packed_weights + column * Cell::kGates * plan.H_words; }

  // What dA is multiplied by in the weights' gradients: a thread's share of the rows.
  void pack_left_factors(const Team& team) const {
    const auto share = [&](Index count) { return piece(count, team.member(), team.size()); };
    const auto input = [&](Index k, Index d) {
      const Index r = row_that_counts(k);
      return load_partial(plan.at(args.xs, r / plan.N, r % plan.N) + d, plan.D - d);
    };
    if (!plan.packs()) {
      S* const numbers = reinterpret_cast<S*>(x);
      if (args.dWx.data) pack_along_rows<Exact<S>>(plan, count, share(count), plan.D, numbers, input);
      return;
    }
    const Range range = share(words<Format>(count));
    if (args.dWx.data) pack_along_rows<Format>(plan, count, range, plan.D, x, input);
    if (!args.dWh.data) return;
    const auto pack_states = [&](const S* states, Index stride, Word* packed) {
      pack_along_rows<Format>(plan, count, range, plan.padded_units(), packed, [&](Index k, Index u) {
        return load(states + row_that_counts(k) * kUnits + u / kUnits * stride + u % kUnits);
      });
    };
    if (h) pack_states(args.h, P::kLayout.state_stride(plan.rows + plan.N), h);
    if constexpr (Cell::kHasResetGate) {
      if (reset) pack_states(gates(Cell::kQ, 0, 0), P::kLayout.gate_stride(plan.rows), reset);
    }
  }

  bool is_valid(Index r) const { return plan.valid(args.mask, r / plan.N, r % plan.N); }
  Index row_that_counts(Index k) const { return rows_that_count ? rows_that_count[k] : k; }

  // Moves the rows that count together, in the gates and the words beside them; those of dxs that do not are zeros.
  void close_gaps(const Team& team) const {
    const auto close = [&](auto* row, Index width) {
      for (Index k = 0; k < count; ++k) {
        if (k == rows_that_count[k]) continue;
        for (Index v = 0; v < width; v += kLanes<S>)
          store(row + k * width + v, load(row + rows_that_count[k] * width + v));
      }
    };
    const Range own = piece(P::kLayout.planes * plan.blocks, team.member(), team.size());
    for (Index item = own.begin; item < own.end; ++item) {
      const int plane = static_cast<int>(item / plan.blocks);
      const Index u = item % plan.blocks * kUnits;
      close(gates(plane, 0, u), kWidth);
      if constexpr (!Format::kIsExact) close(dA + plan.gate_words_place(plane, 0, u), kWidth / kDepth);
    }
    if (!args.dxs.data) return;
    const Range rows = piece(plan.rows, team.member(), team.size());
    const Index columns = args.Wx.data ? plan.D : plan.G;
    for (Index r = rows.begin; r < rows.end; ++r) {
      for (Index d = 0; d < columns && !is_valid(r); d += kLanes<S>) store_partial(dx(r) + d, Vec<S>{}, columns - d);
    }
  }

  S* state(S* buffer, Index n, Index u) const { return buffer + P::state_place(plan.N, n, u); }

  // The gradients after the last step, and through the last step's cell.
  void init_backward(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        const Index place = n * plan.H + u;
        if constexpr (Cell::kHasCellState) {
          store(state(dc, n, u), args.dc_n ? load_partial(args.dc_n + place, plan.H - u) : Vec<S>{});
        }
        propagate_dh(plan.T, n, u, args.dh_n ? load_partial(args.dh_n + place, plan.H - u) : Vec<S>{});
      }
    }
  }

  // dh, the gradient of the state before `step` (without dhs), to the cell of the step before that.
  FASTLSTM_INLINE void propagate_dh(Index step, Index n, Index u, const Vec<S>& dh) const {
    if (step > 0) {
      cell_backward(step - 1, n, u, dh);
    } else if (args.dh0) {
      store_partial(args.dh0 + n * plan.H + u, dh, plan.H - u);
    }
  }

  // From dh, the gradient of h after a step (without dhs): the gradients of the step's pre-activations.
  FASTLSTM_INLINE void cell_backward(Index step, Index n, Index u, Vec<S> dh) const {
    if (args.dhs.data) {
      const S* const given = plan.at(args.dhs, step, n) + u;
      __builtin_prefetch(given + kRowsPrefetched * args.dhs.row);
      dh += load_partial(given, plan.H - u);
    }
    const bool valid = plan.valid(args.mask, step, n);
    if (args.mask) store(state(carried, n, u), valid ? Vec<S>{} : dh);
    const Index row = step * plan.N + n;
    if (!valid) {
      for (int plane = 0; plane < gradient_planes(); ++plane) {
        for (Index gate = 0; gate < P::kGates; ++gate) store(gates(plane, row, u) + gate * kUnits, Vec<S>{});
        put_words(plane, row, u);
      }
      return;
    }
    const Index before = P::state_place(plan.rows + plan.N, row, u), after = before + plan.N * kUnits;
    CellPlaces<S> places{.gates = gates(0, row, u),
                         .plane = P::kLayout.plane(plan.rows, plan.H),
                         .h_prev = args.h + before,
                         .h = args.h + after,
                         .c_prev = nullptr,
                         .c = nullptr,
                         .dc = nullptr,
                         .carried = state(carried, n, u)};
    if constexpr (Cell::kHasCellState) {
      places.c_prev = args.c + before;
      places.c = args.c + after;
      places.dc = state(dc, n, u);
    }
    Cell::template backward<S>(plan.sizes, places, dh);
    for (int plane = 0; plane < gradient_planes(); ++plane) {
      if constexpr (Cell::kHasResetGate) {
        if (packs_reset(plan) && plane == Cell::kR) continue;  // it comes with reset_backward
      }
      put_words(plane, row, u);
    }
  }

  // All planes but the GRU's r h_prev, which stays as it is and is 0 in masked steps.
  Index gradient_planes() const { return P::kLayout.planes - (packs_reset(plan) ? 1 : 0); }

  S* gates(int plane, Index row, Index u) const { return args.gates + plan.gate_place(plane, row, u); }

  // A vector of units of a plane's gradients as factors.
  FASTLSTM_INLINE void put_words(int plane, Index row, Index u) const {
    if constexpr (!Format::kIsExact) {
      if (!plan.packs()) return;
      Word* const out = dA + plan.gate_words_place(plane, row, u);
      for (Index gate = 0; gate < P::kGates; ++gate) {
        put_along_k<Format>(gates(plane, row, u) + gate * kUnits, plan.H - u, out + gate * (kUnits / kDepth));
      }
    }
  }

  // Planes of gradients that are multiplied by their gates' weights and summed.
  struct Planes {
    int index[P::kPlanes];
    int count;
  };
  static constexpr Planes kInputPlanes = [] {
    Planes all{.index = {}, .count = P::kPlanes};
    for (int k = 0; k < P::kPlanes; ++k) all.index[k] = k;
    return all;
  }();
  // Those that went through the product with h_prev itself.
  Planes state_planes() const {
    if constexpr (Cell::kHasResetGate) {
      return plan.sizes.reset_after ? Planes{{Cell::kZ, Cell::kR, Cell::kQ}, 3} : Planes{{Cell::kZ, Cell::kR}, 2};
    } else {
      return kInputPlanes;
    }
  }

  // dh before a step; then on through the cell of the step before it.
  void step_backward(Index step, Range rows, Range units) const {
    multiply_step(step, rows, units, state_planes(), [&](Index n, Index u, Vec<S> dh) {
      if (Cell::kHasResetGate || args.mask) dh += load(state(carried, n, u));
      propagate_dh(step, n, u, dh);
    });
  }

  // The reset gate before the product: d(r h) = dn Wh_n^T, and from it the gradients of r and, in part, of h.
  void reset_backward(Index step, Range rows, Range units) const {
    multiply_step(step, rows, units, Planes{{Cell::kN}, 1}, [&](Index n, Index u, const Vec<S>& dq) {
      if (!plan.valid(args.mask, step, n)) return;
      const Index row = step * plan.N + n;
      S* const around = state(carried, n, u);
      const S* const h_prev = args.h + P::state_place(plan.rows + plan.N, row, u);
      store(around, load(around) + Cell::template reset_backward<S>(gates(Cell::kR, row, u), h_prev, dq));
      put_words(Cell::kR, row, u);
    });
  }

  // Calls body(n, u, the sum of the planes' rows of a step times Wh^T).
  template <class Body>
  FASTLSTM_INLINE void multiply_step(Index step, Range rows, Range units, const Planes& planes,
                                     const Body& body) const {
    // The gradients of masked steps are zeros.
    const Range some = plan.packs() ? plan.valid_rows(args.mask, step, rows) : rows;
    const Index count = some.end - some.begin;
    // Each thread's own part: of the rows, or of the units.
    S* const panels = product + units.begin * plan.N + rows.begin * plan.padded_units();
    if (plan.packs()) {
      multiply_gate_gradients(planes, step * plan.N + some.begin, count, units, panels, 0);
    } else {
      multiply_single_row(planes, step, args.Wh, plan.H, units, panels - units.begin);
    }
    for_each_panel<S>(units.begin, units.end, [&](Index first, Index width) {
      for (Index u = first; u < first + width; u += kLanes<S>) {
        const S* const column = panels + (first - units.begin) * count + (u - first);
        for (Index n = rows.begin; n < rows.end; ++n) {
          const bool counts = plan.valid(args.mask, step, n);  // else no product, even where a weight is NaN
          body(n, u, counts ? load(column + (n - some.begin) * width) : Vec<S>{});
        }
      }
    });
  }

  // out = dA W^T for `count` rows of the gates' gradients from `row` on, and columns of W^T: panels [count][width].
  // While a part of dA meets the panels, the part that is next is prefetched: in the end that of the `following` rows.
  void multiply_gate_gradients(const Planes& planes, Index row, Index count, Range columns, S* out,
                               Index following) const {
    constexpr Index kBlocks = kColumnBlock / kWidth;
    const Index width_in_vectors = ceil_div(columns.end - columns.begin, kLanes<S>);
    const Index panels = ceil_div(width_in_vectors, kTileVectors);
    const Index first_width = next_tile(width_in_vectors, 0, kTileVectors) * kLanes<S>;
    const Index parts = ceil_div(plan.blocks, kBlocks);  // of a plane
    // What meets part `part` of all the planes' parts: rows of the panel of `width` columns from `column` on.
    const auto weights = [&](Index part, Index column, Index width) {
      const Index gate_plane = min_of(planes.index[part / parts], P::kPlanes - 1);
      return panel_of_weights(column) +
             (gate_plane * P::kGates * plan.H_words + part % parts * kBlocks * (kWidth / kDepth)) * width;
    };
    for (Index part = 0; part < planes.count * parts; ++part) {
      const Index first = part % parts * kBlocks;
      const bool last_part = part + 1 == planes.count * parts;
      const Index next_part = last_part ? 0 : part + 1;
      const Index next_first = next_part % parts * kBlocks;
      const Operand<Word> left = gate_gradients(planes.index[part / parts], row).blocks(first, first + kBlocks);
      Index panel = 0;
      for_each_panel<S>(columns.begin, columns.end, [&](Index column, Index width) {
        const bool last = column + width >= columns.end;
        const Word* const next =
            last ? weights(next_part, columns.begin, first_width) : weights(part, column + width, width);
        const Range prefetched = piece(min_of(kBlocks, plan.blocks - next_first), panel++, panels);
        for (Index j = next_first + prefetched.begin; j < next_first + prefetched.end; ++j) {
          prefetch(
              dA + plan.gate_words_place(planes.index[next_part / parts], last_part ? row + count : row, j * kUnits),
              (last_part ? following : count) * (kWidth / kDepth));
        }
        multiply_rows<Word>(left, weights(part, column, width), next, count, width, part == 0,
                            out + (column - columns.begin) * count);
      });
    }
  }

  // out = dA W^T for the only row of a step, some rows of W (count, G), and weights that are not packed.
  void multiply_single_row(const Planes& planes, Index step, const Weights<S>& W, Index count, Range rows,
                           S* out) const {
    for (Index u = rows.begin; u < rows.end; u += kLanes<S>) store(out + u, Vec<S>{});
    for (int k = 0; k < planes.count; ++k) {
      const Index first_gate = min_of(planes.index[k], P::kPlanes - 1) * P::kGates;
      Index gate_columns[P::kGates];
      for (Index gate = 0; gate < P::kGates; ++gate) gate_columns[gate] = plan.gate_column(first_gate + gate);
      const Operand<S> a{gates(planes.index[k], step, 0), 0,     P::kLayout.gate_stride(plan.rows), kUnits,
                         static_cast<int>(P::kGates),     plan.H};
      add_single_row<Format, S>(a, gate_columns, {W.data, W.column, W.row}, rows, count, {out, P::kLog2Units, kUnits});
    }
  }

  Operand<Word> gate_gradients(int plane, Index row) const {
    return {.data = dA + plan.gate_words_place(plane, row, 0),
            .row_stride = kWidth / kDepth,
            .block_stride = P::kWordLayout.gate_stride(plan.rows),
            .width = kUnits / kDepth,
            .gates = static_cast<int>(P::kGates),
            .depth = plan.H_words};
  }

  void store_dc0(Range rows, Range units) const {
    if (args.dc0 == nullptr) return;
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store_partial(args.dc0 + n * plan.H + u, load(state(dc, n, u)), plan.H - u);
      }
    }
  }

  // dx = dA Wx^T, of one piece of the rows; dA itself where the inputs are pre-activations.
  void inputs_backward(const Team& team, Index item, Index items, const Weighted& weights) const {
    const Range rows = piece(count, item, items);
    if (!args.Wx.data) {
      for (Index r = rows.begin; r < rows.end; ++r) {
        for (int plane = 0; plane < P::kPlanes; ++plane) {
          weights.unpack_gates(gates(plane, r, 0), P::kLayout.gate_stride(plan.rows), plane, {0, plan.blocks},
                               dx(row_that_counts(r)), false);
        }
      }
      return;
    }
    const Index own = rows.end - rows.begin;
    const Index following = item + 1 < items ? piece(count, item + 1, items).end - rows.end : 0;
    S* const panels = product + team.member() * plan.padded_inputs() * kRowBlock;
    if (!plan.packs()) {
      for (Index r = rows.begin; r < rows.end; ++r) {
        multiply_single_row(kInputPlanes, r, args.Wx, plan.D, {0, plan.padded_inputs()}, panels);
        store_dx(r, panels, 1, 0);
      }
      return;
    }
    multiply_gate_gradients(kInputPlanes, rows.begin, own, {0, plan.padded_inputs()}, panels, following);
    for (Index r = rows.begin; r < rows.end; ++r) store_dx(r, panels, own, r - rows.begin);
  }

  S* dx(Index r) const { return plan.at(args.dxs, r / plan.N, r % plan.N); }

  // Row m of panels of `height` rows to the input gradient of the r-th row that counts.
  void store_dx(Index r, const S* panels, Index height, Index m) const {
    S* const out = dx(row_that_counts(r));
    for_each_panel<S>(0, plan.padded_inputs(), [&](Index first, Index width) {
      for (Index v = 0; v < width; v += kLanes<S>) {
        store_partial(out + first + v, load(panels + first * height + m * width + v), plan.D - first - v);
      }
    });
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
