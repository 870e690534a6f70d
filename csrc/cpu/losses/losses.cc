// Cross entropy kernels of one instruction set.
#include "../gemm/pack.h"
#include "../gemm/tile.h"
#include "../parallel.h"
#include "../tuning.h"
#include "../vector_math.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// The running log-sum-exp of a row: log(sum) + max (Milakov and Gimelshein 2018, "Online normalizer calculation for
// softmax").
template <class S>
struct LogSumExp {
  S max = -static_cast<S>(__builtin_inf());
  S sum = 0;

  void add(const S* x, Index count) {
    Vec<S> largest = broadcast(max);
    Index k = 0;
    for (; k + kLanes<S> <= count; k += kLanes<S>) largest = maximum<S>(largest, load(x + k));
    S new_max = max_lane<S>(largest);
    for (; k < count; ++k) {
      if (x[k] > new_max || x[k] != x[k]) new_max = x[k];
    }
    if (new_max == -static_cast<S>(__builtin_inf())) return;  // nothing but exp(-inf) so far
    Vec<S> total{};
    for (k = 0; k + kLanes<S> <= count; k += kLanes<S>) total += Math<S>::exp(load(x + k) - new_max);
    S rest = 0;
    if (k < count) {
      const Vec<S> e = Math<S>::exp(load_partial(x + k, count - k) - new_max);
      for (Index lane = 0; lane < count - k; ++lane) rest += e[lane];
    }
    const Vec<S> correction = Math<S>::exp(broadcast<S>(max - new_max));
    sum = (sum == 0 ? S{0} : sum * correction[0]) + (sum_lanes<S>(total) + rest);
    max = new_max;
  }

  // The loss of a target of this logit. The difference comes first: beside large logits the logarithm would be lost.
  double loss(double logit) const {
    return __builtin_log(static_cast<double>(sum)) + (static_cast<double>(max) - logit);
  }
};

// The same for every lane by itself: kLanes running sums of a row, which meet at the end.
template <class S>
struct LanewiseLogSumExp {
  Vec<S> max = broadcast(-static_cast<S>(__builtin_inf()));
  Vec<S> sum{};

  void add(const Vec<S>* x, int count) {
    Vec<S> largest = max;
#pragma GCC unroll 4
    for (int v = 0; v < count; ++v) largest = maximum<S>(largest, x[v]);
    // Nothing but exp(-inf) so far: any shift will do, but for infinity.
    const Vec<S> shift = largest == -static_cast<S>(__builtin_inf()) ? Vec<S>{} : largest;
    sum *= Math<S>::exp(max - shift);
#pragma GCC unroll 4
    for (int v = 0; v < count; ++v) sum += Math<S>::exp(x[v] - shift);
    max = largest;
  }

  LogSumExp<S> total() const {
    LogSumExp<S> row;
    row.max = max_lane<S>(max);
    if (row.max != -static_cast<S>(__builtin_inf())) row.sum = sum_lanes<S>(sum * Math<S>::exp(max - row.max));
    return row;
  }
};

// out = (softmax - one-hot at target) * scale; target outside [0, count): no one-hot.
template <class S>
void softmax_gradient(const S* x, const LogSumExp<S>& row, Index target, Index count, S scale, S* out) {
  const S factor = scale / row.sum;
  Index k = 0;
  for (; k + kLanes<S> <= count; k += kLanes<S>) store(out + k, Math<S>::exp(load(x + k) - row.max) * factor);
  if (k < count) {
    store_partial(out + k, Math<S>::exp(load_partial(x + k, count - k) - row.max) * factor, count - k);
  }
  if (target >= 0 && target < count) out[target] -= scale;
}

template <class S>
void clear(S* x, Index count) {
  for (Index k = 0; k < count; ++k) x[k] = 0;
}

template <class S, class Id>
void softmax_cross_entropy(const S* logits, const Id* targets, Index M, Index V, Id ignore_index, S scale,
                           double* losses, S* dlogits) {
  parallel_pieces(M, 1, 4 * M * V, [=](Range rows, const Team& team) {
    for (Index m = rows.begin; m < rows.end && !team.stopped(); ++m) {
      losses[m] = 0;
      if (targets[m] == ignore_index) {
        clear(dlogits + m * V, V);
        continue;
      }
      LogSumExp<S> row;
      row.add(logits + m * V, V);
      const Index target = static_cast<Index>(targets[m]);
      losses[m] = row.loss(static_cast<double>(logits[m * V + target]));
      softmax_gradient(logits + m * V, row, target, V, scale, dlogits + m * V);
    }
  });
}

template <class S, class Id>
constexpr LossKernels<S, Id> table() {
  return {softmax_cross_entropy<S, Id>};
}

// ---- Projection, softmax, loss and gradients in one ----------------------------------------------------------------
//
// The vocabulary is taken in blocks of `block` columns. A first pass over the blocks finds every row's log-sum-exp; a
// second one turns logits into their gradients and these into dW, db and dh. With one block the logits of the first
// pass are still there in the second; with more they are computed again, and no more than a block of them is ever held
// (Wijmans et al. 2024, "Cut your losses in large-vocabulary language models").
//
// A block lies in panels of kLossPanel columns, [panels][M][kLossPanel]: rows of it are B of dW and A of dh, where
// words are numbers. Where they are pairs, a panel becomes pairs along its rows, [M][kLossPanel / 2], which are A of
// dh, and behind them pairs along its columns, [M / 2][kLossPanel], which are B of dW.
template <class Format>
struct LinearLossPass {
  using Word = typename Format::Word;
  using S = Sum<Word>;
  static constexpr Index kDepth = Format::kDepth;
  static constexpr Index kPanel = kLossPanel;
  static constexpr Index kLaneBlock = 16;  // columns of h that lie together where h is an operand of dW
  // Of dh: what of W^T stays in the second cache level, and rows that meet it at a time.
  static constexpr Index kDhPiece = 384 * 1024 / static_cast<Index>(sizeof(S)), kRowBlock = 96;
  // Blocks of h that meet a chunk of the logits' gradients at a time, and panels of dW that are stored at a time: lone
  // cache lines far from each other would take long.
  static constexpr Index kLaneBlocks = 4, kPanels = 4;
  static constexpr Index kGroupLanes = kLaneBlocks * kLaneBlock;
  static constexpr Index kResultsSize = kPanels * kGroupLanes * kPanel;
  // Rows of h summed in one chain: as many as stay, with a panel of the logits' gradients, in the first cache level.
  static constexpr Index kChunk = 384 / static_cast<Index>(sizeof(S));

  const LinearLoss<S>& args;
  S* logits;                      // a block
  LanewiseLogSumExp<S>* running;  // (M,)
  Word* h_rows;                   // (M, words of H), h itself if exact
  Word* h_blocks;      // [H / kLaneBlock][words of M][kLaneBlock], or kLaneBlocks such blocks a thread if more than one
                       // block of logits
  Word* packed;        // a panel of W or pieces of its transpose, packed_size a thread
  S* dW_results;       // kResultsSize a thread
  LogSumExp<S>* sums;  // (M,)
  Index packed_size;

  explicit LinearLossPass(const LinearLoss<S>& a) : args(a) {
    logits = args.workspace;
    running = reinterpret_cast<LanewiseLogSumExp<S>*>(logits + padded_rows(a) * block_columns(a));
    h_rows = reinterpret_cast<Word*>(running + args.M);
    h_blocks = h_rows + h_rows_size(a);
    packed = h_blocks + h_elements(a);
    packed_size = packed_elements(a);
    dW_results = reinterpret_cast<S*>(packed + a.threads * packed_size);
    sums = reinterpret_cast<LogSumExp<S>*>(dW_results + a.threads * kResultsSize);
  }

  static Index block_columns(const LinearLoss<S>& a) { return min_of(a.block, ceil_div(a.V, kPanel) * kPanel); }
  static Index padded_units(const LinearLoss<S>& a) { return ceil_div(max_of(a.H, 1), kLanes<S>) * kLanes<S>; }
  static Index packed_elements(const LinearLoss<S>& a) {
    return padded_units(a) * max_of(kPanel, min_of(block_columns(a), kDhPiece / padded_units(a)));
  }
  static bool one_block(const LinearLoss<S>& a) { return block_columns(a) >= a.V; }
  static Index padded_rows(const LinearLoss<S>& a) { return words<Format>(a.M) * kDepth; }
  static Index h_rows_size(const LinearLoss<S>& a) {
    return Format::kIsExact ? 0 : ceil_div(a.M * words<Format>(a.H), kLaneBlock) * kLaneBlock;
  }
  static Index h_block_size(const LinearLoss<S>& a) { return words<Format>(a.M) * kLaneBlock + kBlockPadding; }
  static Index h_elements(const LinearLoss<S>& a) {
    return (one_block(a) ? ceil_div(a.H, kLaneBlock) : a.threads * kLaneBlocks) * h_block_size(a);
  }
  static Index workspace(const LinearLoss<S>& a) {
    return padded_rows(a) * block_columns(a) + 2 * kLanes<S> * a.M + h_rows_size(a) + h_elements(a) +
           a.threads * (packed_elements(a) + kResultsSize) + 2 * a.M;
  }

  void run(Team& team) const {
    const Range rows = piece(args.M, team.member(), team.size());
    const Index block = block_columns(args);
    for (Index m = rows.begin; m < rows.end; ++m) running[m] = LanewiseLogSumExp<S>{};
    if constexpr (!Format::kIsExact) pack_rows<Format>(args.h, args.H, rows, h_rows);
    if (one_block(args) && args.dW) {
      const Range own = piece(ceil_div(args.H, kLaneBlock), team.member(), team.size());
      for (Index i = own.begin; i < own.end; ++i) pack_h(i * kLaneBlock, h_blocks + i * h_block_size(args));
    }
    for (Index first = 0; first < args.V; first += block) {
      if (!multiply_logits(team, first)) return;
      add_to_sums(rows, first);
    }
    if (!args.dh && !args.dW && !args.db) return;
    for (Index first = 0; first < args.V; first += block) {
      if (block < args.V && !multiply_logits(team, first)) return;
      if (!differentiate(team, first)) return;
      team.deal(args.dW ? dW_items(first) : 0);
      if (!team.wait()) return;
      if (args.dh) multiply_dh(team, first);
      multiply_dW(team, first);
    }
  }

  Index block_end(Index first) const { return min_of(first + block_columns(args), args.V); }
  // Row m's logits of the panel that begins at column `column` of the vocabulary.
  S* logits_at(Index first, Index column, Index m) const {
    return logits + (column - first) / kPanel * padded_rows(args) * kPanel + m * kPanel;
  }
  // The gradients of that panel as they are multiplied: words along its rows, kPanel / kDepth a row; and along columns,
  // kPanel for every kDepth rows.
  Word* row_words(Index first, Index column) const { return reinterpret_cast<Word*>(logits_at(first, column, 0)); }
  Word* column_words(Index first, Index column) const {
    return row_words(first, column) + (kDepth - 1) * padded_rows(args) * (kPanel / kDepth);
  }
  Word* own_packed(const Team& team) const { return packed + team.member() * packed_size; }

  Index panels(Index first) const { return ceil_div(block_end(first) - first, kPanel); }

  // Waits for the block of before to be done with, and for all logits of this one. Whether to go on.
  bool multiply_logits(Team& team, Index first) const {
    Word* const W = own_packed(team);
    const Word* const h = Format::kIsExact ? reinterpret_cast<const Word*>(args.h) : h_rows;
    const Index depth = words<Format>(args.H);
    team.wait();
    team.deal(panels(first));
    team.wait();
    for (Index panel; (panel = team.take()) >= 0;) {
      const Index column = first + panel * kPanel;
      for (Index part = 0; part < kPanel; part += kTileColumns<S>) {
        const Index left = args.V - column - part;
        if (left <= 0) break;
        alignas(64) S bias[kTileColumns<S>];
        for (Index v = 0; v < kTileColumns<S>; v += kLanes<S>) {
          store(bias + v, args.b ? load_partial(args.b + column + part + v, left - v) : Vec<S>{});
        }
        pack_panel<Format>(args.transposed, args.W, args.V, args.H, column + part, 0, args.H, kTileColumns<S>, W);
        for (Index m = 0; m < args.M;) {
          const Index count = next_tile(args.M, m, rows_of_tile(kTileVectors));
          const Word* const next_rows = h + (m + count) * depth;
          const Term<Word> term{row_major(h + m * depth, depth, depth), W, next_rows};
          Tiles<Word>::product.of[kTileVectors][count](&term, 1, bias, 0, logits_at(first, column, m) + part, kPanel);
          m += count;
        }
      }
    }
    return team.wait();
  }

  // Panel after panel, because a panel's rows are neighbours in memory.
  void add_to_sums(Range rows, Index first) const {
    const Index end = block_end(first);
    for (Index column = first; column < end; column += kPanel) {
      for (Index m = rows.begin; m < rows.end; ++m) {
        Vec<S> x[kPanel / kLanes<S>];
        for (Index v = 0; v < kPanel; v += kLanes<S>) {
          x[v / kLanes<S>] = load_or_minus_infinity(logits_at(first, column, m) + v, end - column - v);
        }
        running[m].add(x, kPanel / kLanes<S>);
      }
    }
    for (Index m = rows.begin; m < rows.end; ++m) {
      const Index target = static_cast<Index>(args.targets[m]);
      if (target >= first && target < end) {  // its place holds its logit meanwhile
        args.losses[m] = static_cast<double>(logits_at(first, target, m)[(target - first) % kPanel]);
      }
      if (end == args.V) {
        sums[m] = running[m].total();
        args.losses[m] = sums[m].loss(args.losses[m]);
      }
    }
  }

  static Vec<S> load_or_minus_infinity(const S* p, Index count) {
    if (count >= kLanes<S>) return load(p);
    Vec<S> x = broadcast(-static_cast<S>(__builtin_inf()));
    for (Index k = 0; k < count; ++k) x[k] = p[k];
    return x;
  }

  // Gradients of the logits, panel after panel, which waits for the sums of all rows; and db, their sums. Whether to go
  // on.
  bool differentiate(Team& team, Index first) const {
    const Range own = piece(panels(first), team.member(), team.size());
    if (!team.wait()) return false;
    for (Index panel = own.begin; panel < own.end && !team.stopped(); ++panel) {
      const Index column = first + panel * kPanel, count = min_of(kPanel, block_end(first) - column);
      Vec<S> total[kPanel / kLanes<S>] = {};
      for (Index m = 0; m < args.M; ++m) {
        S* const x = logits_at(first, column, m);
        softmax_gradient(x, sums[m], static_cast<Index>(args.targets[m]) - column, count, args.scale, x);
        clear(x + count, kPanel - count);
        for (Index v = 0; v < kPanel; v += kLanes<S>) total[v / kLanes<S>] += load(x + v);
      }
      for (Index v = 0; args.db && v < count; v += kLanes<S>) {
        put(args.add_to_db, args.db + column + v, total[v / kLanes<S>], count - v);
      }
      if constexpr (!Format::kIsExact) make_words(first, column);
    }
    return true;
  }

  // A panel's gradients as words, in its place: the first of them are behind the last number that is still to be read.
  void make_words(Index first, Index column) const {
    const S* const numbers = logits_at(first, column, 0);
    Word* const along_rows = row_words(first, column);
    for (Index i = 0; i < args.M * kPanel; i += kDepth * kLanes<S>) {
      store(along_rows + i / kDepth, Format::along_k(numbers + i, kDepth * kLanes<S>));
    }
    if constexpr (kDepth == 2) {
      constexpr Index kWidth = kPanel / kDepth;
      Word* const along_columns = column_words(first, column);
      for (Index m = 0; m < args.M; m += kDepth) {
        for (Index v = 0; v < kWidth; v += kLanes<S>) {
          const Word* const row = along_rows + m * kWidth + v;
          Format::turn(load(row), m + 1 < args.M ? load(row + kWidth) : Vec<Word>{},
                       along_columns + m * kWidth + 2 * v);
        }
      }
    }
  }

  // Columns [lane, lane + kLaneBlock) of h, row after row. As it is, h has rows that are often a power of two apart and
  // so fall on the same cache sets.
  void pack_h(Index lane, Word* to) const {
    for (Index m = 0; m < args.M; m += kDepth) {
      for (Index k = 0; k < kLaneBlock; k += kLanes<S>) {
        store(to + m / kDepth * kLaneBlock + k,
              Format::across_k(args.h + m * args.H + lane + k, args.H, args.M - m, args.H - lane - k));
      }
    }
  }

  // dW = h^T dlogits. With all logits at hand an item is a group of kPanels panels of them, which meets all of h; else,
  // to hold less, such a group and a group of kLaneBlocks blocks of h, which a thread packs when its item before was of
  // another one.
  Index panel_groups(Index first) const { return ceil_div(panels(first), kPanels); }
  Index dW_items(Index first) const {
    return panel_groups(first) * (one_block(args) ? 1 : max_of(ceil_div(args.H, kGroupLanes), 1));
  }
  void multiply_dW(Team& team, Index first) const {
    S* const results = dW_results + team.member() * kResultsSize;
    Word* const own_h = h_blocks + team.member() * kLaneBlocks * h_block_size(args);
    Index packed_lane = -1;
    for (Index item; (item = team.take()) >= 0;) {
      const Index group = item % panel_groups(first);
      const Range columns{first + group * kPanels * kPanel,
                          min_of(first + (group + 1) * kPanels * kPanel, block_end(first))};
      if (one_block(args)) {
        for (Index lane = 0; lane < args.H; lane += kGroupLanes) {
          multiply_dW_blocks(h_blocks + lane / kLaneBlock * h_block_size(args), lane, first, columns, results);
        }
      } else {
        const Index lane = item / panel_groups(first) * kGroupLanes;
        for (Index i = 0; lane != packed_lane && i < kLaneBlocks && lane + i * kLaneBlock < args.H; ++i) {
          pack_h(lane + i * kLaneBlock, own_h + i * h_block_size(args));
        }
        packed_lane = lane;
        multiply_dW_blocks(own_h, lane, first, columns, results);
      }
    }
  }

  // Rows of dW from `lane` on, those of kLaneBlocks blocks, whose columns of h begin at `h`; and some panels' columns.
  void multiply_dW_blocks(const Word* h, Index lane, Index first, Range columns, S* results) const {
    const Index lanes = min_of(kGroupLanes, args.H - lane);
    for (Index column = columns.begin; column < columns.end; column += kPanel) {
      sum_dW_panel(h, lanes, column_words(first, column), results + (column - columns.begin) * kGroupLanes);
    }
    if (args.dW_transposed) {
      store_transposed_dW(results, lane, lanes, columns);
    } else {
      store_dW(results, lane, lanes, columns);
    }
  }

  // A chunk of the panel stays in the first cache level while it meets all the blocks.
  void sum_dW_panel(const Word* h, Index lanes, const Word* dlogits, S* sums_of_blocks) const {
    clear(sums_of_blocks, lanes * kPanel);
    const Index depth = words<Format>(args.M), chunks = ceil_div(depth, kChunk);
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const Range rows = piece(depth, chunk, chunks);
      for (Index i = 0; i < lanes; i += kLaneBlock) {
        const Word* const left = h + i / kLaneBlock * h_block_size(args) + rows.begin * kLaneBlock;
        add_dW_block(left, min_of(kLaneBlock, lanes - i), dlogits + rows.begin * kPanel, rows.end - rows.begin,
                     sums_of_blocks + i * kPanel);
      }
    }
  }

  static void add_dW_block(const Word* h, Index lanes, const Word* dlogits, Index count, S* block) {
    for (Index part = 0; part < kPanel; part += kTileColumns<S>) {
      for (Index done = 0; done < lanes;) {
        const Index tile = next_tile(lanes, done, rows_of_tile(kTileVectors));
        Tiles<Word>::transposed.of[kTileVectors][tile](h + done, kLaneBlock, dlogits + part, kPanel, count,
                                                       block + done * kPanel + part, kPanel);
        done += tile;
      }
    }
  }

  // Every element of dW and db comes here once.
  static void put(bool add, S* place, const Vec<S>& value, Index count) {
    store_partial(place, add ? load_partial(place, count) + value : value, count);
  }

  // Rows [lane, lane + lanes) of dW, which lie in panels [lanes][kPanel].
  void store_dW(const S* results, Index lane, Index lanes, Range columns) const {
    for (Index k = 0; k < lanes; ++k) {
      for (Index column = columns.begin; column < columns.end; column += kLanes<S>) {
        const Index panel = (column - columns.begin) / kPanel, v = (column - columns.begin) % kPanel;
        put(args.add_to_dW, args.dW + (lane + k) * args.V + column,
            load(results + (panel * kGroupLanes + k) * kPanel + v), columns.end - column);
      }
    }
  }

  void store_transposed_dW(const S* results, Index lane, Index lanes, Range columns) const {
    alignas(64) S rows[kPanel * kGroupLanes];
    for (Index column = columns.begin; column < columns.end; column += kPanel) {
      const Index width = min_of(kPanel, columns.end - column);
      const S* const panel = results + (column - columns.begin) * kGroupLanes;
      for (Index k = 0; k < lanes; k += kLanes<S>) {
        transpose_into(panel + k * kPanel, kPanel, lanes - k, width, rows + k, kGroupLanes);
      }
      for (Index v = 0; v < width; ++v) {
        for (Index k = 0; k < lanes; k += kLanes<S>) {
          put(args.add_to_dW, args.dW + (column + v) * args.H + lane + k, load(rows + v * kGroupLanes + k), lanes - k);
        }
      }
    }
  }

  // dh += dlogits W^T. A piece of W^T, packed, stays in the second cache level while all rows of dlogits pass by it, a
  // block of rows after the other: each number of dlogits is fetched once a thread.
  void multiply_dh(const Team& team, Index first) const {
    Word* const Wt = own_packed(team);
    const Range vectors = piece(ceil_div(args.H, kLanes<S>), team.member(), team.size());
    const Range units{vectors.begin * kLanes<S>, vectors.end * kLanes<S>};
    const Index block = block_end(first) - first;
    if (units.begin == units.end) return;
    const Index most = packed_size * kDepth / (units.end - units.begin) / kPanel * kPanel;
    for (Index column = 0; column < block && !team.stopped(); column += most) {
      const Index count_columns = min_of(most, block - column), depth = words<Format>(count_columns);
      for_each_panel<S>(units.begin, units.end, [&](Index unit, Index width) {
        pack_panel<Format>(!args.transposed, args.W, args.H, args.V, unit, first + column, count_columns, width,
                           Wt + (unit - units.begin) * depth);
      });
      constexpr Index kWidth = kPanel / kDepth;
      const Operand<Word> dlogits{
          row_words(first, first + column), kWidth, padded_rows(args) * kPanel, kWidth, 1, depth};
      for (Index row = 0; row < args.M; row += kRowBlock) {
        const Index count = min_of(kRowBlock, args.M - row), following = min_of(kRowBlock, args.M - row - count);
        Index panel = 0;
        const Index panels = ceil_div(vectors.end - vectors.begin, kTileVectors);
        for_each_panel<S>(units.begin, units.end, [&](Index unit, Index width) {
          const Range prefetched = piece(ceil_div(depth, kWidth), panel++, panels);
          for (Index j = prefetched.begin; j < prefetched.end; ++j) {
            prefetch(dlogits.data + j * dlogits.block_stride + (row + count) * kWidth, following * kWidth);
          }
          add_to_dh(dlogits.rows_from(row), Wt + (unit - units.begin) * depth, {row, row + count}, unit, width,
                    first + column == 0);
        });
      }
    }
  }

  void add_to_dh(const Operand<Word>& dlogits, const Word* Wt, Range rows, Index unit, Index width, bool begin) const {
    alignas(64) S sums[kMostRows * kTileColumns<S>];
    const bool whole = unit + width <= args.H;
    const Index vectors = width / kLanes<S>, most = rows_of_tile(vectors);
    for (Index m = rows.begin; m < rows.end;) {
      const Index count = next_tile(rows.end, m, most);
      const Term<Word> term{dlogits.rows_from(m - rows.begin), Wt, Wt};
      S* const place = args.dh + m * args.H + unit;
      if (whole) {
        Tiles<Word>::product.of[vectors][count](&term, 1, begin ? nullptr : place, args.H, place, args.H);
      } else {
        for (Index k = 0; k < count; ++k) {
          for (Index v = 0; v < width; v += kLanes<S>) {
            store(sums + k * width + v, begin ? Vec<S>{} : load_partial(place + k * args.H + v, args.H - unit - v));
          }
        }
        Tiles<Word>::product.of[vectors][count](&term, 1, sums, width, sums, width);
        for (Index k = 0; k < count; ++k) {
          for (Index v = 0; v < width; v += kLanes<S>) {
            store_partial(place + k * args.H + v, load(sums + k * width + v), args.H - unit - v);
          }
        }
      }
      m += count;
    }
  }
};

template <class Format>
void linear_cross_entropy(const LinearLoss<Sum<typename Format::Word>>& args) {
  LinearLossPass<Format> pass(args);
  const double work = static_cast<double>(args.M) * static_cast<double>(args.H) * static_cast<double>(args.V);
  run_team(
      work < kSmallProduct ? 1 : args.threads,
      [](void* p, Team& team) { static_cast<LinearLossPass<Format>*>(p)->run(team); }, &pass);
}

}  // namespace

template <class Format>
inline constexpr LinearLossKernels<Sum<typename Format::Word>> kLinearLoss{LinearLossPass<Format>::workspace,
                                                                           linear_cross_entropy<Format>};
#if !FASTLSTM_ONLY_BF16
extern const LossKernels<float, std::int32_t> losses_float32_int32 = table<float, std::int32_t>();
extern const LossKernels<float, std::int64_t> losses_float32_int64 = table<float, std::int64_t>();
extern const LossKernels<double, std::int32_t> losses_float64_int32 = table<double, std::int32_t>();
extern const LossKernels<double, std::int64_t> losses_float64_int64 = table<double, std::int64_t>();
extern const LinearLossKernels<float> linear_loss_float32 = kLinearLoss<Exact<float>>;
extern const LinearLossKernels<double> linear_loss_float64 = kLinearLoss<Exact<double>>;
#endif
extern const LinearLossKernels<float> linear_loss_bf16 = kLinearLoss<Bf16>;

}  // namespace fastlstm::FASTLSTM_ISA
