// Panels of one instruction set.
#include "pack.h"

namespace fastlstm::FASTLSTM_ISA {

// Rows of a matrix that are asked for before they are packed: each is far from the one before, often in another page.
inline constexpr Index kPackedAhead = 16;

template <class Format, class S, class Word>
void pack_panel(const Strided<S>& matrix, Index depth, Index columns, Index width, Word* packed,
                const PackedRows& rows) {
  constexpr Index kDepth = Format::kDepth;
  if (matrix.column_stride != 1) {
    for (Index i = 0; i < width; i += kLanes<Word>) {
      const S* const source = matrix.data + i * matrix.column_stride;
      const Index left = columns - i;
      transpose_with<Word>(
          words<Format>(depth), [=](Index l) { return packed + rows.place(l) + i; },
          [=](Index l, Index, Vec<Word>(&square)[kLanes<Word>]) {
            const S* const first = source + l * kDepth;
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes<Word>; ++lane) {
              square[lane] =
                  lane < left ? Format::along_k(first + lane * matrix.column_stride, depth - l * kDepth) : Vec<Word>{};
            }
            transpose<Word>(square);
          });
    }
    return;
  }
  for (Index l = 0; l < depth; l += kDepth) {
    const S* const source = matrix.data + l * matrix.row_stride;
    for (Index j = kPackedAhead; j < kPackedAhead + kDepth; ++j) {
      const S* const ahead = source + j * matrix.row_stride;
      for (Index i = 0; i < width; i += kLanes<Word>) __builtin_prefetch(ahead + i);
      __builtin_prefetch(ahead + width - 1);
    }
    for (Index i = 0; i < width; i += kLanes<Word>) {
      store(packed + rows.place(l / kDepth) + i,
            Format::across_k(source + i, matrix.row_stride, depth - l, columns - i));
    }
  }
}

template void pack_panel<Exact<float>>(const Strided<float>&, Index, Index, Index, float*, const PackedRows&);
#if !FASTLSTM_ONLY_BF16
template void pack_panel<Exact<double>>(const Strided<double>&, Index, Index, Index, double*, const PackedRows&);
#endif
template void pack_panel<Bf16>(const Strided<float>&, Index, Index, Index, Bf16::Word*, const PackedRows&);
#if !FASTLSTM_BF16_PAIRS
template void pack_panel<Bf16Pairs>(const Strided<float>&, Index, Index, Index, Bf16Pair*, const PackedRows&);
#endif

}  // namespace fastlstm::FASTLSTM_ISA
