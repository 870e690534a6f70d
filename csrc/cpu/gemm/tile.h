// The product kernels: a tile of C = init + A B, held in registers. A Word of A and B is a number, or a Bf16Pair
// of two steps along k: all that counts k counts pairs then. Sums are Sum<Word>. Where numbers meet a B that is Packed
// in pairs, a row of B is two steps.
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
constexpr Index rows_of_tile(Index vectors) { return min_of(kMostRows, (kRegisters - 1 - vectors) / vectors); }

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

template <class Word, class Packed = Word>
struct Term {
  Operand<Word> a;
  const Packed* b;  // packed, as wide as the tile
  const Packed* next =
      nullptr;  // not null if b lies beyond the first cache level: a line of it is prefetched for a row of B
};

// Words of A that a word of B meets, and rows of B that meet `depth` of them.
template <class Word, class Packed>
inline constexpr Index kWordsMet = SumOf<Packed>::kOfPairs && !SumOf<Word>::kOfPairs ? 2 : 1;
template <class Word, class Packed>
FASTLSTM_INLINE constexpr Index packed_rows(Index depth) {
  return ceil_div(depth, kWordsMet<Word, Packed>);
}

// Rows of B that are asked of the second cache level before they are needed.
inline constexpr Index kRowsAhead = 8;

// sum += a b for one k: an element of a for each row, and a row of B in registers.
template <class Word, int rows, int vectors>
FASTLSTM_INLINE void add_step(Vec<Sum<Word>> (&sum)[rows][vectors], const Word* a, Index a_row,
                              const Vec<Word> (&b_row)[vectors]) {
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
    const Vec<Word> value = broadcast(a[m * a_row]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[m][v] = multiply_add<Word>(value, b_row[v], sum[m][v]);
  }
}

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
    add_step<Word>(sum, a, a_row, b_row);
    a += a_step;
    b += b_step;
  }
}

// The same where each row of B is two steps, and `count` counts steps.
template <class Word, int rows, int vectors, bool look_ahead>
FASTLSTM_INLINE void accumulate(Vec<float> (&sum)[rows][vectors], const float* a, Index a_row, Index a_step,
                                const Bf16Pair* b, Index b_step, Index count, const Bf16Pair*) {
  const auto add = [&](const Bf16Pair* b_row, bool upper) {
    Vec<float> factors[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const Vec<Bf16Pair> pairs = load(b_row + v * kLanes<float>);
      factors[v] = reinterpret_cast<Vec<float>>(upper ? pairs & kUpperHalf : pairs << 16);
      keep_in_register(factors[v]);
    }
    add_step<float>(sum, a, a_row, factors);
    a += a_step;
  };
  for (; count > 1; count -= 2, b += b_step) {
    add(b, false);
    add(b, true);
  }
  if (count > 0) add(b, false);
}

// ---- tiles whose rows and vectors are known only at run time -------------------------------------------------------

// A function for every size of a tile, [vectors][rows].
template <class Function>
struct BySize {
  Function of[kTileVectors + 1][kMostRows + 1] = {};

  // get: a template of rows and vectors, known when this is compiled.
  template <class Get>
  explicit constexpr BySize(const Get& get) {
    fill<1, 1>(get);
  }
  template <int vectors, int rows, class Get>
  constexpr void fill(const Get& get) {
    of[vectors][rows] = get.template operator()<rows, vectors>();
    if constexpr (rows < rows_of_tile(vectors)) {
      fill<vectors, rows + 1>(get);
    } else if constexpr (vectors < kTileVectors) {
      fill<vectors + 1, 1>(get);
    }
  }
};

// Panels that one row of A meets at once. Each is a stream of memory and has sums that wait for no other's: that of a
// single panel alone reads half as fast.
inline constexpr int kStreams = 4;

// tiles.cc compiles them, once for all that multiply.
template <class Word, class Packed = Word>
struct Tiles {
  // out = init + sum over terms of A B. init_row may be 0 (one row for all, such as a bias); init may be null (zeros).
  using Product = void (*)(const Term<Word, Packed>* terms, int term_count, const Sum<Word>* init, Index init_row,
                           Sum<Word>* out, Index out_row);
  // The same for one row of A, of one gate, and some panels of full width, one behind the other.
  using Row = void (*)(const Term<Word, Packed>* terms, int term_count, const Sum<Word>* init, Sum<Word>* out);
  // out += A^T B over `count` rows r: A^T's rows are neighbours in memory, a[r * a_step + m], B's row r is b[r *
  // b_step].
  using Transposed = void (*)(const Word* a, Index a_step, const Word* b, Index b_step, Index count, Sum<Word>* out,
                              Index out_row);
  static const BySize<Product> product;
  static const Row row[kStreams + 1];
  static const BySize<Transposed> transposed;
};
extern template struct Tiles<float>;
extern template struct Tiles<double>;
#if FASTLSTM_BF16_PAIRS
extern template struct Tiles<Bf16Pair>;
#else
extern template const BySize<Tiles<float, Bf16Pair>::Product> Tiles<float, Bf16Pair>::product;
extern template const Tiles<float, Bf16Pair>::Row Tiles<float, Bf16Pair>::row[kStreams + 1];
#endif

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

// out = init + sum over terms of A B for the first row of A and the panels of `columns` columns, whole vectors, whose
// packed words lie one behind the other. out may be init.
template <class Word, class Packed>
void multiply_row(const Term<Word, Packed>* terms, int term_count, const Sum<Word>* init, Index columns,
                  Sum<Word>* out) {
  constexpr Index kColumns = kTileColumns<Sum<Word>>;
  Term<Word, Packed> at[2];
  const auto from = [&](Index column) {
    for (int t = 0; t < term_count; ++t) {
      at[t] = {terms[t].a, terms[t].b + column * packed_rows<Word, Packed>(terms[t].a.depth)};
    }
    return at;
  };
  if (columns % kColumns == 0) {
    for (Index done = 0; done < columns;) {
      const Index panels = min_of(kStreams, (columns - done) / kColumns);
      Tiles<Word, Packed>::row[panels](from(done), term_count, init + done, out + done);
      done += panels * kColumns;
    }
  } else {
    for_each_panel<Sum<Word>>(0, columns, [&](Index panel, Index width) {
      Tiles<Word, Packed>::product.of[width / kLanes<Sum<Word>>][1](from(panel), term_count, init + panel, 0,
                                                                    out + panel, width);
    });
  }
}

// out (rows, columns) = A B, or += unless begin, for a panel of whole vectors. Meanwhile the panel `next`, as large as
// b, is prefetched.
template <class Word>
void multiply_rows(const Operand<Word>& a, const Word* b, const Word* next, Index rows, Index columns, bool begin,
                   Sum<Word>* out) {
  const Index vectors = columns / kLanes<Word>, most = rows_of_tile(vectors);
  const Index size = a.depth * a.gates * columns;
  Index prefetched = 0;
  for (Index m = 0; m < rows;) {
    const Index count = next_tile(rows, m, most);
    const Term<Word> term{a.rows_from(m), b, prefetched < size ? next + prefetched : b};
    prefetched += a.depth * a.gates * kCacheLine<Word>;
    Sum<Word>* const tile = out + m * columns;
    Tiles<Word>::product.of[vectors][count](&term, 1, begin ? nullptr : tile, columns, tile, columns);
    m += count;
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
