// The tiles of one instruction set, in every size.
#include "tile.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

template <class Word, class Packed, int rows, int vectors>
void multiply_tile(const Term<Word, Packed>* terms, int term_count, const Sum<Word>* init, Index init_row,
                   Sum<Word>* out, Index out_row) {
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
    const Packed* b = terms[t].b;
    const Packed* next = terms[t].next;
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
        b += packed_rows<Word, Packed>(count) * kColumns;
      }
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + m * out_row + v * kLanes<Word>, sum[m][v]);
  }
}

template <class Word, class Packed, int panels>
void multiply_panels(const Term<Word, Packed>* terms, int term_count, const Sum<Word>* init, Sum<Word>* out) {
  constexpr Index kColumns = kTileColumns<Sum<Word>>;
  Vec<Sum<Word>> sum[panels][1][kTileVectors];
#pragma GCC unroll 4
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) sum[p][0][v] = load(init + p * kColumns + v * kLanes<Word>);
  }
  for (int t = 0; t < term_count; ++t) {
    const Operand<Word>& a = terms[t].a;
    const Packed* b = terms[t].b;
    const Index panel = packed_rows<Word, Packed>(a.depth) * kColumns;
    const Word* run = nullptr;
    const auto add = [&](Index steps) {
#pragma GCC unroll 4
      for (int p = 0; p < panels; ++p) {
        accumulate<Word, 1, kTileVectors, false>(sum[p], run, 0, 1, b + p * panel, kColumns, steps, nullptr);
      }
      run += steps;
      b += kColumns;
    };
    const Word* block = a.data;
    for (Index left = a.depth; left > 0; left -= a.width, block += a.block_stride) {
      constexpr Index kMet = kWordsMet<Word, Packed>;
      Index count = min_of(left, a.width);
      run = block;
      for (; count >= kMet; count -= kMet) add(kMet);
      if (count > 0) add(count);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) store(out + p * kColumns + v * kLanes<Word>, sum[p][0][v]);
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

template <class Word, class Packed>
const BySize<typename Tiles<Word, Packed>::Product> Tiles<Word, Packed>::product{
    []<int rows, int vectors>() { return multiply_tile<Word, Packed, rows, vectors>; }};
template <class Word, class Packed>
const typename Tiles<Word, Packed>::Row Tiles<Word, Packed>::row[kStreams + 1]{
    nullptr, multiply_panels<Word, Packed, 1>, multiply_panels<Word, Packed, 2>, multiply_panels<Word, Packed, 3>,
    multiply_panels<Word, Packed, 4>};
template <class Word, class Packed>
const BySize<typename Tiles<Word, Packed>::Transposed> Tiles<Word, Packed>::transposed{
    []<int rows, int vectors>() { return multiply_transposed_tile<Word, rows, vectors>; }};

#if !FASTLSTM_ONLY_BF16
template struct Tiles<float>;
template struct Tiles<double>;
#endif
#if FASTLSTM_BF16_PAIRS
template struct Tiles<Bf16Pair>;
#else
template const BySize<Tiles<float, Bf16Pair>::Product> Tiles<float, Bf16Pair>::product;
template const Tiles<float, Bf16Pair>::Row Tiles<float, Bf16Pair>::row[kStreams + 1];
#endif

}  // namespace fastlstm::FASTLSTM_ISA
