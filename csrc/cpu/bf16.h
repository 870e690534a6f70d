// Factors of products: numbers as they are, or rounded to bfloat16, the upper half of a float32.
//
// A format says how numbers become what a tile multiplies ("words"), and how many steps along k a word holds:
//   Exact<S>    the numbers themselves
//   Bf16Floats  float32 that are bfloat16: the tiles of float32 multiply them
//   Bf16Pairs   two neighbours along k in 32 bits, the first in the lower half, for vdpbf16ps
//   Bf16Kept    as Bf16Floats, the same bits, but for weights that are packed once and kept: those lie as Bf16Pairs
// Bf16 is the one of this instruction set. Floats and pairs sum in float32, in another order.
#pragma once

#include "simd.h"

// Pairs only where there is the instruction: put together from two multiply-adds, they take twice as long as floats
// with AVX2. But for the baseline of x86-64, which loses a fifth: so every such machine tests them.
#if defined(__AVX512BF16__) && FASTLSTM_VECTOR_BYTES == 64
#define FASTLSTM_BF16_PAIRS 1
#define FASTLSTM_BF16_IN_HARDWARE 1
#elif defined(__x86_64__) && !defined(__AVX2__)
#define FASTLSTM_BF16_PAIRS 1
#define FASTLSTM_BF16_IN_HARDWARE 0
#else
#define FASTLSTM_BF16_PAIRS 0
#define FASTLSTM_BF16_IN_HARDWARE 0
#endif

namespace fastlstm::FASTLSTM_ISA {

using Bf16Pair = std::uint32_t;

// What products of words are summed in.
template <class Word>
struct SumOf {
  using Type = Word;
  static constexpr bool kOfPairs = false;
};
template <>
struct SumOf<Bf16Pair> {
  using Type = float;
  static constexpr bool kOfPairs = true;
};
template <class Word>
using Sum = typename SumOf<Word>::Type;

inline constexpr std::uint32_t kUpperHalf = 0xFFFF0000;

// sum + a b. A product of two bfloat16 is exact in float32. The instruction adds the upper halves' product first, and
// takes denormal numbers for zero, as all arithmetic does inside regions (threads.cc).
template <class Word>
FASTLSTM_INLINE Vec<Sum<Word>> multiply_add(const Vec<Word>& a, const Vec<Word>& b, const Vec<Sum<Word>>& sum) {
  if constexpr (SumOf<Word>::kOfPairs) {
#if FASTLSTM_BF16_IN_HARDWARE
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#else
    const Vec<float> upper =
        sum + reinterpret_cast<Vec<float>>(a & kUpperHalf) * reinterpret_cast<Vec<float>>(b & kUpperHalf);
    return upper + reinterpret_cast<Vec<float>>(a << 16) * reinterpret_cast<Vec<float>>(b << 16);
#endif
  } else {
    return sum + a * b;
  }
}

// To nearest, ties to even, in the upper half of each lane; the lower half is undefined. NaN stays NaN.
FASTLSTM_INLINE Vec<std::uint32_t> rounded(const Vec<float>& x) {
  const auto bits = reinterpret_cast<Vec<std::uint32_t>>(x);
  constexpr std::uint32_t kQuiet = 0x00400000;  // else a NaN could lose all the bits that make it one
  return x != x ? bits | kQuiet : bits + 0x7FFF + (bits >> 16 & 1);
}

// The same as a float32.
FASTLSTM_INLINE Vec<float> rounded_number(const Vec<float>& x) {
  return reinterpret_cast<Vec<float>>(rounded(x) & kUpperHalf);
}

// What every format has: kLanes words from `count` numbers that lie along k, zeros beyond them; and, across k, a word
// of each of the first `columns` columns from rows that are `stride` apart, `depth` of which are left. join makes words
// of kDepth vectors across k, factor what a number is as a factor where there are no words.
template <class S>
struct Exact {
  using Word = S;
  static constexpr Index kDepth = 1;
  static constexpr bool kIsExact = true;

  static FASTLSTM_INLINE Vec<S> along_k(const S* p, Index count) { return load_partial(p, count); }
  static FASTLSTM_INLINE Vec<S> across_k(const S* p, Index, Index, Index columns) { return load_partial(p, columns); }
  static FASTLSTM_INLINE Vec<S> join(const Vec<S>& first, const Vec<S>&) { return first; }
  static FASTLSTM_INLINE Vec<S> factor(const Vec<S>& x) { return x; }
};

struct Bf16Floats {
  using Word = float;
  static constexpr Index kDepth = 1;
  static constexpr bool kIsExact = false;

  static FASTLSTM_INLINE Vec<float> along_k(const float* p, Index count) { return factor(load_partial(p, count)); }
  static FASTLSTM_INLINE Vec<float> across_k(const float* p, Index, Index, Index columns) {
    return along_k(p, columns);
  }
  static FASTLSTM_INLINE Vec<float> join(const Vec<float>& first, const Vec<float>&) { return factor(first); }
  static FASTLSTM_INLINE void put(const Vec<float>& x, float* out) { store(out, factor(x)); }
  static FASTLSTM_INLINE Vec<float> factor(const Vec<float>& x) { return rounded_number(x); }
};

struct Bf16Pairs {
  using Word = Bf16Pair;
  static constexpr Index kDepth = 2;
  static constexpr bool kIsExact = false;

  static FASTLSTM_INLINE Vec<Word> along_k(const float* p, Index count) {
    return neighbours(load_partial(p, count), load_partial(p + kLanes<float>, count - kLanes<float>));
  }
  static FASTLSTM_INLINE Vec<Word> across_k(const float* p, Index stride, Index depth, Index columns) {
    return join(load_partial(p, columns), depth > 1 ? load_partial(p + stride, columns) : Vec<float>{});
  }
#if FASTLSTM_BF16_IN_HARDWARE
  // The instructions take denormal numbers for zero, as the products of what they make do.
  static FASTLSTM_INLINE Vec<Word> join(const Vec<float>& first, const Vec<float>& second) {
    return alternate_halves(neighbours(first, second), AllLanes<kLanes<Word>>{});
  }
  static FASTLSTM_INLINE Vec<Word> neighbours(const Vec<float>& a, const Vec<float>& b) {
    return reinterpret_cast<Vec<Word>>(_mm512_cvtne2ps_pbh(b, a));
  }
  // The words of one vector.
  static FASTLSTM_INLINE void put(const Vec<float>& x, Word* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
#else
  static FASTLSTM_INLINE Vec<Word> join(const Vec<float>& first, const Vec<float>& second) {
    return rounded(first) >> 16 | (rounded(second) & kUpperHalf);
  }
  static FASTLSTM_INLINE Vec<Word> neighbours(const Vec<float>& a, const Vec<float>& b) {
    return neighbours(a, b, AllLanes<kLanes<float>>{});
  }
  static FASTLSTM_INLINE void put(const Vec<float>& x, Word* out) {
    store_partial(out, neighbours(x, Vec<float>{}), kLanes<Word> / kDepth);
  }
#endif
  static FASTLSTM_INLINE Vec<float> factor(const Vec<float>& x) { return rounded_number(x); }

  // Pairs along two rows as pairs along their columns, of which there are twice as many.
  static FASTLSTM_INLINE void turn(const Vec<Word>& first, const Vec<Word>& second, Word* out) {
    const Vec<Word> even = (first & ~kUpperHalf) | second << 16, odd = first >> 16 | (second & kUpperHalf);
    alternate(even, odd, out, AllLanes<kLanes<Word>>{});
  }

 private:
  template <int... lane>
  static FASTLSTM_INLINE Vec<Word> neighbours(const Vec<float>& a, const Vec<float>& b, Lanes<lane...>) {
    return join(__builtin_shufflevector(a, b, (2 * lane)...), __builtin_shufflevector(a, b, (2 * lane + 1)...));
  }
#if FASTLSTM_BF16_IN_HARDWARE
  // The numbers of the lower half of the words in turn with those of the upper half.
  template <int... lane>
  static FASTLSTM_INLINE Vec<Word> alternate_halves(const Vec<Word>& words, Lanes<lane...>) {
    typedef std::uint32_t Pairs __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
    constexpr Pairs kOrder = {(lane | (kLanes<Word> + lane) << 16)...};
    return reinterpret_cast<Vec<Word>>(
        _mm512_permutexvar_epi16(reinterpret_cast<__m512i>(kOrder), reinterpret_cast<__m512i>(words)));
  }
#endif
  template <int... lane>
  static FASTLSTM_INLINE void alternate(const Vec<Word>& even, const Vec<Word>& odd, Word* out, Lanes<lane...>) {
    constexpr int kHalf = kLanes<Word> / 2;
    store(out, __builtin_shufflevector(even, odd, (lane / 2 + lane % 2 * kLanes<Word>)...));
    store(out + kLanes<Word>, __builtin_shufflevector(even, odd, (kHalf + lane / 2 + lane % 2 * kLanes<Word>)...));
  }
};

// Half the memory, which is what a product of few rows waits for: a shift makes a float of what is read.
struct Bf16Kept : Bf16Floats {};

#if FASTLSTM_BF16_PAIRS
using Bf16 = Bf16Pairs;
using KeptBf16 = Bf16Pairs;
#else
using Bf16 = Bf16Floats;
using KeptBf16 = Bf16Kept;
#endif

// How weights lie once they are packed.
template <class Format>
struct PackedOf {
  using Type = Format;
};
template <>
struct PackedOf<Bf16Kept> {
  using Type = Bf16Pairs;
};
template <class Format>
using Packing = typename PackedOf<Format>::Type;

// Words that hold `depth` steps along k.
template <class Format>
FASTLSTM_INLINE constexpr Index words(Index depth) {
  return ceil_div(depth, Format::kDepth);
}

// The words of a vector of numbers along k, of which `count` are left.
template <class Format, class S>
FASTLSTM_INLINE void put_along_k(const S* p, Index count, typename Format::Word* out) {
  Format::put(load_partial(p, count), out);
}

}  // namespace fastlstm::FASTLSTM_ISA
