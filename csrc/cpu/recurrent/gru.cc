// GRU kernels of one instruction set.
//
// Each of z, r, n and q (see gru_cell.h) lies in a plane of its own, in blocks of units like the states: if the reset
// gate stands before the product, n's product can only begin when r is there for all units, so that the three gates
// of a unit cannot share a tile as those of the LSTM do. Hence a forward time loop of its own.
#include "../../gru_cell.h"
#include "sequence_backward.h"
#include "sequence_forward.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

struct GruCell {
  static constexpr BlockLayout kLayout = kGruLayout;
  static constexpr int kGates = 3;
  static constexpr Index kGrain = 16;
  static constexpr bool kHasCellState = false;
  static constexpr bool kHasResetGate = true;
  // Planes of the tape; the first three are gates too.
  enum Plane : int { kZ, kR, kN, kQ };

  // With the reset gate before the product, r's gradient has to wait for reset_backward.
  template <class S>
  static FASTLSTM_INLINE void backward(const RecurrentSizes& sizes, const CellPlaces<S>& places, const Vec<S>& dh) {
    S* const z_place = places.gates + kZ * places.plane;
    S* const n_place = places.gates + kN * places.plane;
    Vec<S> z = load(z_place), candidate = load(n_place);
    const GruBlend<S> blend(sizes.z_keeps);
    store(places.carried, gru_blend_backward(blend, z, candidate, load(places.h_prev), dh));
    store(z_place, z);
    store(n_place, candidate);
    if (sizes.reset_after) {
      S* const r_place = places.gates + kR * places.plane;
      S* const q_place = places.gates + kQ * places.plane;
      const Vec<S> r = load(r_place);
      store(r_place, gru_reset_backward(r, load(q_place), candidate));
      store(q_place, candidate * r);
    }
  }

  // From dq, the gradient of r h_prev: that of r's pre-activation, in r_place. Returns h_prev's part.
  template <class S>
  static FASTLSTM_INLINE Vec<S> reset_backward(S* r_place, const S* h_prev, const Vec<S>& dq) {
    const Vec<S> r = load(r_place);
    store(r_place, gru_reset_backward(r, load(h_prev), dq));
    return dq * r;
  }
};

template <class Format>
struct GruForward : ForwardPass<Format, GruCell> {
  using Base = ForwardPass<Format, GruCell>;
  using Base::args, Base::plan, Base::kUnits, Base::kDepth, Base::state_place;
  using typename Base::P, typename Base::S, typename Base::Word, typename Base::Packed;
  static constexpr int kZ = GruCell::kZ, kR = GruCell::kR, kN = GruCell::kN, kQ = GruCell::kQ;
  static constexpr int kGates = GruCell::kGates;

  GruBlend<S> blend;
  Word* reset_words;  // of r h_prev, one step; unless exact, and with the reset gate before the product
  Packed* packed_Wh;  // a gate: panels of units, each [words][width]
  S* packed_b;        // added before the time loop: of z, r, n
  S* state_b;         // added to h Wh_n in the step; with reset_after only
  Packed* packed_Wx;  // as Wh; last: a part of it alone is written if panels are packed in turn
  S* planes;          // of all steps where they are kept, else of one

  explicit GruForward(const RecurrentForward<S>& a) : Base(a, input_slots_of(P(a.sizes))), blend(a.sizes.z_keeps) {
    Word* const words = reinterpret_cast<Word*>(args.workspace);
    this->place_words(words);
    reset_words = words + Base::words_workspace(plan, this->input_slots);
    void* const packed = plan.sizes.prepared ? static_cast<void*>(args.prepared) : reset_words + reset_words_size(plan);
    packed_Wh = static_cast<Packed*>(packed);
    const Index panels = plan.packs() ? kGates * plan.padded_units() : 0;
    packed_b = reinterpret_cast<S*>(packed_Wh + panels * plan.H_packed);
    state_b = packed_b + kGates * plan.padded_units();
    packed_Wx = reinterpret_cast<Packed*>(state_b + plan.padded_units());
    planes = plan.sizes.prepared ? reinterpret_cast<S*>(reset_words + reset_words_size(plan))
                                 : reinterpret_cast<S*>(packed_Wx + panels * plan.D_packed);
    if (keeps()) planes = args.gates;
  }

  static Index packed_size(const P& plan) {
    const Index depth = plan.packs() ? plan.D_packed + plan.H_packed : 0;
    return plan.padded_units() * (kGates * (depth + 1) + 1);
  }

  static Index workspace(const RecurrentSizes& sizes) {
    const P plan(sizes);
    return Base::words_workspace(plan, input_slots_of(plan)) + reset_words_size(plan) +
           (sizes.prepared ? 0 : packed_size(plan)) + P::kLayout.gate_buffer(plan.N, plan.H);
  }
  static Index reset_words_size(const P& plan) {
    return Base::has_words(plan) ? P::kWordLayout.state_buffer(plan.N, plan.H_words) : 0;
  }
  static Index input_slots_of(const P& plan) { return plan.sizes.keeps_gates ? plan.T : 2; }

  bool keeps() const { return plan.sizes.keeps_gates; }

  // A panel's place in the packed weights of `depth` rows.
  Index packed_place(int gate, Index first, Index depth) const { return (gate * plan.padded_units() + first) * depth; }

  Index plane_rows() const { return keeps() ? plan.rows : plan.N; }
  Index plane_stride() const { return P::kLayout.state_stride(plane_rows()); }
  S* plane(int index, Index step, Index n, Index u) const {
    return planes + index * P::kLayout.plane(plane_rows(), plan.H) +
           P::state_place(plane_rows(), (keeps() ? step * plan.N : 0) + n, u);
  }

  // Calls body(first, end) for the parts of some units that lie in one block.
  template <class Body>
  static FASTLSTM_INLINE void for_each_block(Range units, const Body& body) {
    for (Index first = units.begin; first < units.end;) {
      const Index end = min_of(units.end, (first / kUnits + 1) * kUnits);
      body(first, end);
      first = end;
    }
  }
  // Calls body(first, width) for the panels of some units, none of which reaches over two blocks.
  template <class Body>
  static FASTLSTM_INLINE void for_each_panel_of_blocks(Range units, const Body& body) {
    for_each_block(units, [&](Index first, Index end) { for_each_panel<S>(first, end, body); });
  }

  // Each panel of Wx is used once: packed where the last one was, it never leaves the cache.
  bool packs_Wx_in_turn() const { return keeps() && !plan.split_rows(); }

  void run(Team& team) const {
    const Range rows = plan.own_rows(team, args.mask), units = plan.own_units(team);
    if (!plan.sizes.prepared) pack(team.member(), team.size(), units);
    this->load_h(rows, units);
    this->pack_input_words(team, rows, {0, keeps() ? plan.T : 1});
    team.wait();
    if (keeps()) start_gates(team, {0, plan.T}, rows, units);
    for (Index step = 0; step < plan.T; ++step) {
      if (!keeps()) {
        this->pack_input_words(team, rows, {step + 1, step + 2});
        start_gates(team, {step, step + 1}, rows, units);
      }
      step_forward(team, step, rows, units);
      if (!plan.meet(team)) break;
    }
    this->store_state(args.h, args.h_n, rows, units);
  }

  // Threads that own rows share all panels; threads that own units pack the panels of their own units.
  void pack(int member, int members, Range units) const {
    Index index = 0;
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel_of_blocks(units, [&](Index first, Index width) {
        if (plan.split_rows() && index++ % members != member) return;
        if (plan.packs()) {
          if (args.Wx.data && !packs_Wx_in_turn()) {
            pack_units<Packing<Format>>(args.Wx, plan.D, gate, first, width,
                                        packed_Wx + packed_place(gate, first, plan.D_packed));
          }
          pack_units<Packing<Format>>(args.Wh, plan.H, gate, first, width,
                                      packed_Wh + packed_place(gate, first, plan.H_packed));
        }
        pack_bias(gate, first, width);
      });
    }
  }

  void prepare() const { pack(0, 1, {0, plan.padded_units()}); }

  template <class PackedFormat>
  void pack_units(const Weights<S>& W, Index depth, int gate, Index first, Index width,
                  typename PackedFormat::Word* packed) const {
    pack_gates<PackedFormat>(plan, W, depth, gate, first / kUnits, first % kUnits, width, packed);
  }

  void pack_bias(int gate, Index first, Index width) const {
    S* const bias = packed_b + packed_place(gate, first, 1);
    pack_units<Exact<S>>({args.b, plan.G, 1}, 1, gate, first, width, bias);
    if (!plan.sizes.reset_after) return;
    if (gate == kN) {
      pack_units<Exact<S>>({args.b ? args.b + plan.G : nullptr, plan.G, 1}, 1, gate, first, width, state_b + first);
    } else if (args.b) {
      for (Index u = 0; u < width; u += kLanes<S>) {
        const S* const source = args.b + plan.G + plan.gate_column(gate) + first + u;
        store(bias + u, load(bias + u) + load_partial(source, plan.H - first - u));
      }
    }
  }

  // z, r, n = b + x Wx for some steps.
  void start_gates(const Team& team, Range steps, Range rows, Range units) const {
    if (plan.D == 0) return load_pre_activations(steps, rows, units);
    if (!plan.packs()) {
      for (Index step = steps.begin; step < steps.end; ++step) {
        for (int gate = 0; gate < kGates; ++gate) copy_bias(packed_b + packed_place(gate, 0, 1), gate, step, units);
        this->multiply_single_row(this->input_numbers(step, 0), args.Wx, {0, kGates}, units, plane_stride(),
                                  [&](Index gate) { return plane(static_cast<int>(gate), step, 0, 0); });
      }
      return;
    }
    if (plan.rows == 1 && !packs_Wx_in_turn()) {
      for (int gate = 0; gate < kGates; ++gate) {
        multiply_row_of_blocks(this->inputs(0, 0), packed_Wx, gate, plan.D_packed, packed_b + packed_place(gate, 0, 1),
                               gate, 0, units);
      }
      return;
    }
    for (int gate = 0; gate < kGates; ++gate) {
      for_each_panel_of_blocks(units, [&](Index first, Index width) {
        if (team.stopped()) return;
        Packed* Wx = packed_Wx + packed_place(gate, first, plan.D_packed);
        if (packs_Wx_in_turn()) {
          Wx = packed_Wx + packed_place(0, units.begin, plan.D_packed);
          pack_units<Packing<Format>>(args.Wx, plan.D, gate, first, width, Wx);
        }
        this->multiply_inputs(steps, rows, Wx, packed_b + packed_place(gate, first, 1), width,
                              plane(gate, steps.begin, 0, first));
      });
    }
  }

  // z, r, n = b + the pre-activations that come in place of inputs.
  void load_pre_activations(Range steps, Range rows, Range units) const {
    for (Index step = steps.begin; step < steps.end; ++step) {
      for (Index n = rows.begin; n < rows.end; ++n) {
        for (int gate = 0; gate < kGates; ++gate) {
          const S* const x = plan.at(args.xs, step, n) + plan.gate_column(gate);
          for (Index u = units.begin; u < units.end; u += kLanes<S>) {
            store(plane(gate, step, n, u), load(packed_b + packed_place(gate, u, 1)) + load_partial(x + u, plan.H - u));
          }
        }
      }
    }
  }

  void copy_bias(const S* bias, int out, Index step, Range units) const {
    for (Index u = units.begin; u < units.end; u += kLanes<S>) store(plane(out, step, 0, u), load(bias + u));
  }

  // A plane's only row of one step = init + a times weights of `depth` packed rows; init as for multiply_state.
  void multiply_row_of_blocks(const Operand<Word>& a, const Packed* weights, int gate, Index depth, const S* bias,
                              int out, Index step, Range units) const {
    for_each_block(units, [&](Index first, Index end) {
      const Term<Word, Packed> term{a, weights + packed_place(gate, first, depth)};
      S* const sums = plane(out, step, 0, first);
      multiply_row(&term, 1, bias ? bias + first : sums, end - first, sums);
    });
  }

  // What is multiplied by Wh in a step, from the row of n = 0 on.
  struct State {
    Operand<S> numbers;
    Operand<Word> words;
  };

  // A plane's rows of one step = init + a Wh, where init is a bias or, where that is null, the plane itself.
  void multiply_state(const State& a, int gate, const S* bias, int out, Index step, Range rows, Range units) const {
    if (!plan.packs()) {
      if (bias) copy_bias(bias, out, step, units);
      this->multiply_single_row(a.numbers, args.Wh, {gate, gate + 1}, units, plane_stride(),
                                [&](Index) { return plane(out, step, 0, 0); });
      return;
    }
    if (plan.N == 1) return multiply_row_of_blocks(a.words, packed_Wh, gate, plan.H_packed, bias, out, step, units);
    for_each_panel_of_blocks(units, [&](Index first, Index width) {
      const Packed* const weights = packed_Wh + packed_place(gate, first, plan.H_packed);
      // The weights of the next panel are prefetched bit by bit while the rows meet this one's.
      const Index size = width * plan.H_packed;
      const Packed* const next = first + width < units.end
                                     ? weights + size
                                     : packed_Wh + packed_place((gate + 1) % kGates, units.begin, plan.H_packed);
      Index prefetched = 0;
      const Index vectors = width / kLanes<S>, most = rows_of_tile(vectors);
      for (Index n = rows.begin; n < rows.end;) {
        const Index count = next_tile(rows.end - rows.begin, n - rows.begin, most);
        const Term<Word, Packed> term{a.words.rows_from(n), weights, prefetched < size ? next + prefetched : weights};
        prefetched += plan.H_packed * kCacheLine<Word>;
        S* const tile = plane(out, step, n, first);
        Tiles<Word, Packed>::product.of[vectors][count](&term, 1, bias ? bias + first : tile, bias ? 0 : kUnits, tile,
                                                        kUnits);
        n += count;
      }
    });
  }

  void step_forward(Team& team, Index step, Range rows, Range units) const {
    const State h{this->state_numbers(step, 0), this->states(step, 0)};
    const Range some = this->valid_rows(step, rows);
    multiply_state(h, kZ, nullptr, kZ, step, some, units);
    multiply_state(h, kR, nullptr, kR, step, some, units);
    if (plan.sizes.reset_after) {
      multiply_state(h, kN, state_b, kQ, step, some, units);
      for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
        if (!valid) return store_output(step, n, u, false);
        activate_gates(step, n, u);
        S* const candidate = plane(kN, step, n, u);
        store(candidate, Math<S>::tanh(load(candidate) + load(plane(kR, step, n, u)) * load(plane(kQ, step, n, u))));
        store_output(step, n, u, true);
      });
      return;
    }
    for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
      Vec<S> reset{};  // masked steps may hold anything; zeros keep it out of the weights' gradients
      if (valid) {
        activate_gates(step, n, u);
        reset = load(plane(kR, step, n, u)) * load(args.h + state_place(step, n, u));
      }
      store(plane(kQ, step, n, u), reset);
      put_reset_words(step, n, u);
    });
    plan.meet(team);
    multiply_state(reset_state(step), kN, nullptr, kN, step, some, units);
    for_each_vector(step, rows, units, [&](Index n, Index u, bool valid) {
      S* const candidate = plane(kN, step, n, u);
      if (valid) store(candidate, Math<S>::tanh(load(candidate)));
      store_output(step, n, u, valid);
    });
  }

  // r h_prev as the product takes it.
  FASTLSTM_INLINE void put_reset_words(Index step, Index n, Index u) const {
    if constexpr (!Format::kIsExact) {
      if (!plan.packs()) return;
      put_along_k<Format>(plane(kQ, step, n, u), plan.H - u, reset_words + P::state_words_place(plan.N, n, u));
    }
  }
  State reset_state(Index step) const {
    const Operand<S> numbers{plane(kQ, step, 0, 0), kUnits, P::kLayout.state_stride(plane_rows()), kUnits, 1, plan.H};
    if constexpr (Format::kIsExact) {
      return {numbers, numbers};
    } else {
      constexpr Index kWords = kUnits / kDepth;
      return {numbers, {reset_words, kWords, P::kWordLayout.state_stride(plan.N), kWords, 1, plan.H_words}};
    }
  }

  // Calls body(n, u, whether the step is valid) for all vectors of units.
  template <class Body>
  FASTLSTM_INLINE void for_each_vector(Index step, Range rows, Range units, const Body& body) const {
    for (Index n = rows.begin; n < rows.end; ++n) {
      const bool valid = this->valid(step, n);
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
    Vec<S> h = load(args.h + state_place(step, n, u));
    if (valid) h = gru_blend(blend, load(plane(kZ, step, n, u)), load(plane(kN, step, n, u)), h);
    store(args.h + state_place(step + 1, n, u), h);
    this->put_state_words(step + 1, n, u);
    if (args.hs.data) store_partial(plan.at(args.hs, step, n) + u, h, plan.H - u);
  }
};

template <class Format, class Kept = Format, class S = Sum<typename Format::Word>>
constexpr RecurrentKernels<S> table() {
  using Forward = GruForward<Format>;
  using Prepared = GruForward<Kept>;
  using Backward = SequenceBackward<Format, GruCell>;
  return {Forward::workspace,      run_pass<Forward, RecurrentForward<S>>,
          Backward::workspace,     run_pass<Backward, RecurrentBackward<S>>,
          prepared_size<Prepared>, run_prepare<Prepared, RecurrentForward<S>>,
          Prepared::workspace,     run_pass<Prepared, RecurrentForward<S>>};
}

}  // namespace

#if !FASTLSTM_ONLY_BF16
extern const RecurrentKernels<float> gru_float32 = table<Exact<float>>();
extern const RecurrentKernels<double> gru_float64 = table<Exact<double>>();
#endif
extern const RecurrentKernels<float> gru_bf16 = table<Bf16, KeptBf16>();

}  // namespace fastlstm::FASTLSTM_ISA
