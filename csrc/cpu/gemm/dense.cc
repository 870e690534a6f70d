// Matrix products of one instruction set.
#include "../threads.h"
#include "kernels.h"
#include "tile.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// out = begin ? bias : out, + A B over `count` k; A's element (m, k) is a[m * a_row + k * a_step].
template <class S, int rows, int vectors>
void add_product(const S* a, Index a_row, Index a_step, const S* b, Index b_step, Index count, bool begin,
                 const S* bias, S* out, Index out_row) {
  Vec<S> sum[rows][vectors];
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sum[m][v] = begin ? load(bias + v * kLanes<S>) : load(out + m * out_row + v * kLanes<S>);
    }
  }
  accumulate<S, rows, vectors, false>(sum, a, a_row, a_step, b, b_step, count, nullptr);
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + m * out_row + v * kLanes<S>, sum[m][v]);
  }
}

template <class S>
using AddProduct = void (*)(const S*, Index, Index, const S*, Index, Index, bool, const S*, S*, Index);

template <class S, int vectors>
struct AddProducts {
  AddProduct<S> by_rows[kMostRows + 1] = {};
  constexpr AddProducts() { fill<1>(); }
  template <int rows>
  constexpr void fill() {
    if constexpr (rows <= kTileRows<vectors>) {
      by_rows[rows] = add_product<S, rows, vectors>;
      fill<rows + 1>();
    }
  }
};

template <class S, int vectors>
inline constexpr AddProducts<S, vectors> kAddProducts;

// B is taken in panels of kTileColumns columns, each in pieces of kDepth rows that are packed first. The threads share
// the columns, or, where there are few of them, the rows of A.
template <class S>
struct ProductPass {
  static constexpr Index kColumns = kTileColumns<S>;
  static constexpr Index kDepth = 512;
  static constexpr Index kPanelSize = kDepth * kColumns;

  const Product<S>& args;

  static Index workspace(const Product<S>& a) { return a.threads * kPanelSize; }

  void run(const Team& team) const {
    const Index vectors_in_row = ceil_div(args.L, kLanes<S>);
    Range rows{0, args.M}, columns{0, args.L};
    if (vectors_in_row >= 4 * team.size() || args.M < vectors_in_row) {
      const Range own = piece(vectors_in_row, team.member(), team.size());
      columns = {own.begin * kLanes<S>, min_of(own.end * kLanes<S>, args.L)};
    } else {
      rows = piece(args.M, team.member(), team.size());
    }
    if (rows.begin == rows.end) return;
    S* const panel = args.workspace + team.member() * kPanelSize;
    for (Index column = columns.begin; column < columns.end; column += kColumns) {
      const Index width = min_of(kColumns, columns.end - column);
      alignas(64) S bias[kColumns] = {};
      if (args.bias) {
        for (Index l = 0; l < width; ++l) bias[l] = args.bias[column + l];
      }
      with_vectors(static_cast<int>(ceil_div(width, kLanes<S>)),
                   [&]<int vectors>() { multiply_panel<vectors>(rows, column, width, bias, panel); });
    }
  }

  template <int vectors>
  void multiply_panel(Range rows, Index column, Index width, const S* bias, S* panel) const {
    constexpr Index kWidth = vectors * kLanes<S>;
    const bool full = width == kWidth;
    // For so few rows that packing would take longer than the product, B is read where it lies.
    const bool as_it_lies = full && !args.b_transposed && rows.end - rows.begin <= kTileRows<vectors>;
    const Index a_row = args.a_transposed ? 1 : args.K, a_step = args.a_transposed ? args.M : 1;
    for (Index k = 0; k == 0 || k < args.K; k += kDepth) {
      const Index depth = min_of(kDepth, args.K - k);
      if (!as_it_lies) pack(column, k, depth, kWidth, panel);
      const S* const b = as_it_lies ? args.b + k * args.L + column : panel;
      const Index b_step = as_it_lies ? args.L : kWidth;
      for (Index m = rows.begin; m < rows.end;) {
        const Index count = next_tile(rows.end, m, kTileRows<vectors>);
        const AddProduct<S> add = kAddProducts<S, vectors>.by_rows[count];
        const S* const a = args.a + m * a_row + k * a_step;
        S* const out = args.out + m * args.L + column;
        if (full) {
          add(a, a_row, a_step, b, b_step, depth, k == 0, bias, out, args.L);
        } else {
          alignas(64) S tile[kMostRows * kWidth];
          if (k > 0) copy(out, args.L, tile, kWidth, count, width);
          add(a, a_row, a_step, b, b_step, depth, k == 0, bias, tile, kWidth);
          copy(tile, kWidth, out, args.L, count, width);
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

  // Rows [k, k + depth) and columns [column, column + width) of B, zeros beyond its columns.
  void pack(Index column, Index k, Index depth, Index width, S* panel) const {
    for (Index i = 0; i < width; i += kLanes<S>) {
      const Index left = args.L - column - i;
      if (args.b_transposed) {
        transpose_into(args.b + (column + i) * args.K + k, args.K, left, depth, panel + i, width);
      } else {
        for (Index l = 0; l < depth; ++l) {
          store(panel + l * width + i, load_partial(args.b + (k + l) * args.L + column + i, left));
        }
      }
    }
  }
};

template <class S>
void product(const Product<S>& args) {
  const ProductPass<S> pass{args};
  constexpr double kSmallWork = 4e5;
  const double work = static_cast<double>(args.M) * static_cast<double>(args.K) * static_cast<double>(args.L);
  run_team(
      work < kSmallWork ? 1 : args.threads,
      [](void* p, Team& team) { static_cast<const ProductPass<S>*>(p)->run(team); },
      const_cast<ProductPass<S>*>(&pass));
}

}  // namespace

extern const ProductKernels<float> product_float32{ProductPass<float>::workspace, product<float>};
extern const ProductKernels<double> product_float64{ProductPass<double>::workspace, product<double>};

}  // namespace fastlstm::FASTLSTM_ISA
