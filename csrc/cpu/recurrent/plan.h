// What a recurrent call derives from its sizes: the split of the work, and where the gates lie.
//
// The split: if the packed weights fit the cache and the batch is large enough, threads take rows of the batch and
// never wait for each other; else they take units, and meet wherever a product needs all of them.
#pragma once

#include "../gemm/pack.h"
#include "../gemm/tile.h"
#include "../threads.h"
#include "../tuning.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {

// A cell is LstmCell (lstm.cc), RnnCell (rnn.cc) or GruCell (gru.cc). What is a factor of a product, of weights,
// inputs, states and gates' gradients, is there as words of a Format (../bf16.h); exact ones are the numbers
// themselves.
template <class Format, class Cell>
struct Plan {
  using Word = typename Format::Word;
  using Packed = typename Packing<Format>::Word;  // of weights
  using S = Sum<Word>;
  static constexpr Index kDepth = Format::kDepth;
  static constexpr BlockLayout kLayout = Cell::kLayout;
  static constexpr BlockLayout kWordLayout{kLayout.units / kDepth, kLayout.gates, kLayout.planes};  // along units
  static constexpr Index kUnits = kLayout.units;
  static constexpr int kLog2Units = __builtin_ctzll(kUnits);
  static_assert(kUnits == 1 << kLog2Units);
  static constexpr Index kGates = kLayout.gates;                           // of a plane
  static constexpr int kPlanes = Cell::kGates / static_cast<int>(kGates);  // that the weights have columns for
  static constexpr Index kWidth = kUnits * kGates;                         // columns of a gate block
  // Units come to threads in pieces of this size, whole vectors for every instruction set.
  static constexpr Index kGrain = Cell::kGrain;
  static_assert(kWidth % kTileColumns<S> == 0 && kGrain % kLanes<S> == 0);

  const RecurrentSizes& sizes;
  Index N, T, D, H;
  Index D_words, H_words;    // words along D and H
  Index D_packed, H_packed;  // and those of packed weights
  Index G;                   // columns of the weights
  Index blocks;              // of units
  Index input_blocks;        // of input columns, as wide as blocks of units
  Index rows;                // T N

  explicit Plan(const RecurrentSizes& s)
      : sizes(s),
        N(s.N),
        T(s.N == 0 ? 0 : s.T),  // no rows, no steps
        D(s.D),
        H(s.H),
        D_words(words<Format>(s.D)),
        H_words(words<Format>(s.H)),
        D_packed(words<Packing<Format>>(s.D)),
        H_packed(words<Packing<Format>>(s.H)),
        G(Cell::kGates * s.H),
        blocks(kLayout.blocks(s.H)),
        input_blocks(kLayout.blocks(s.D)),
        rows(s.T * s.N) {}

  Index time(Index step) const { return sizes.reverse ? T - 1 - step : step; }
  // The vector of row n in a step.
  template <class E>
  E* at(const Sequence<E>& sequence, Index step, Index n) const {
    return sequence.data + n * sequence.row + time(step) * sequence.step;
  }
  bool valid(const bool* mask, Index step, Index n) const { return mask == nullptr || mask[n * T + time(step)]; }

  // Some rows without those at either end that are masked in a step: nothing is multiplied for them. Sequences in the
  // order of their lengths take as long as the steps they have.
  Range valid_rows(const bool* mask, Index step, Range rows) const {
    while (rows.begin < rows.end && !valid(mask, step, rows.end - 1)) --rows.end;
    while (rows.begin < rows.end && !valid(mask, step, rows.begin)) ++rows.begin;
    return rows;
  }

  // Where a gate's columns of the weights begin.
  Index gate_column(Index gate) const { return sizes.gate_position[gate] * H; }

  // Columns of block j that hold units, in whole vectors. Only a plane of one gate can leave the rest out: its units
  // are neighbours.
  Index columns(Index j) const {
    if constexpr (kGates == 1) return min_of(kUnits, padded_units() - j * kUnits);
    return kWidth;
  }

  // Units and columns of dx, in whole vectors.
  Index padded_units() const { return ceil_div(H, kLanes<S>) * kLanes<S>; }
  Index padded_inputs() const { return ceil_div(D, kLanes<S>) * kLanes<S>; }

  // Where unit u of row r lies in the gate buffer, or in a state buffer of `state_rows` rows.
  Index gate_place(int plane, Index r, Index u) const {
    return plane * kLayout.plane(rows, H) + u / kUnits * kLayout.gate_stride(rows) + r * kWidth + u % kUnits;
  }
  static Index state_place(Index state_rows, Index r, Index u) {
    return u / kUnits * kLayout.state_stride(state_rows) + r * kUnits + u % kUnits;
  }

  // Where the words along units from unit u on lie, as the numbers do.
  Index gate_words_place(int plane, Index r, Index u) const {
    return plane * kWordLayout.plane(rows, H_words) + u / kUnits * kWordLayout.gate_stride(rows) +
           (r * kWidth + u % kUnits) / kDepth;
  }
  static Index state_words_place(Index state_rows, Index r, Index u) {
    return u / kUnits * kWordLayout.state_stride(state_rows) + (r * kUnits + u % kUnits) / kDepth;
  }

  bool split_rows() const {
    return N >= 8 && (D_packed + H_packed) * G * static_cast<Index>(sizeof(Packed)) <= kSharedWeightBytes;
  }

  // Weights that meet one row once or twice are read where they lie: packing them takes longer than the products. There
  // are no words then; factors are rounded one by one.
  static constexpr Index kFewSteps = 2;
  bool packs() const { return sizes.prepared || N != 1 || T > kFewSteps; }

  // Panels that are packed for any number of threads reach over whole blocks.
  Index grain() const { return sizes.prepared ? kUnits : kGrain; }

  int threads() const {
    const double work = static_cast<double>(rows) * static_cast<double>(D + H + 64) * static_cast<double>(G);
    // A step of a single row waits for the weights' memory, of which two threads read more.
    if (work < kSmallCall && (N > 1 || work < kSmallProduct * static_cast<double>(T))) return 1;
    return static_cast<int>(min_of(sizes.threads, split_rows() ? ceil_div(N, 4) : max_of(ceil_div(H, grain()), 1)));
  }

  // The rows of a thread: as many valid steps as the others have.
  Range own_rows(const Team& team, const bool* mask) const {
    if (!split_rows()) return {0, N};
    if (mask == nullptr) return piece(N, team.member(), team.size());
    const auto steps = [&](Index n) {
      Index count = 1;
      for (Index step = 0; step < T; ++step) count += mask[n * T + step];
      return count;
    };
    Index all = 0;
    for (Index n = 0; n < N; ++n) all += steps(n);
    Range own{0, 0};
    for (Index n = 0, done = 0; n < N; done += steps(n), ++n) {
      const Index owner = done * team.size() / all;
      if (owner < team.member()) own.begin = n + 1;
      if (owner <= team.member()) own.end = n + 1;
    }
    return own;
  }
  Range own_units(const Team& team) const {
    if (split_rows()) return {0, padded_units()};
    const Range grains = piece(ceil_div(H, grain()), team.member(), team.size());
    return {min_of(grains.begin * grain(), padded_units()), min_of(grains.end * grain(), padded_units())};
  }
  // Waits where threads own units and the next product needs all of them; whether to go on.
  bool meet(Team& team) const { return split_rows() ? !team.stopped() : team.wait(); }
};

template <class Pass, class Args>
void run_pass(const Args& args) {
  Pass pass(args);
  run_team(pass.plan.threads(), [](void* context, Team& team) { static_cast<const Pass*>(context)->run(team); }, &pass);
}

}  // namespace fastlstm::FASTLSTM_ISA
