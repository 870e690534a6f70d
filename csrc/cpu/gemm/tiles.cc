// The tiles of one instruction set, in every size.
#include "tile.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

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
        // Fewer rows need more bytes than can be asked for one by one; narrow tiles the processor foresees by itself.
        if (kTileVectors == 4 && rows >= 4 && next) {
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

}  // namespace

template <class Word>
const BySize<typename Tiles<Word>::Product> Tiles<Word>::product{
    []<int rows, int vectors>() { return multiply_tile<Word, rows, vectors>; }};
template <class Word>
const BySize<typename Tiles<Word>::Transposed> Tiles<Word>::transposed{
    []<int rows, int vectors>() { return multiply_transposed_tile<Word, rows, vectors>; }};

#if !FASTLSTM_ONLY_BF16
template struct Tiles<float>;
template struct Tiles<double>;
#endif
#if FASTLSTM_BF16_PAIRS
template struct Tiles<Bf16Pair>;
#endif

}  // namespace fastlstm::FASTLSTM_ISA
