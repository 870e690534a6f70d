// Matrix products of one instruction set.
#include "../threads.h"
#include "../tuning.h"
#include "kernels.h"
#include "pack.h"
#include "tile.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// out = begin ? bias : out, + A B over `count` k; A's element (m, k) is a[m * a_row + k * a_step].
template <class Word, int rows, int vectors>
void add_product(const Word* a, Index a_row, Index a_step, const Word* b, Index b_step, Index count, bool begin,
                 const Sum<Word>* bias, Sum<Word>* out, Index out_row) {
  Vec<Sum<Word>> sum[rows][vectors];
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sum[m][v] = begin ? load(bias + v * kLanes<Word>) : load(out + m * out_row + v * kLanes<Word>);
    }
  }
  accumulate<Word, rows, vectors, false>(sum, a, a_row, a_step, b, b_step, count, nullptr);
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + m * out_row + v * kLanes<Word>, sum[m][v]);
  }
}

template <class Word>
using AddProduct = void (*)(const Word*, Index, Index, const Word*, Index, Index, bool, const Sum<Word>*, Sum<Word>*,
                            Index);

template <class Word>
inline constexpr BySize<AddProduct<Word>> kAddProducts{
    []<int rows, int vectors>() { return add_product<Word, rows, vectors>; }};

// B is taken in panels of kTileColumns columns, each in pieces of kDepth rows of words that are packed first. The
// threads share the columns, or, where there are few of them, the rows of A. Unless exact, all of A is packed before.
template <class Format>
struct ProductPass {
  using Word = typename Format::Word;
  using S = Sum<Word>;
  static constexpr Index kColumns = kTileColumns<S>;
  static constexpr Index kDepth = 512;
  static constexpr Index kPanelSize = kDepth * kColumns;

  const Product<S>& args;
  Index depth;    // words along k
  Word* panels;   // kPanelSize a thread
  const Word* a;  // (M, depth), or (depth, M) where transposed

  explicit ProductPass(const Product<S>& product) : args(product), depth(words<Format>(args.K)) {
    panels = reinterpret_cast<Word*>(args.workspace);
    a = Format::kIsExact ? reinterpret_cast<const Word*>(args.a) : packed_a();
  }

  static Index workspace(const Product<S>& a) {
    return a.threads * kPanelSize + (Format::kIsExact ? 0 : a.M * words<Format>(a.K));
  }
  Word* packed_a() const { return panels + args.threads * kPanelSize; }

  void run(Team& team) const {
    if constexpr (!Format::kIsExact) {
      pack_a(team);
      team.wait();
    }
    const Index vectors_in_row = ceil_div(args.L, kLanes<S>);
    Range rows{0, args.M}, columns{0, args.L};
    if (vectors_in_row >= 4 * team.size() || args.M < vectors_in_row) {
      const Range own = piece(vectors_in_row, team.member(), team.size());
      columns = {own.begin * kLanes<S>, min_of(own.end * kLanes<S>, args.L)};
    } else {
      rows = piece(args.M, team.member(), team.size());
    }
    if (rows.begin == rows.end) return;
    Word* const panel = panels + team.member() * kPanelSize;
    for (Index column = columns.begin; column < columns.end && !team.stopped(); column += kColumns) {
      const Index width = min_of(kColumns, columns.end - column);
      alignas(64) S bias[kColumns] = {};
      if (args.bias) {
        for (Index l = 0; l < width; ++l) bias[l] = args.bias[column + l];
      }
      multiply_panel(rows, column, width, bias, panel);
    }
  }

  void multiply_panel(Range rows, Index column, Index width, const S* bias, Word* panel) const {
    const Index vectors = ceil_div(width, kLanes<S>), padded = vectors * kLanes<S>;
    const Index most = rows_of_tile(vectors);
    const bool full = width == padded;
    // For so few rows that packing would take longer than the product, B is read where it lies.
    const bool as_it_lies = Format::kIsExact && full && !args.b_transposed && rows.end - rows.begin <= most;
    const Index a_row = args.a_transposed ? 1 : depth, a_step = args.a_transposed ? args.M : 1;
    for (Index k = 0; k == 0 || k < depth; k += kDepth) {
      const Index count_k = min_of(kDepth, depth - k);
      const Word* b = panel;
      if (as_it_lies) {
        b = reinterpret_cast<const Word*>(args.b) + k * args.L + column;
      } else {
        const Index first = k * Format::kDepth;
        pack_panel<Format>(args.b_transposed, args.b, args.L, args.K, column, first,
                           min_of(kDepth * Format::kDepth, args.K - first), padded, panel);
      }
      const Index b_step = as_it_lies ? args.L : padded;
      for (Index m = rows.begin; m < rows.end;) {
        const Index count = next_tile(rows.end, m, most);
        const AddProduct<Word> add = kAddProducts<Word>.of[vectors][count];
        const Word* const a_rows = a + m * a_row + k * a_step;
        S* const out = args.out + m * args.L + column;
        if (full) {
          add(a_rows, a_row, a_step, b, b_step, count_k, k == 0, bias, out, args.L);
        } else {
          alignas(64) S tile[kMostRows * kColumns];
          if (k > 0) copy(out, args.L, tile, padded, count, width);
          add(a_rows, a_row, a_step, b, b_step, count_k, k == 0, bias, tile, padded);
          copy(tile, padded, out, args.L, count, width);
        }
        m += count;
      }
    }
  }

  static void copy(const S* from, Index from_row, S* to, Index to_row, Index rows, Index width) {
    for (Index m = 0; m < rows; ++m) {
      for (Index v = 0; v < width; v += kLanes<S>) {
        store_partial(to + m * to_row + v, load_partial(from + m * from_row + v, width - v), width - v);
      }
    }
  }

  void pack_a(const Team& team) const {
    const Range rows = piece(args.M, team.member(), team.size());
    if (args.a_transposed) {
      pack_columns<Format>(args.a + rows.begin, args.M, args.K, rows.end - rows.begin, packed_a() + rows.begin, args.M);
    } else {
      pack_rows<Format>(args.a, args.K, rows, packed_a());
    }
  }
};

// A product with a B that is packed: in panels of kTileColumns columns, zeros beyond the last, each of all of k. The
// bias, as wide, lies before them. Panels come to threads, or, where there are few of them, rows of A.
template <class Format>
struct PreparedPass {
  using Word = typename Format::Word;
  using Packed = typename Packing<Format>::Word;
  using S = Sum<Word>;
  static constexpr Index kColumns = kTileColumns<S>;
  static constexpr Index kMost = rows_of_tile(kTileVectors);

  const Product<S>& args;
  Index panels, depth, panel_size;
  const Word* a;  // (M, depth)

  explicit PreparedPass(const Product<S>& product)
      : args(product),
        panels(panels_of(args.L)),
        depth(words<Format>(args.K)),
        panel_size(words<Packing<Format>>(args.K) * kColumns),
        a(reinterpret_cast<const Word*>(Format::kIsExact ? args.a : args.workspace)) {}

  static Index panels_of(Index L) { return ceil_div(L, kColumns); }
  static Index prepared_size(Index K, Index L) { return panels_of(L) * kColumns * (1 + words<Packing<Format>>(K)); }
  static Index workspace(const Product<S>& product) {
    return Format::kIsExact ? 0 : product.M * words<Format>(product.K);
  }

  static void prepare(const Product<S>& args, S* prepared) {
    struct Call {
      const Product<S>& args;
      S* prepared;
    } call{args, prepared};
    run_team(
        args.threads,
        [](void* context, Team& team) {
          const Call& call = *static_cast<const Call*>(context);
          pack(call.args, piece(panels_of(call.args.L), team.member(), team.size()), call.prepared);
        },
        &call);
  }
  static void pack(const Product<S>& args, Range own, S* prepared) {
    const Index panels = panels_of(args.L), rows = words<Packing<Format>>(args.K);
    Packed* const packed = reinterpret_cast<Packed*>(prepared + panels * kColumns);
    for (Index p = own.begin; p < own.end; ++p) {
      const Index column = p * kColumns;
      for (Index l = column; l < column + kColumns; ++l) prepared[l] = args.bias && l < args.L ? args.bias[l] : 0;
      pack_panel<Packing<Format>>(args.b_transposed, args.b, args.L, args.K, column, 0, args.K, kColumns,
                                  packed + column * rows);
    }
  }

  void run(Team& team) const {
    if constexpr (!Format::kIsExact) {
      pack_rows<Format>(args.a, args.K, piece(args.M, team.member(), team.size()),
                        reinterpret_cast<Word*>(args.workspace));
      team.wait();
    }
    Range rows{0, args.M}, own{0, panels};
    if (panels >= 4 * team.size() || args.M < panels) {
      own = piece(panels, team.member(), team.size());
    } else {
      rows = piece(args.M, team.member(), team.size());
    }
    const Index together = args.M == 1 ? kStreams : 1;
    for (Index p = own.begin; p < own.end && !team.stopped(); p += together) {
      multiply_panels(rows, p, min_of(together, own.end - p));
    }
  }

  // Some panels of a single row, or one of many.
  void multiply_panels(Range rows, Index first, Index count_panels) const {
    const S* const bias = args.prepared + first * kColumns;
    const Packed* const b = reinterpret_cast<const Packed*>(args.prepared + panels * kColumns) + first * panel_size;
    const Index column = first * kColumns, width = min_of(count_panels * kColumns, args.L - column);
    for (Index m = rows.begin; m < rows.end;) {
      alignas(64) S tile[max_of(kMost, kStreams) * kColumns];
      const Index count = next_tile(rows.end, m, kMost);
      const Term<Word, Packed> term{row_major(a + m * depth, depth, depth), b, b + panel_size};
      S* const out = args.out + m * args.L + column;
      const bool full = width == count_panels * kColumns;
      S* const to = full ? out : tile;
      if (args.M == 1) {
        multiply_row(&term, 1, bias, count_panels * kColumns, to);
      } else {
        Tiles<Word, Packed>::product.of[kTileVectors][count](&term, 1, bias, 0, to, full ? args.L : kColumns);
      }
      for (Index k = 0; k < count && !full; ++k) {
        for (Index l = 0; l < width; l += kLanes<S>) {
          store_partial(out + k * args.L + l, load(tile + k * kColumns + l), width - l);
        }
      }
      m += count;
    }
  }
};

template <class Pass, class Args>
void product(const Args& args) {
  Pass pass(args);
  const double work = static_cast<double>(args.M) * static_cast<double>(args.K) * static_cast<double>(args.L);
  run_team(
      work < kSmallProduct ? 1 : args.threads, [](void* p, Team& team) { static_cast<Pass*>(p)->run(team); }, &pass);
}

template <class Format, class Kept = Format, class S = Sum<typename Format::Word>>
constexpr ProductKernels<S> table() {
  using Pass = ProductPass<Format>;
  using Prepared = PreparedPass<Kept>;
  return {Pass::workspace,   product<Pass, Product<S>>, Prepared::prepared_size,
          Prepared::prepare, Prepared::workspace,       product<Prepared, Product<S>>};
}

}  // namespace

#if !FASTLSTM_ONLY_BF16
extern const ProductKernels<float> product_float32 = table<Exact<float>>();
extern const ProductKernels<double> product_float64 = table<Exact<double>>();
#endif
extern const ProductKernels<float> product_bf16 = table<Bf16, KeptBf16>();

}  // namespace fastlstm::FASTLSTM_ISA
