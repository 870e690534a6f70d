// dWx = x^T dA, dWh = h_prev^T dA, db = sum of dA: all steps at once, after the last of them.
//
// The work is split over the results: a group of blocks of rows of dWx and dWh (they share what is read of dA) by a
// group of gate blocks of columns (their results are written together: single cache lines far from each other take
// longer than the sums).
#pragma once

#include "plan.h"

namespace fastlstm::FASTLSTM_ISA {

template <class Format, class Cell>
struct WeightGradients {
  using P = Plan<Format, Cell>;
  using Word = typename P::Word;
  using S = typename P::S;
  static constexpr Index kUnits = P::kUnits, kWidth = P::kWidth, kDepth = P::kDepth;
  // Words along rows of one chain of sums: as many as stay in the first cache level. Longer ones lose accuracy, too.
  static constexpr Index kChunk = 384 / static_cast<Index>(sizeof(Word));
  static constexpr Index kBiasRows = 384 / static_cast<Index>(sizeof(S));
  // Blocks of rows that are summed at a time, and of columns that are stored at a time.
  static constexpr Index kLeftBlocks = 128 / kUnits;
  static Index gate_blocks(const P& plan) {
    if (!plan.packs()) return max_of(plan.blocks, 1);
    return plan.H < 256 ? 1 : 8;
  }

  // The words of x, h_prev and the GRU's r h_prev along rows (see pack.h), those of dA along units. Those of states
  // that are null are the numbers in args. `rows` of each count.
  struct Factors {
    Index rows;
    const Word* x;
    const Word* h;
    const Word* reset;
    const Word* dA;
  };

  const RecurrentBackward<S>& args;
  const P& plan;
  Factors factors;
  S* sums;             // workspace() elements a thread
  Index input_blocks;  // the first of left_blocks: rows of dWx, the others are rows of dWh
  Index left_blocks, left_groups, column_groups;

  WeightGradients(const RecurrentBackward<S>& a, const P& p, const Factors& f, S* workspace, const Team& team)
      : args(a),
        plan(p),
        factors(f),
        sums(workspace),
        input_blocks(a.dWx.data ? p.input_blocks : 0),
        left_blocks(input_blocks + (a.dWh.data ? p.blocks : 0)),
        column_groups(ceil_div(p.blocks, gate_blocks(p))) {
    // At least two items of work a thread; the biases need one even if no weights' gradients are wanted.
    left_groups =
        min_of(max_of(ceil_div(left_blocks, kLeftBlocks), ceil_div(2 * team.size(), max_of(column_items(), 1))),
               max_of(left_blocks, 1));
  }

  static Index workspace(const P& plan) {
    if (!plan.packs()) return P::kFewSteps * (kLeftBlocks * kUnits + plan.blocks * kWidth);
    return kLeftBlocks * gate_blocks(plan) * kUnits * kWidth;
  }

  Index column_items() const { return P::kPlanes * column_groups; }
  Index count() const { return left_groups * column_items(); }

  void run(const Team& team, Index item) const {
    const Range lefts = piece(left_blocks, item / column_items(), left_groups);
    const int plane = static_cast<int>(item % column_items() / column_groups);
    const Range columns = piece(plan.blocks, item % column_groups, column_groups);
    if (item < column_items() && args.db.data) {
      for (Index j = columns.begin; j < columns.end; ++j) bias_blocks(plane, j);
    }
    S* const results = sums + team.member() * workspace(plan);
    const Range inputs{lefts.begin, min_of(lefts.end, input_blocks)};
    const Range states{max_of(lefts.begin, input_blocks), lefts.end};
    if (!plan.packs()) {
      store_few_rows(inputs, args.dWx, plane, results);
      store_few_rows(states, args.dWh, plane, results);
      return;
    }
    for (Index j = columns.begin; j < columns.end; ++j) {
      weight_blocks(lefts, plane, j, results + (j - columns.begin) * kLeftBlocks * kUnits * kWidth);
    }
    store_weight_blocks(inputs, args.dWx, plane, columns, results);
    store_weight_blocks(states, args.dWh, plane, columns, results + (states.begin - lefts.begin) * kUnits * kWidth);
  }

  // The plane of the gradients that dWh's columns of a plane come from: the GRU's reset gate may stand between.
  int state_plane(int plane) const {
    if constexpr (Cell::kHasResetGate) {
      if (plane == Cell::kN && plan.sizes.reset_after) return Cell::kQ;
    }
    return plane;
  }
  // Whether they are multiplied by the GRU's r h_prev and not by h_prev.
  bool meets_reset_state(int plane) const {
    if constexpr (Cell::kHasResetGate) return plane == Cell::kN && !plan.sizes.reset_after;
    return false;
  }
  const S* gates(int plane, Index u) const { return args.gates + plan.gate_place(plane, 0, u); }

  // A block of rows of dWx or dWh, in the columns of a plane: the plane of its right operand, which row of the gradient
  // is its first one, and how many there are.
  struct WeightRows {
    int right;
    Index first, count;
  };
  WeightRows weight_rows(Index block, int plane) const {
    if (block < input_blocks) {
      const Index first = block * kUnits;
      return {plane, first, min_of(kUnits, plan.D - first)};
    }
    const Index first = (block - input_blocks) * kUnits;
    return {state_plane(plane), first, min_of(kUnits, plan.H - first)};
  }

  // A block's left operand: [words(T N)][kUnits], or numbers.
  const Word* left_words(Index block, int plane) const {
    const Index stride = P::kLayout.state_stride(words<Format>(plan.rows));
    if (block < input_blocks) return factors.x + block * stride;
    const Word* const states = meets_reset_state(plane) ? factors.reset : factors.h;
    if constexpr (Format::kIsExact) {
      if (states == nullptr) return left_numbers(block, plane);
    }
    return states + (block - input_blocks) * stride;
  }
  const S* left_numbers(Index block, int plane) const {
    if (block < input_blocks) {
      return reinterpret_cast<const S*>(factors.x) + P::state_place(plan.rows, 0, block * kUnits);
    }
    const Index u = (block - input_blocks) * kUnits;
    if constexpr (Cell::kHasResetGate) {
      if (meets_reset_state(plane)) return gates(Cell::kQ, u);
    }
    return args.h + P::state_place(plan.rows + plan.N, 0, u);
  }

  // Some blocks of rows of dWx and dWh, columns of gate block j. A chunk of dA stays in the first cache level while it
  // meets all of them.
  void weight_blocks(Range lefts, int plane, Index j, S* results) const {
    for (Index k = 0; k < (lefts.end - lefts.begin) * kUnits * kWidth; k += kLanes<S>) store(results + k, Vec<S>{});
    alignas(64) Word turned[kDepth == 1 ? 1 : kChunk * kWidth];
    const Index depth = words<Format>(factors.rows), chunks = ceil_div(depth, kChunk);
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const Range range = piece(depth, chunk, chunks);
      const Word* right = nullptr;
      int right_plane = -1;
      for (Index left = lefts.begin; left < lefts.end; ++left) {
        const WeightRows block = weight_rows(left, plane);
        if (block.right != right_plane) right = right_words(block.right, j, range, turned);
        right_plane = block.right;
        add_weight_block(left_words(left, plane) + range.begin * kUnits, right, range.end - range.begin, block.count,
                         plan.columns(j), results + (left - lefts.begin) * kUnits * kWidth);
      }
    }
  }

  // dA of gate block j of a plane, [words][kWidth] along rows: where it lies, or turned from pairs along units.
  const Word* right_words(int plane, Index j, Range range, Word* turned) const {
    const Word* const along_units = factors.dA + plan.gate_words_place(plane, range.begin * kDepth, j * kUnits);
    if constexpr (kDepth == 1) {
      return along_units;
    } else {
      constexpr Index kRow = kWidth / kDepth;
      for (Index k = 0; k < range.end - range.begin; ++k) {
        const Word* const row = along_units + k * kDepth * kRow;
        const bool has_second = (range.begin + k) * kDepth + 1 < factors.rows;
        for (Index v = 0; v < kRow; v += kLanes<Word>) {
          Format::turn(load(row + v), has_second ? load(row + kRow + v) : Vec<Word>{}, turned + k * kWidth + 2 * v);
        }
      }
      return turned;
    }
  }

  // results += the transpose of `count` columns of left, times `columns` columns of right, over `depth` words.
  static void add_weight_block(const Word* left, const Word* right, Index depth, Index count, Index columns,
                               S* results) {
    for_each_panel<S>(0, columns, [&](Index panel, Index width) {
      const Index vectors = width / kLanes<S>, most = rows_of_tile(vectors);
      for (Index lane = 0; lane < count;) {
        const Index tile = next_tile(count, lane, most);
        Tiles<Word>::transposed.of[vectors][tile](left + lane, kUnits, right + panel, kWidth, depth,
                                                  results + lane * kWidth + panel, kWidth);
        lane += tile;
      }
    });
  }

  // Some blocks of rows of one gradient, for so few rows of x and dA that the product needs no place of its own. Both
  // are copied to vectors without gaps first.
  void store_few_rows(Range lefts, const WeightResult<S>& dW, int plane, S* copies) const {
    if (lefts.begin >= lefts.end) return;
    const WeightRows block = weight_rows(lefts.begin, plane);
    const Index height = (lefts.end - lefts.begin) * kUnits, width = plan.blocks * kWidth;
    const Index first_column = P::kPlanes == 1 ? 0 : plan.gate_column(plane), columns = P::kGates * plan.H;
    S* const left = copies;
    S* const right = left + P::kFewSteps * height;  // as the columns of the gradient lie
    for (Index r = 0; r < P::kFewSteps; ++r) {
      for (Index k = 0; k < height; k += kLanes<S>) {
        const S* const source = left_numbers(lefts.begin + k / kUnits, plane) + r * kUnits + k % kUnits;
        const bool valid = r < plan.rows && plan.valid(args.mask, r, 0);
        store(left + r * height + k, valid ? Format::factor(load(source)) : Vec<S>{});
      }
      for (Index gate = 0; gate < P::kGates; ++gate) {
        S* const place = right + r * width + plan.gate_column(plane * P::kGates + gate) - first_column;
        for (Index u = 0; u < plan.H; u += kLanes<S>) {
          const S* const source = gates(block.right, u) + r * kWidth + gate * kUnits;
          store_partial(place + u, r < plan.rows ? Format::factor(load(source)) : Vec<S>{}, plan.H - u);
        }
      }
    }
    const Index count = min_of(height, (lefts.begin < input_blocks ? plan.D : plan.H) - block.first);
    S* const corner = dW.data + block.first * dW.row + first_column * dW.column;
    if (dW.column == 1) {
      for (Index k = 0; k < count; ++k) {
        put_products(left + k, height, right, width, corner + k * dW.row, columns, dW.accumulate);
      }
    } else {
      for (Index k = 0; k < columns; ++k) {
        put_products(right + k, width, left, height, corner + k * dW.column, count, dW.accumulate);
      }
    }
  }

  // out = the sum over the few rows of an element of each times `count` elements of each.
  static void put_products(const S* element, Index element_row, const S* vector, Index vector_row, S* out, Index count,
                           bool accumulate) {
    Vec<S> factors[P::kFewSteps];
    for (Index r = 0; r < P::kFewSteps; ++r) factors[r] = broadcast(element[r * element_row]);
    for (Index u = 0; u < count; u += kLanes<S>) {
      Vec<S> sum{};
#pragma GCC unroll 2
      for (Index r = 0; r < P::kFewSteps; ++r) sum += factors[r] * load(vector + r * vector_row + u);
      keep_in_register(sum);  // rounded before it is added
      put(out + u, sum, count - u, accumulate);
    }
  }

  // Some blocks of rows of one gradient.
  void store_weight_blocks(Range lefts, const WeightResult<S>& dW, int plane, Range columns, const S* results) const {
    constexpr Index kStride = kLeftBlocks * kUnits * kWidth;  // from a block of columns to the next
    for (Index left = lefts.begin; left < lefts.end && dW.column == 1; ++left) {
      const WeightRows block = weight_rows(left, plane);
      for (Index lane = 0; lane < block.count; ++lane) {
        const S* const row = results + ((left - lefts.begin) * kUnits + lane) * kWidth;
        unpack_gates(row, kStride, plane, columns, dW.data + (block.first + lane) * dW.row, dW.accumulate);
      }
    }
    if (dW.column == 1) return;
    for (Index gate = 0; gate < P::kGates; ++gate) {
      for (Index j = columns.begin; j < columns.end; ++j) {
        const S* const block = results + (j - columns.begin) * kStride + gate * kUnits;
        const Index units = min_of(kUnits, plan.H - j * kUnits);
        S* const out = dW.data + (plan.gate_column(plane * P::kGates + gate) + j * kUnits) * dW.column;
        for (Index u = 0; u < units; u += kLanes<S>) {
          store_columns(block + u, lefts, plane, out + u * dW.column, dW.column, units - u, dW.accumulate);
        }
      }
    }
  }

  // Columns of some blocks of rows, whose rows are neighbours in memory.
  void store_columns(const S* results, Range lefts, int plane, S* out, Index column, Index count,
                     bool accumulate) const {
    for (Index left = lefts.begin; left < lefts.end; ++left, results += kUnits * kWidth) {
      const WeightRows block = weight_rows(left, plane);
      for (Index lane = 0; lane < block.count; lane += kLanes<S>) {
        Vec<S> square[kLanes<S>];
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes<S>; ++i) square[i] = load(results + (lane + i) * kWidth);
        transpose<S>(square);
#pragma GCC unroll 16
        for (Index i = 0; i < kLanes<S>; ++i) {
          if (i < count) put(out + i * column + block.first + lane, square[i], block.count - lane, accumulate);
        }
      }
    }
  }

  static FASTLSTM_INLINE void put(S* p, const Vec<S>& v, Index count, bool accumulate) {
    store_partial(p, accumulate ? load_partial(p, count) + v : v, count);
  }

  // With the reset gate behind the product there are two biases, of the inputs and of the state.
  void bias_blocks(int plane, Index j) const {
    bias_block(plane, plane, j, args.db.data);
    if (Cell::kHasResetGate && plan.sizes.reset_after) bias_block(state_plane(plane), plane, j, args.db.data + plan.G);
  }

  void bias_block(int right, int plane, Index j, S* db) const {
    alignas(64) S totals[kWidth];
    const S* const dA = gates(right, j * kUnits);
    for_each_panel<S>(0, plan.columns(j), [&](Index panel, Index width) {
      with_vectors(static_cast<int>(width / kLanes<S>), [&]<int vectors>() {
        Vec<S> total[vectors] = {};
        for (Index r = 0; r < factors.rows; r += kBiasRows) {
          Vec<S> sum[vectors] = {};
          for (Index k = r; k < min_of(r + kBiasRows, factors.rows); ++k) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[v] += load(dA + k * kWidth + panel + v * kLanes<S>);
          }
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) total[v] += sum[v];
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(totals + panel + v * kLanes<S>, total[v]);
      });
    });
    unpack_gates(totals, 0, plane, {j, j + 1}, db, args.db.accumulate);
  }

  // A row of a plane's gate blocks, `stride` from each other, to its places in a row of G columns.
  void unpack_gates(const S* row, Index stride, int plane, Range columns, S* out, bool accumulate) const {
    for (Index gate = 0; gate < P::kGates; ++gate) {
      S* const places = out + plan.gate_column(plane * P::kGates + gate);
      for (Index j = columns.begin; j < columns.end; ++j) {
        const S* const block = row + (j - columns.begin) * stride + gate * kUnits;
        for (Index u = 0; u < min_of(kUnits, plan.H - j * kUnits); u += kLanes<S>) {
          const Index unit = j * kUnits + u;
          put(places + unit, load(block + u), plan.H - unit, accumulate);
        }
      }
    }
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
