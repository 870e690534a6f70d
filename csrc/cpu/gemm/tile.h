// The product kernels: a tile of C = init + A B, held in registers. A Word of A and B is a number, or a Bf16Pair
// of two steps along k: all that counts k counts pairs then. Sums are Sum<Word>.
//
// A tile is up to kTileRows<nv> rows by nv vectors. For each k it loads nv vectors of B and multiplies them by one
// element of A a row, so B must lie row after row ("packed"), while A may lie in blocks, as everything here does that
// is once an A and once a B. Every element is summed over k in one order, whatever the tile, so that neither the
// number of threads nor the tiling changes a bit.
#pragma once

#include "../bf16.h"

namespace fastlstm::FASTLSTM_ISA {

// Vectors in the widest tile: with its 6 rows, accumulators, a row of B and one element of A fill the registers
// (4 vectors where there are 32 registers, else 2).
inline constexpr int kTileVectors = FASTLSTM_TILE_VECTORS;
template <class S>
inline constexpr int kTileColumns = kTileVectors * kLanes<S>;

inline constexpr int kRegisters = kTileVectors == 4 ? 32 : 16;
inline constexpr int kMostRows = 12;
template <int vectors>
inline constexpr int kTileRows = static_cast<int>(min_of(kMostRows, (kRegisters - 1 - vectors) / vectors));

// Where A's rows lie. Its columns k come in blocks of `width` units with `gates` runs each: element (m, k) with
// k = (block, gate, unit) is data[m * row_stride + block * block_stride + gate * width + unit], and unit stops at
// `depth` in all, so that the padding of the last block is skipped.
template <class Word>
struct Operand {
  const Word* data;
  Index row_stride;
  Index block_stride;
  Index width;
  int gates;
  Index depth;

  Operand rows_from(Index row) const {
    Operand moved = *this;
    moved.data += row * row_stride;
    return moved;
  }
  // Blocks [first, last), as far as there are units in them.
  Operand blocks(Index first, Index last) const {
    Operand part = *this;
    part.data += first * block_stride;
    part.depth = min_of(last * width, depth) - first * width;
    return part;
  }
};

// A row-major matrix: one block.
template <class Word>
Operand<Word> row_major(const Word* data, Index row_stride, Index depth) {
  return {data, row_stride, 0, max_of(depth, 1), 1, depth};
}

template <class Word>
struct Term {
  Operand<Word> a;
  const Word* b;  // packed, as wide as the tile
  const Word* next =
      nullptr;  // not null if b lies beyond the first cache level: a line of it is prefetched for a row of B
};

// Rows of B that are asked of the second cache level before they are needed.
inline constexpr Index kRowsAhead = 8;

// sum += A B for `count` rows of B. With look_ahead, B is expected in the second cache level, and a line of `next` is
// prefetched there for every row.
template <class Word, int rows, int vectors, bool look_ahead>
FASTLSTM_INLINE void accumulate(Vec<Sum<Word>> (&sum)[rows][vectors], const Word* a, Index a_row, Index a_step,
                                const Word* b, Index b_step, Index count, const Word* next) {
  for (Index k = 0; k < count; ++k) {
    Vec<Word> b_row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      b_row[v] = load(b + v * kLanes<Word>);
      keep_in_register(b_row[v]);
    }
    if constexpr (look_ahead) {
#pragma GCC unroll 4
      for (Index v = 0; v < vectors * kLanes<Word>; v += kCacheLine<Word>)
        __builtin_prefetch(b + kRowsAhead * b_step + v);
      __builtin_prefetch(next + k * kCacheLine<Word>, 0, 2);
    }
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m) {
      const Vec<Word> value = broadcast(a[m * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[m][v] = multiply_add<Word>(value, b_row[v], sum[m][v]);
    }
    a += a_step;
    b += b_step;
  }
}

// out = init + sum over terms of A B. init_row may be 0 (one row for all, such as a bias); init may be null (zeros).
template <class Word, int rows, int vectors>
void multiply_tile(const Term<Word>* terms, int term_count, const Sum<Word>* init, Index init_row, Sum<Word>* out,
                   Index out_row) {
  constexpr Index kColumns = vectors * kLanes<Word>;
  Vec<Sum<Word>> sum[rows][vectors];
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      sum[m][v] = init ? load(init + m * init_row + v * kLanes<Word>) : Vec<Sum<Word>>{};
  }
  for (int t = 0; t < term_count; ++t) {
    const Operand<Word>& a = terms[t].a;
    const Word* b = terms[t].b;
    const Word* next = terms[t].next;
    const Word* block = a.data;
    for (Index left = a.depth; left > 0; left -= a.width, block += a.block_stride) {
      const Index count = min_of(left, a.width);
      for (int gate = 0; gate < a.gates; ++gate) {
        const Word* const run = block + gate * a.width;
        if (rows >= 4 && next) {  // fewer rows need more bytes than can be asked for one by one
          accumulate<Word, rows, vectors, true>(sum, run, a.row_stride, 1, b, kColumns, count, next);
          next += count * kCacheLine<Word>;
        } else {
          accumulate<Word, rows, vectors, false>(sum, run, a.row_stride, 1, b, kColumns, count, nullptr);
        }
        b += count * kColumns;
      }
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + m * out_row + v * kLanes<Word>, sum[m][v]);
  }
}

// out += A^T B over `count` rows r: A^T's rows are neighbours in memory, a[r * a_step + m], B's row r is b[r * b_step].
template <class Word, int rows, int vectors>
void multiply_transposed_tile(const Word* a, Index a_step, const Word* b, Index b_step, Index count, Sum<Word>* out,
                              Index out_row) {
  Vec<Sum<Word>> sum[rows][vectors] = {};
  accumulate<Word, rows, vectors, false>(sum, a, 1, a_step, b, b_step, count, nullptr);
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      Sum<Word>* const p = out + m * out_row + v * kLanes<Word>;
      store(p, load(p) + sum[m][v]);
    }
  }
}

// ---- the same with rows and vectors known only at run time ---------------------------------------------------------

template <class Word>
using Tile = void (*)(const Term<Word>*, int, const Sum<Word>*, Index, Sum<Word>*, Index);
template <class Word>
using TransposedTile = void (*)(const Word*, Index, const Word*, Index, Index, Sum<Word>*, Index);

template <class Word, int vectors>
struct TilesOf {
  Tile<Word> by_rows[kMostRows + 1] = {};
  constexpr TilesOf() { fill<1>(); }
  template <int rows>
  constexpr void fill() {
    if constexpr (rows <= kTileRows<vectors>) {
      by_rows[rows] = multiply_tile<Word, rows, vectors>;
      fill<rows + 1>();
    }
  }
};

template <class Word, int vectors>
struct TransposedTilesOf {
  TransposedTile<Word> by_rows[kMostRows + 1] = {};
  constexpr TransposedTilesOf() { fill<1>(); }
  template <int rows>
  constexpr void fill() {
    if constexpr (rows <= kTileRows<vectors>) {
      by_rows[rows] = multiply_transposed_tile<Word, rows, vectors>;
      fill<rows + 1>();
    }
  }
};

template <class Word, int vectors>
inline constexpr TilesOf<Word, vectors> kTilesOf;
template <class Word, int vectors>
inline constexpr TransposedTilesOf<Word, vectors> kTransposedTilesOf;

// Calls body(vectors as a constant) for vectors in 1 .. kTileVectors.
template <class Body>
FASTLSTM_INLINE void with_vectors(int vectors, const Body& body) {
  switch (vectors) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
#if FASTLSTM_TILE_VECTORS == 4
    case 3:
      return body.template operator()<3>();
    case 4:
      return body.template operator()<4>();
#endif
  }
}

// Nearly equal tiles of at most `most` rows: the size of the tile that begins at `done`.
FASTLSTM_INLINE Index next_tile(Index rows, Index done, Index most) {
  const Index left = rows - done;
  return ceil_div(left, ceil_div(left, most));
}

// Into how many pieces rows are dealt out: some for each thread, of at most `most` rows.
FASTLSTM_INLINE Index row_pieces(Index rows, Index most, Index threads) {
  constexpr Index kFewRows = 16;
  return max_of(ceil_div(rows, most), min_of(2 * threads, ceil_div(rows, kFewRows)));
}

// Into the second cache level.
template <class S>
FASTLSTM_INLINE void prefetch(const S* p, Index count) {
  for (Index k = 0; k < count; k += kCacheLine<S>) __builtin_prefetch(p + k, 0, 2);
}

// Calls body(first, width) for the panels of columns [begin, end): as few as there can be, and nearly equal, because a
// panel of one vector takes twice as long for each column.
template <class S, class Body>
FASTLSTM_INLINE void for_each_panel(Index begin, Index end, const Body& body) {
  const Index vectors = ceil_div(end - begin, kLanes<S>);
  for (Index done = 0; done < vectors;) {
    const Index count = next_tile(vectors, done, kTileVectors);
    body(begin + done * kLanes<S>, count * kLanes<S>);
    done += count;
  }
}

// out (rows, vectors * kLanes) = A B, or += unless begin. Meanwhile the panel `next`, as large as b, is prefetched.
template <class Word, int vectors>
void multiply_rows(const Operand<Word>& a, const Word* b, const Word* next, Index rows, bool begin, Sum<Word>* out) {
  constexpr Index kColumns = vectors * kLanes<Word>;
  const Index size = a.depth * a.gates * kColumns;
  Index prefetched = 0;
  for (Index m = 0; m < rows;) {
    const Index count = next_tile(rows, m, kTileRows<vectors>);
    const Term<Word> term{a.rows_from(m), b, prefetched < size ? next + prefetched : b};
    prefetched += a.depth * a.gates * kCacheLine<Word>;
    Sum<Word>* const tile = out + m * kColumns;
    kTilesOf<Word, vectors>.by_rows[count](&term, 1, begin ? nullptr : tile, kColumns, tile, kColumns);
    m += count;
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
