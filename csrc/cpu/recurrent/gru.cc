// GRU kernels of one instruction set: the time loop, forward and backward, in one parallel region each.
//
// Each of z, r, n and q (see gru_cell.h) lies in a plane of its own, in blocks of units like the states: if the reset
// gate stands before the product, n's product can only begin when r is there for all units, so that the three gates
// of a unit cannot share a tile as they do in recurrent.h.
//
// The split is that of recurrent.h: threads take rows of the batch and never wait for each other if the weights fit
// the cache and the batch is large enough; else they take units, and meet wherever a product needs all of them.
#include "../../gru_cell.h"
#include "../gemm/tile.h"
#include "../threads.h"
#include "../vector_math.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

constexpr Index kUnits = kGruLayout.units;
constexpr int kGates = 3;

// Planes of the tape; the first three are gates too.
enum Plane : int { kZ, kR, kN, kQ };

// Sizes of one call, derived once.
template <class S>
struct Plan {
  const GruSizes& sizes;
  Index N, T, D, H;
  Index G;             // columns of the weights
  Index blocks;        // of units
  Index input_blocks;  // of input columns, as wide as blocks of units
  Index rows;          // T N

  explicit Plan(const GruSizes& s)
      : sizes(s),
        N(s.N),
        T(s.N == 0 ? 0 : s.T),  // no rows, no steps
        D(s.D),
        H(s.H),
        G(kGates * s.H),
        blocks(kGruLayout.blocks(s.H)),
        input_blocks(kGruLayout.blocks(s.D)),
        rows(s.T * s.N) {}

  Index time(Index step) const { return sizes.reverse ? T - 1 - step : step; }
  bool valid(const bool* mask, Index n, Index t) const { return mask == nullptr || mask[n * T + t]; }

  // Units and columns of dx, in whole vectors.
  Index padded_units() const { return ceil_div(H, kLanes<S>) * kLanes<S>; }
  Index padded_inputs() const { return ceil_div(D, kLanes<S>) * kLanes<S>; }
  // Of block j, in whole vectors.
  Index columns(Index j) const { return min_of(kUnits, padded_units() - j * kUnits); }

  // Where a gate's columns of the weights begin.
  Index gate_column(int gate) const { return sizes.gate_position[gate] * H; }

  bool split_rows() const {
    constexpr Index kCachedBytes = 1536 * 1024;
    return N >= 8 && (D + H) * G * static_cast<Index>(sizeof(S)) <= kCachedBytes;
  }

  // Units come to threads in pieces of this size, whole vectors for every instruction set.
  static constexpr Index kGrain = 16;

  int threads() const {
    // Below this, waking another thread costs more than it brings.
    constexpr double kSmallWork = 4e6;
    const double work = static_cast<double>(rows) * static_cast<double>(D + H + 64) * static_cast<double>(G);
    if (work < kSmallWork) return 1;
    return static_cast<int>(split_rows() ? ceil_div(N, 4) : ceil_div(H, kGrain));
  }

  Range own_rows(const Team& team) const { return split_rows() ? piece(N, team.member(), team.size()) : Range{0, N}; }
  Range own_units(const Team& team) const {
    if (split_rows()) return {0, padded_units()};
    const Range grains = piece(ceil_div(H, kGrain), team.member(), team.size());
    return {min_of(grains.begin * kGrain, padded_units()), min_of(grains.end * kGrain, padded_units())};
  }
  // Waits where threads own units and the next product needs all of them.
  void meet(Team& team) const {
    if (!split_rows()) team.wait();
  }
};

// Calls body(first, width) for the panels of some columns, none of which reaches over two blocks.
template <class S, class Body>
FASTLSTM_INLINE void for_each_panel(Range columns, const Body& body) {
  for (Index first = columns.begin; first < columns.end;) {
    const Index block_end = min_of(columns.end, (first / kUnits + 1) * kUnits);
    const Index width = min_of(kTileColumns<S>, block_end - first);
    body(first, width);
    first += width;
  }
}

// Columns [first, first + width) of one gate of W (depth, G) as a panel [depth][width]; zeros beside the units.
template <class S>
void pack_panel(const Plan<S>& plan, const S* W, Index depth, int gate, Index first, Index width, S* packed) {
  const S* const source = W + plan.gate_column(gate) + first;
  for (Index k = 0; k < depth; ++k) {
    for (Index column = 0; column < width; column += kLanes<S>) {
      store(packed + k * width + column, load_partial(source + k * plan.G + column, plan.H - first - column));
    }
  }
}

// The transpose of one gate of rows [first, first + width) of W (count, G), as a panel [H][width]; zeros from row
// `count` on.
template <class S>
void pack_transposed_panel(const Plan<S>& plan, const S* W, Index count, int gate, Index first, Index width,
                           S* packed) {
  const S* const source = W + plan.gate_column(gate);
  for (Index i = 0; i < width; i += kLanes<S>) {
    transpose_into(source + (first + i) * plan.G, plan.G, count - first - i, plan.H, packed + i, width);
  }
}

// ---- Forward -------------------------------------------------------------------------------------------------------

template <class S>
struct ForwardPass {
  const GruForward<S>& args;
  Plan<S> plan;
  GruBlend<S> blend;
  S* packed_Wx;  // a gate: panels of units, each [D][width]
  S* packed_Wh;
  S* packed_b;  // added before the time loop: of z, r, n
  S* state_b;   // added to h Wh_n in the step; with reset_after only

  explicit ForwardPass(const GruForward<S>& a) : args(a), plan(a.sizes), blend(a.sizes.z_keeps) {
    packed_Wx = args.workspace;
    packed_Wh = packed_Wx + kGates * plan.padded_units() * plan.D;
    packed_b = packed_Wh + kGates * plan.padded_units() * plan.H;
    state_b = packed_b + kGates * plan.padded_units();
  }

  static Index workspace(const GruSizes& sizes) {
    const Plan<S> plan(sizes);
    return plan.padded_units() * (kGates * (plan.D + plan.H + 1) + 1);
  }

  const S* Wx(int gate, Index first) const { return packed_Wx + (gate * plan.padded_units() + first) * plan.D; }
  const S* Wh(int gate, Index first) const { return packed_Wh + (gate * plan.padded_units() + first) * plan.H; }

  Index state_stride() const { return kGruLayout.state_stride((args.keep ? plan.T + 1 : 2) * plan.N); }
  Index slot_row(Index step) const { return (args.keep ? step : step % 2) * plan.N; }
  S* state(Index step, Index n, Index u) const {
    return args.h + u / kUnits * state_stride() + (slot_row(step) + n) * kUnits + u % kUnits;
  }

  Index plane_rows() const { return args.keep ? plan.rows : plan.N; }
  S* plane(int index, Index step, Index n, Index u) const {
    return args.planes + index * kGruLayout.state_buffer(plane_rows(), plan.H) +
           u / kUnits * kGruLayout.state_stride(plane_rows()) + ((args.keep ? step * plan.N : 0) + n) * kUnits +
           u % kUnits;
  }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team);
    const Range units = plan.own_units(team);
    pack(team, units);
    load_state(rows, units);
    team.wait();
    if (args.keep) multiply_inputs({0, plan.T}, rows, units);
    for (Index step = 0; step < plan.T; ++step) {
      if (!args.keep) multiply_inputs({step, step + 1}, rows, units);
      step_forward(team, step, rows, units);
      plan.meet(team);
    }
    if (args.h_n) store_state(rows, units);
  }

  // Threads that own rows share all panels; threads that own units pack the panels of their own units.
  void pack(const Team& team, Range units) const {
    Index index = 0;
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel<S>(units, [&](Index first, Index width) {
        if (plan.split_rows() && index++ % team.size() != team.member()) return;
        pack_panel(plan, args.Wx, plan.D, gate, first, width,
                   packed_Wx + (gate * plan.padded_units() + first) * plan.D);
        pack_panel(plan, args.Wh, plan.H, gate, first, width,
                   packed_Wh + (gate * plan.padded_units() + first) * plan.H);
        pack_bias(gate, first, width);
      });
    }
  }

  void pack_bias(int gate, Index first, Index width) const {
    S* const bias = packed_b + gate * plan.padded_units() + first;
    pack_panel(plan, args.b, 1, gate, first, width, bias);
    if (!plan.sizes.reset_after) return;
    S* const other = state_b + first;
    if (gate == kN) {
      pack_panel(plan, args.b + plan.G, 1, gate, first, width, other);
    } else {
      for (Index u = 0; u < width; u += kLanes<S>) {
        const S* const source = args.b + plan.G + plan.gate_column(gate) + first + u;
        store(bias + u, load(bias + u) + load_partial(source, plan.H - first - u));
      }
    }
  }

  void load_state(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store(state(0, n, u), args.h0 ? load_partial(args.h0 + n * plan.H + u, plan.H - u) : Vec<S>{});
      }
    }
  }

  void store_state(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        store_partial(args.h_n + n * plan.H + u, load(state(plan.T, n, u)), plan.H - u);
      }
    }
  }

  // z, r, n = b + x Wx for some steps. A tile takes neighbours in the batch or in time, whichever there are more of.
  void multiply_inputs(Range steps, Range rows, Range units) const {
    const Index step_count = steps.end - steps.begin, row_count = rows.end - rows.begin;
    const bool along_time = step_count > row_count;
    const Index tiled = along_time ? step_count : row_count, repeated = along_time ? row_count : step_count;
    const Index a_stride = along_time ? (plan.sizes.reverse ? -plan.D : plan.D) : plan.T * plan.D;
    const Index out_stride = along_time ? plan.N * kUnits : kUnits;
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel<S>(units, [&](Index first, Index width) {
        const S* const bias = packed_b + gate * plan.padded_units() + first;
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          for (Index outer = 0; outer < repeated; ++outer) {
            for (Index inner = 0; inner < tiled;) {
              const Index count = next_tile(tiled, inner, kTileRows<vectors>);
              const Index step = steps.begin + (along_time ? inner : outer);
              const Index n = rows.begin + (along_time ? outer : inner);
              const S* const x = args.xs + (n * plan.T + plan.time(step)) * plan.D;
              const Term<S> term{row_major(x, a_stride, plan.D), Wx(gate, first)};
              kTilesOf<S, vectors>.by_rows[count](&term, 1, bias, 0, plane(gate, step, n, first), out_stride);
              inner += count;
            }
          }
        });
      });
    }
  }

  // A plane's rows of one step = init + a Wh, where init is a bias or, where that is null, the plane itself. a is the
  // row of n = 0.
  void multiply_state(const Operand<S>& a, int gate, const S* bias, int out, Index step, Range rows,
                      Range units) const {
    for_each_panel<S>(units, [&](Index first, Index width) {
      with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
        for (Index n = rows.begin; n < rows.end;) {
          const Index count = next_tile(rows.end - rows.begin, n - rows.begin, kTileRows<vectors>);
          const S* const weights = Wh(gate, first);
          // The next panel's weights are asked for while the first rows are at work.
          const Term<S> term{a.rows_from(n), weights, n == rows.begin ? weights + width * plan.H : weights};
          S* const tile = plane(out, step, n, first);
          kTilesOf<S, vectors>.by_rows[count](&term, 1, bias ? bias + first : tile, bias ? 0 : kUnits, tile, kUnits);
          n += count;
        }
      });
    });
  }

  void step_forward(Team& team, Index step, Range rows, Range units) const {
    const Operand<S> h{state(step, 0, 0), kUnits, state_stride(), kUnits, 1, plan.H};
    multiply_state(h, kZ, nullptr, kZ, step, rows, units);
    multiply_state(h, kR, nullptr, kR, step, rows, units);
    if (plan.sizes.reset_after) {
      multiply_state(h, kN, state_b, kQ, step, rows, units);
      for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
        activate_gates(step, n, u);
        S* const candidate = plane(kN, step, n, u);
        store(candidate, Math<S>::tanh(load(candidate) + load(plane(kR, step, n, u)) * load(plane(kQ, step, n, u))));
        store_output(step, n, u, valid);
      });
      return;
    }
    for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
      activate_gates(step, n, u);
      // Masked steps may hold anything; zeros keep it out of the weights' gradients.
      const Vec<S> reset = load(plane(kR, step, n, u)) * load(state(step, n, u));
      store(plane(kQ, step, n, u), valid ? reset : Vec<S>{});
    });
    plan.meet(team);
    const Operand<S> reset{plane(kQ, step, 0, 0), kUnits, kGruLayout.state_stride(plane_rows()), kUnits, 1, plan.H};
    multiply_state(reset, kN, nullptr, kN, step, rows, units);
    for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
      S* const candidate = plane(kN, step, n, u);
      store(candidate, Math<S>::tanh(load(candidate)));
      store_output(step, n, u, valid);
    });
  }

  // Calls body(n, u, whether the step is valid) for all vectors of units.
  template <class Body>
  FASTLSTM_INLINE void for_each_vector(Index step, Range rows, Range units, const Body& body) const {
    const Index t = plan.time(step);
    for (Index n = rows.begin; n < rows.end; ++n) {
      const bool valid = plan.valid(args.mask, n, t);
      for (Index u = units.begin; u < units.end; u += kLanes<S>) body(n, u, valid);
    }
  }

  FASTLSTM_INLINE void activate_gates(Index step, Index n, Index u) const {
    S* const z = plane(kZ, step, n, u);
    S* const r = plane(kR, step, n, u);
    store(z, Math<S>::sigmoid(load(z)));
    store(r, Math<S>::sigmoid(load(r)));
  }

  FASTLSTM_INLINE void store_output(Index step, Index n, Index u, bool valid) const {
    Vec<S> h = load(state(step, n, u));
    if (valid) h = gru_blend(blend, load(plane(kZ, step, n, u)), load(plane(kN, step, n, u)), h);
    store(state(step + 1, n, u), h);
    if (args.hs) store_partial(args.hs + (n * plan.T + plan.time(step)) * plan.H + u, h, plan.H - u);
  }
};

// ---- Backward ------------------------------------------------------------------------------------------------------

template <class S>
struct BackwardPass {
  // Rows of one chain of sums in the weights' gradients: longer ones lose accuracy, and a chunk of both operands
  // stays in the cache.
  static constexpr Index kChunk = 512;
  // Rows of the gates' gradients that stay in the cache while they meet all panels of Wx.
  static constexpr Index kRowBlock = 64;

  const GruBackward<S>& args;
  Plan<S> plan;
  GruBlend<S> blend;
  S* packed_Wh;  // a gate, transposed: panels of units, each [H][width]
  S* packed_Wx;  // the same of inputs
  S* x;          // inputs in blocks [D / kUnits][T N][kUnits], in the order of processing
  S* product;    // panels of dh for all rows, or of dx for kRowBlock rows a thread
  S* carried;    // what goes around the products to the state before the step; state layout, one slot

  explicit BackwardPass(const GruBackward<S>& a) : args(a), plan(a.sizes), blend(a.sizes.z_keeps) {
    packed_Wh = args.workspace;
    packed_Wx = packed_Wh + kGates * plan.padded_units() * plan.H;
    x = packed_Wx + kGates * plan.padded_inputs() * plan.H;
    product = x + plan.input_blocks * plane_stride();
    carried = product + product_size(plan);
  }

  static Index workspace(const GruSizes& sizes) {
    const Plan<S> plan(sizes);
    return kGates * (plan.padded_units() + plan.padded_inputs()) * plan.H +
           plan.input_blocks * kGruLayout.state_stride(plan.rows) + product_size(plan) +
           kGruLayout.state_buffer(plan.N, plan.H);
  }

  static Index product_size(const Plan<S>& plan) {
    return max_of(plan.padded_units() * plan.N, plan.threads() * plan.padded_inputs() * kRowBlock);
  }

  Index plane_stride() const { return kGruLayout.state_stride(plan.rows); }
  S* plane(int index, Index row, Index u) const {
    return args.planes + index * kGruLayout.state_buffer(plan.rows, plan.H) + u / kUnits * plane_stride() +
           row * kUnits + u % kUnits;
  }
  const S* state(Index row, Index u) const {
    return args.h + u / kUnits * kGruLayout.state_stride(plan.rows + plan.N) + row * kUnits + u % kUnits;
  }
  S* around(Index n, Index u) const {
    return carried + u / kUnits * kGruLayout.state_stride(plan.N) + n * kUnits + u % kUnits;
  }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team);
    const Range units = plan.own_units(team);
    pack_Wh(team, units);
    pack_inputs(piece(plan.rows, team.member(), team.size()));
    if (plan.split_rows()) team.wait();  // all of Wh is packed

    init_backward(rows, units);
    for (Index step = plan.T - 1; step >= 0; --step) {
      plan.meet(team);
      if (!plan.sizes.reset_after) {
        reset_backward(step, rows, units);
        plan.meet(team);
      }
      step_backward(step, rows, units);
    }

    pack_Wx(team);
    const Index input_items = row_pieces(plan.rows, kRowBlock, team.size());
    team.deal(input_items + weight_items());
    team.wait();
    for (Index item; (item = team.take()) >= 0;) {
      if (item < input_items) {
        multiply_dx(team, item, input_items);
      } else {
        multiply_dW(item - input_items);
      }
    }
  }

  // A panel is packed where its first column is. Threads that own rows share all panels; threads that own units pack
  // the panels of their own units.
  void pack_Wh(const Team& team, Range units) const {
    Index index = 0;
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel<S>(units, [&](Index first, Index width) {
        if (plan.split_rows() && index++ % team.size() != team.member()) return;
        pack_transposed_panel(plan, args.Wh, plan.H, gate, first, width,
                              packed_Wh + (gate * plan.padded_units() + first) * plan.H);
      });
    }
  }

  void pack_Wx(const Team& team) const {
    Index index = 0;
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel<S>({0, plan.padded_inputs()}, [&](Index first, Index width) {
        if (index++ % team.size() != team.member()) return;
        pack_transposed_panel(plan, args.Wx, plan.D, gate, first, width,
                              packed_Wx + (gate * plan.padded_inputs() + first) * plan.H);
      });
    }
  }

  void pack_inputs(Range rows) const {
    for (Index r = rows.begin; r < rows.end; ++r) {
      const Index n = r % plan.N, t = plan.time(r / plan.N);
      const bool valid = plan.valid(args.mask, n, t);
      const S* source = args.xs + (n * plan.T + t) * plan.D;
      for (Index d = 0; d < plan.D; d += kLanes<S>) {
        // Masked steps may hold anything; zeros keep it out of the weights' gradients.
        const Vec<S> value = valid ? load_partial(source + d, plan.D - d) : Vec<S>{};
        store(x + d / kUnits * plane_stride() + r * kUnits + d % kUnits, value);
      }
    }
  }

  // The gradient after the last step, and through the last step's cell.
  void init_backward(Range rows, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        const Vec<S> dh = args.dh_n ? load_partial(args.dh_n + n * plan.H + u, plan.H - u) : Vec<S>{};
        propagate_dh(plan.T, n, u, dh);
      }
    }
  }

  // dh, the gradient of the state before `step` (without dhs), to the cell of the step before that.
  FASTLSTM_INLINE void propagate_dh(Index step, Index n, Index u, const Vec<S>& dh) const {
    if (step > 0) {
      cell_backward(step - 1, n, u, dh);
    } else {
      store_partial(args.dh0 + n * plan.H + u, dh, plan.H - u);
    }
  }

  // From dh, the gradient of h after a step (without dhs): the gradients of the step's pre-activations. With the reset
  // gate before the product, that of r has to wait for `reset_backward`.
  FASTLSTM_INLINE void cell_backward(Index step, Index n, Index u, Vec<S> dh) const {
    const Index t = plan.time(step), row = step * plan.N + n;
    if (args.dhs) dh += load_partial(args.dhs + (n * plan.T + t) * plan.H + u, plan.H - u);
    S* const z_place = plane(kZ, row, u);
    S* const r_place = plane(kR, row, u);
    S* const n_place = plane(kN, row, u);
    S* const q_place = plane(kQ, row, u);
    if (!plan.valid(args.mask, n, t)) {
      store(around(n, u), dh);
      store(z_place, Vec<S>{});
      store(r_place, Vec<S>{});
      store(n_place, Vec<S>{});
      store(q_place, Vec<S>{});
      return;
    }
    Vec<S> z = load(z_place), candidate = load(n_place);
    store(around(n, u), gru_blend_backward(blend, z, candidate, load(state(row, u)), dh));
    store(z_place, z);
    store(n_place, candidate);
    if (plan.sizes.reset_after) {
      const Vec<S> r = load(r_place);
      store(r_place, gru_reset_backward(r, load(q_place), candidate));
      store(q_place, candidate * r);
    }
  }

  // The reset gate before the product: d(r h) = dn Wh_n^T, and from it the gradients of r and, in part, of h.
  void reset_backward(Index step, Range rows, Range units) const {
    multiply_back(step, rows, units, {kN}, [&](Index n, Index u, const Vec<S>& dq) {
      if (!plan.valid(args.mask, n, plan.time(step))) return;
      const Index row = step * plan.N + n;
      S* const r_place = plane(kR, row, u);
      const Vec<S> r = load(r_place);
      store(r_place, gru_reset_backward(r, load(state(row, u)), dq));
      store(around(n, u), load(around(n, u)) + dq * r);
    });
  }

  // dh before a step; then on through the cell of the step before it.
  void step_backward(Index step, Range rows, Range units) const {
    const auto sum_up = [&](Index n, Index u, const Vec<S>& dh) { propagate_dh(step, n, u, dh + load(around(n, u))); };
    if (plan.sizes.reset_after) {
      multiply_back(step, rows, units, {kZ, kR, kQ}, sum_up);
    } else {
      multiply_back(step, rows, units, {kZ, kR}, sum_up);
    }
  }

  // Up to three planes that are multiplied by the gates' weights and summed.
  struct Factors {
    Plane planes[kGates];
    int count;
    Factors(Plane a) : planes{a}, count(1) {}
    Factors(Plane a, Plane b) : planes{a, b}, count(2) {}
    Factors(Plane a, Plane b, Plane c) : planes{a, b, c}, count(3) {}
  };

  // Calls body(n, u, the sum of the planes' rows of a step times Wh^T).
  template <class Body>
  FASTLSTM_INLINE void multiply_back(Index step, Range rows, Range units, const Factors& factors,
                                     const Body& body) const {
    const Index count = rows.end - rows.begin;
    // Each thread's own part: of the rows, or of the units.
    S* const panels = product + units.begin * plan.N + rows.begin * plan.padded_units();
    multiply(factors, step * plan.N + rows.begin, count, packed_Wh, plan.padded_units(), units, panels);
    for_each_panel<S>(units, [&](Index first, Index width) {
      for (Index u = first; u < first + width; u += kLanes<S>) {
        const S* const column = panels + (first - units.begin) * count + (u - first);
        for (Index n = rows.begin; n < rows.end; ++n) body(n, u, load(column + (n - rows.begin) * width));
      }
    });
  }

  // out, panels [count][width] of the columns: rows [row, row + count) of the planes times transposed weights, of which
  // a gate has `gate_columns` columns; the plane q belongs to the gate n.
  void multiply(const Factors& factors, Index row, Index count, const S* packed, Index gate_columns, Range columns,
                S* out) const {
    for (int k = 0; k < factors.count; ++k) {
      const Plane factor = factors.planes[k];
      const S* const weights = packed + (factor == kQ ? kN : factor) * gate_columns * plan.H;
      const Operand<S> a{plane(factor, row, 0), kUnits, plane_stride(), kUnits, 1, plan.H};
      for_each_panel<S>(columns, [&](Index first, Index width) {
        const S* const panel = weights + first * plan.H;
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          multiply_rows<S, vectors>(a, panel, panel + width * plan.H, count, k == 0,
                                    out + (first - columns.begin) * count);
        });
      });
    }
  }

  // dx = sum of the gates' gradients times Wx^T, of one piece of the rows.
  void multiply_dx(const Team& team, Index item, Index items) const {
    const Range rows = piece(plan.rows, item, items);
    const Index count = rows.end - rows.begin;
    const Range inputs{0, plan.padded_inputs()};
    S* const panels = product + team.member() * plan.padded_inputs() * kRowBlock;
    multiply({kZ, kR, kN}, rows.begin, count, packed_Wx, plan.padded_inputs(), inputs, panels);
    for (Index r = rows.begin; r < rows.end; ++r) {
      S* const out = args.dxs + (r % plan.N * plan.T + plan.time(r / plan.N)) * plan.D;
      for_each_panel<S>(inputs, [&](Index first, Index width) {
        const S* const panel = panels + first * count + (r - rows.begin) * width;
        for (Index d = 0; d < width; d += kLanes<S>) {
          store_partial(out + first + d, load(panel + d), plan.D - first - d);
        }
      });
    }
  }

  // What h_prev or r h_prev is multiplied by for a gate: the plane of its gradients.
  int state_gradient(int gate) const { return plan.sizes.reset_after && gate == kN ? kQ : gate; }

  // dWx, dWh and db: all steps at once. The work is split over blocks of the results.
  Index left_blocks() const { return plan.input_blocks + plan.blocks + 1; }  // of the rows of dWx and dWh, and db
  Index weight_items() const { return kGates * plan.blocks * left_blocks(); }
  void multiply_dW(Index item) const {
    const int gate = static_cast<int>(item / (plan.blocks * left_blocks()));
    const Index j = item / left_blocks() % plan.blocks, left = item % left_blocks();
    const Index column = plan.gate_column(gate) + j * kUnits;
    if (left < plan.input_blocks) {
      weight_block(x + left * plane_stride(), plan.D, left, plane(gate, 0, j * kUnits), j, args.dWx + column);
    } else if (left < plan.input_blocks + plan.blocks) {
      const Index i = left - plan.input_blocks;
      const bool reset = gate == kN && !plan.sizes.reset_after;
      const S* const a = reset ? plane(kQ, 0, i * kUnits) : state(0, i * kUnits);
      weight_block(a, plan.H, i, plane(state_gradient(gate), 0, j * kUnits), j, args.dWh + column);
    } else {
      bias_block(plane(gate, 0, j * kUnits), j, args.db + column);
      if (plan.sizes.reset_after) {
        bias_block(plane(state_gradient(gate), 0, j * kUnits), j, args.db + plan.G + column);
      }
    }
  }

  // Rows of block i, columns of block j of one gate of a weight gradient of `height` rows.
  void weight_block(const S* a, Index height, Index i, const S* gradients, Index j, S* dW) const {
    alignas(64) S sums[kUnits * kUnits];
    const Index lanes = min_of(kUnits, height - i * kUnits);
    for (Index k = 0; k < lanes * kUnits; k += kLanes<S>) store(sums + k, Vec<S>{});
    for (Index r = 0; r < plan.rows; r += kChunk) {
      const Index count = min_of(kChunk, plan.rows - r);
      for_each_panel<S>({0, plan.columns(j)}, [&](Index panel, Index width) {
        with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
          for (Index lane = 0; lane < lanes;) {
            const Index tile = next_tile(lanes, lane, kTileRows<vectors>);
            kTransposedTilesOf<S, vectors>.by_rows[tile](a + r * kUnits + lane, kUnits, gradients + r * kUnits + panel,
                                                         kUnits, count, sums + lane * kUnits + panel, kUnits);
            lane += tile;
          }
        });
      });
    }
    for (Index lane = 0; lane < lanes; ++lane) {
      store_block(sums + lane * kUnits, j, dW + (i * kUnits + lane) * plan.G);
    }
  }

  void bias_block(const S* gradients, Index j, S* db) const {
    alignas(64) S sums[kUnits];
    for (Index column = 0; column < plan.columns(j); column += kLanes<S>) {
      Vec<S> total{};
      for (Index r = 0; r < plan.rows; r += kChunk) {
        Vec<S> sum{};
        for (Index k = r; k < min_of(r + kChunk, plan.rows); ++k) sum += load(gradients + k * kUnits + column);
        total += sum;
      }
      store(sums + column, total);
    }
    store_block(sums, j, db);
  }

  void store_block(const S* block, Index j, S* out) const {
    for (Index column = 0; column < plan.columns(j); column += kLanes<S>) {
      store_partial(out + column, load(block + column), plan.H - j * kUnits - column);
    }
  }
};

// ---- Table ---------------------------------------------------------------------------------------------------------

template <class Pass, class Args>
void run_pass(const Args& args) {
  Pass pass(args);
  run_team(pass.plan.threads(), [](void* context, Team& team) { static_cast<const Pass*>(context)->run(team); }, &pass);
}

template <class S>
constexpr GruKernels<S> table() {
  return {ForwardPass<S>::workspace, run_pass<ForwardPass<S>, GruForward<S>>, BackwardPass<S>::workspace,
          run_pass<BackwardPass<S>, GruBackward<S>>};
}

}  // namespace

extern const GruKernels<float> gru_float32 = table<float>();
extern const GruKernels<double> gru_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
