// Operands of the tiles, packed in a format of ../bf16.h.
#pragma once

#include "../bf16.h"

namespace fastlstm::FASTLSTM_ISA {

// Where element (k, column) of a matrix lies: data[k * row_stride + column * column_stride], one of which is 1.
template <class S>
struct Strided {
  const S* data;
  Index row_stride, column_stride;
};

// Where packed rows lie: one behind the other, or in runs of 2^log2_run of them that begin `run_stride` words apart.
struct PackedRows {
  Index stride;  // words from a row to the next
  Index run_stride = 0;
  int log2_run = 62;

  FASTLSTM_INLINE Index place(Index row) const {
    return (row >> log2_run) * run_stride + (row & ((Index{1} << log2_run) - 1)) * stride;
  }
};

// The first `depth` rows and `width` columns of a matrix, of which there are `columns`, as words(depth) rows of words;
// zeros beyond its columns. pack.cc compiles it, once for all.
template <class Format, class S, class Word>
void pack_panel(const Strided<S>& matrix, Index depth, Index columns, Index width, Word* packed,
                const PackedRows& rows);

// The rows [k, k + depth) and columns [column, column + width) of a matrix (rows, columns) as a panel
// [words(depth)][width]. It lies in memory as it is (row stride `columns`) or, transposed, column by column.
template <class Format, class S, class Word>
void pack_panel(bool transposed, const S* matrix, Index columns, Index rows, Index column, Index k, Index depth,
                Index width, Word* panel) {
  const Strided<S> corner = transposed ? Strided<S>{matrix + column * rows + k, 1, rows}
                                       : Strided<S>{matrix + k * columns + column, columns, 1};
  pack_panel<Format>(corner, depth, columns - column, width, panel, PackedRows{width});
}

// Rows of `depth` numbers along k as rows of words(depth) words.
template <class Format, class S, class Word>
void pack_rows(const S* matrix, Index depth, Range rows, Word* packed) {
  const Index width = words<Format>(depth);
  for (Index m = rows.begin; m < rows.end; ++m) {
    for (Index l = 0; l < width; l += kLanes<Word>) {
      const Index done = l * Format::kDepth;
      store_partial(packed + m * width + l, Format::along_k(matrix + m * depth + done, depth - done), width - l);
    }
  }
}

// Some columns of a matrix of `depth` rows along k, `stride` apart, as words(depth) rows of words, `packed_stride`
// apart.
template <class Format, class S, class Word>
void pack_columns(const S* matrix, Index stride, Index depth, Index columns, Word* packed, Index packed_stride) {
  for (Index l = 0; l < depth; l += Format::kDepth) {
    for (Index m = 0; m < columns; m += kLanes<Word>) {
      store_partial(packed + l / Format::kDepth * packed_stride + m,
                    Format::across_k(matrix + l * stride + m, stride, depth - l, columns - m), columns - m);
    }
  }
}

}  // namespace fastlstm::FASTLSTM_ISA
