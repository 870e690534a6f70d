// Panels of one instruction set.
#include "pack.h"

namespace fastlstm::FASTLSTM_ISA {

// Rows of a matrix that are asked for before they are packed: each is far from the one before, often in another page.
inline constexpr Index kPackedAhead = 16;

template <class Format, class S, class Word>
void pack_panel(const Strided<S>& matrix, Index depth, Index columns, Index width, Word* packed, Index packed_stride) {
  constexpr Index kDepth = Format::kDepth;
  for (Index i = 0; i < width; i += kLanes<Word>) {
    const Index left = columns - i;
    const S* source = matrix.data + i * matrix.column_stride;
    if (matrix.column_stride != 1) {
      transpose_with(
          words<Format>(depth), packed + i, packed_stride, [=](Index l, Index, Vec<Word>(&square)[kLanes<Word>]) {
            const S* const first = source + l * kDepth;
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes<Word>; ++lane) {
              square[lane] =
                  lane < left ? Format::along_k(first + lane * matrix.column_stride, depth - l * kDepth) : Vec<Word>{};
            }
            transpose<Word>(square);
          });
    } else {
      for (Index l = 0; l < depth; l += kDepth) {
        for (Index j = 0; j < kDepth; ++j) __builtin_prefetch(source + (kPackedAhead + j) * matrix.row_stride);
        store(packed + l / kDepth * packed_stride + i, Format::across_k(source, matrix.row_stride, depth - l, left));
        source += kDepth * matrix.row_stride;
      }
    }
  }
}

template void pack_panel<Exact<float>>(const Strided<float>&, Index, Index, Index, float*, Index);
#if !FASTLSTM_ONLY_BF16
template void pack_panel<Exact<double>>(const Strided<double>&, Index, Index, Index, double*, Index);
#endif
template void pack_panel<Bf16>(const Strided<float>&, Index, Index, Index, Bf16::Word*, Index);
#if !FASTLSTM_BF16_PAIRS
template void pack_panel<Bf16Pairs>(const Strided<float>&, Index, Index, Index, Bf16Pair*, Index);
#endif

}  // namespace fastlstm::FASTLSTM_ISA
