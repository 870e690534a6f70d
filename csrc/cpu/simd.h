// A thin vector type: the compilers' own vector extension, so that one source serves every instruction set.
//
// This header and all kernels live in a namespace named after the instruction set they are compiled for
// (FASTLSTM_ISA), so that no function compiled for a newer processor is ever linked into an older one's path. For the
// same reason they call no inline function of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(FASTLSTM_ISA) || !defined(FASTLSTM_VECTOR_BYTES) || !defined(FASTLSTM_TILE_VECTORS)
#error "compile kernels through CMake, which names the instruction set"
#endif

#define FASTLSTM_INLINE inline __attribute__((always_inline))

namespace fastlstm::FASTLSTM_ISA {

using Index = std::ptrdiff_t;

template <class S>
struct VectorOf;

template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(FASTLSTM_VECTOR_BYTES), aligned(4), may_alias));
  typedef std::uint32_t Integer __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
};

template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(FASTLSTM_VECTOR_BYTES), aligned(8), may_alias));
  typedef std::uint64_t Integer __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
};

template <>
struct VectorOf<std::uint32_t> {
  typedef std::uint32_t Type __attribute__((vector_size(FASTLSTM_VECTOR_BYTES)));
  typedef std::uint32_t Unaligned __attribute__((vector_size(FASTLSTM_VECTOR_BYTES), aligned(4), may_alias));
};

template <class S>
using Vec = typename VectorOf<S>::Type;

template <class S>
inline constexpr int kLanes = FASTLSTM_VECTOR_BYTES / static_cast<int>(sizeof(S));

template <class S>
FASTLSTM_INLINE Vec<S> broadcast(S value) {
  return value - Vec<S>{};  // not Vec<S>{} + value, which turns -0 into +0
}

template <class S>
FASTLSTM_INLINE Vec<S> load(const S* p) {
  return *reinterpret_cast<const typename VectorOf<S>::Unaligned*>(p);
}

template <class S>
FASTLSTM_INLINE void store(S* p, const Vec<S>& v) {
  *reinterpret_cast<typename VectorOf<S>::Unaligned*>(p) = v;
}

// To p, aligned to a vector, past the caches: for more than they hold, which would be fetched for nothing. Other
// threads may read it after stream_fence.
template <class S>
FASTLSTM_INLINE void stream_store(S* p, const Vec<S>& v) {
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__x86_64__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
  store(p, v);
#endif
}
FASTLSTM_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Holds a value in a register. Compilers rather load it again for each use, and then wait for the cache each time.
template <class V>
FASTLSTM_INLINE void keep_in_register(V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

template <class S>
inline constexpr Index kCacheLine = 64 / static_cast<Index>(sizeof(S));

// Asks for a row that is needed soon, by whoever takes rows that lie anywhere kPrefetchDistance before its turn.
inline constexpr Index kPrefetchDistance = 6;
template <class S, bool to_be_changed = false>
FASTLSTM_INLINE void prefetch_row(const S* row, Index count) {
  for (Index k = 0; k < count; k += kCacheLine<S>) __builtin_prefetch(row + k, to_be_changed);
}

#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
// A mask of `count` lanes, fewer than 16.
FASTLSTM_INLINE __mmask16 first_lanes(Index count) {
  return static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1);
}
#endif

// The first count lanes, the others zero; nothing behind p[count - 1] is read.
template <class S>
FASTLSTM_INLINE Vec<S> load_partial(const S* p, Index count) {
  if (count >= kLanes<S>) return load(p);
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  if constexpr (sizeof(S) == 4) return _mm512_maskz_loadu_ps(first_lanes(count), p);
  if constexpr (sizeof(S) == 8) return _mm512_maskz_loadu_pd(static_cast<__mmask8>(first_lanes(count)), p);
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  if constexpr (sizeof(S) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane));
  }
  if constexpr (sizeof(S) == 8) {
    return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3)));
  }
#else
  Vec<S> v{};
  for (Index k = 0; k < count; ++k) v[k] = p[k];
  return v;
#endif
}

template <class S>
FASTLSTM_INLINE void store_partial(S* p, const Vec<S>& v, Index count) {
  if (count >= kLanes<S>) return store(p, v);
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  if constexpr (sizeof(S) == 4) _mm512_mask_storeu_ps(p, first_lanes(count), reinterpret_cast<__m512>(v));
  if constexpr (sizeof(S) == 8) _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first_lanes(count)), v);
#else
  for (Index k = 0; k < count; ++k) p[k] = v[k];
#endif
}

// x, but not below low or above high; NaN stays NaN. One instruction a bound where the processor's minimum and maximum
// return their second operand if either is NaN; compilers may not assume that of a > b ? a : b.
template <class S>
FASTLSTM_INLINE Vec<S> clamp(const Vec<S>& x, S low, S high) {
  const Vec<S> lows = broadcast<S>(low), highs = broadcast<S>(high);
#if defined(__AVX512F__) && FASTLSTM_VECTOR_BYTES == 64
  // The plain intrinsics draw false warnings of uninitialised values from gcc 12.
  constexpr auto kAll = static_cast<std::uint16_t>(-1);
  if constexpr (sizeof(S) == 4) return _mm512_maskz_min_ps(kAll, highs, _mm512_maskz_max_ps(kAll, lows, x));
  if constexpr (sizeof(S) == 8)
    return _mm512_maskz_min_pd(kAll & 0xFF, highs, _mm512_maskz_max_pd(kAll & 0xFF, lows, x));
#elif defined(__AVX2__) && FASTLSTM_VECTOR_BYTES == 32
  if constexpr (sizeof(S) == 4) return _mm256_min_ps(highs, _mm256_max_ps(lows, x));
  if constexpr (sizeof(S) == 8) return _mm256_min_pd(highs, _mm256_max_pd(lows, x));
#elif defined(__x86_64__)
  if constexpr (sizeof(S) == 4) return _mm_min_ps(highs, _mm_max_ps(lows, x));
  if constexpr (sizeof(S) == 8) return _mm_min_pd(highs, _mm_max_pd(lows, x));
#else
  const Vec<S> above = x < lows ? lows : x;
  return above > highs ? highs : above;
#endif
}

template <int... lane>
struct Lanes {};
template <int count, int... lane>
struct AllLanesOf : AllLanesOf<count - 1, count - 1, lane...> {};
template <int... lane>
struct AllLanesOf<0, lane...> {
  using Type = Lanes<lane...>;
};
template <int count>
using AllLanes = typename AllLanesOf<count>::Type;

template <class S, int distance, int... lane>
FASTLSTM_INLINE Vec<S> shifted(const Vec<S>& v, Lanes<lane...>) {
  return __builtin_shufflevector(v, v, ((lane + distance) % kLanes<S>)...);
}

// Lanes summed in halves: in one fixed order, and without a way through memory, so that several sums can run side by
// side.
template <class S, int width = kLanes<S> / 2>
FASTLSTM_INLINE S sum_lanes(const Vec<S>& v) {
  if constexpr (width == 0) {
    return v[0];
  } else {
    return sum_lanes<S, width / 2>(v + shifted<S, width>(v, AllLanes<kLanes<S>>{}));
  }
}

// The largest lane; NaN if any lane is NaN.
template <class S>
FASTLSTM_INLINE S max_lane(const Vec<S>& v) {
  S best = v[0];
  for (int k = 1; k < kLanes<S>; ++k) {
    if (v[k] > best || v[k] != v[k]) best = v[k];
  }
  return best;
}

template <class S, int distance, int... lane>
FASTLSTM_INLINE void exchange(Vec<S>& a, Vec<S>& b, Lanes<lane...>) {
  const Vec<S> upper = a;
  a = __builtin_shufflevector(a, b, (lane & distance ? kLanes<S> + lane - distance : lane)...);
  b = __builtin_shufflevector(upper, b, (lane & distance ? kLanes<S> + lane : lane + distance)...);
}

// Rows become columns: for distance 1, 2, 4 ... the off-diagonal squares of that size change places.
template <class S, int distance = 1>
FASTLSTM_INLINE void transpose(Vec<S> (&rows)[kLanes<S>]) {
  if constexpr (distance < kLanes<S>) {
#pragma GCC unroll 16
    for (int k = 0; k < kLanes<S>; ++k) {
      if ((k & distance) == 0) exchange<S, distance>(rows[k], rows[k + distance], AllLanes<kLanes<S>>{});
    }
    transpose<S, distance * 2>(rows);
  }
}

// The lane-wise maximum; NaN where either is NaN.
template <class S>
FASTLSTM_INLINE Vec<S> maximum(const Vec<S>& a, const Vec<S>& b) {
  const Vec<S> larger = a > b ? a : b;  // b where a is NaN, so only b's NaN comes through
  return a != a ? a : larger;
}

// The transpose of a square of a row-major matrix, of which there are `height` rows and `count` columns, at least one;
// zeros beside them.
template <class S>
FASTLSTM_INLINE void load_transposed(const S* in, Index in_stride, Index height, Index count,
                                     Vec<S> (&rows)[kLanes<S>]) {
  if (height >= kLanes<S> && count >= kLanes<S>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<S>; ++i) rows[i] = load(in + i * in_stride);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<S>; ++i) rows[i] = i < height ? load_partial(in + i * in_stride, count) : Vec<S>{};
  }
  transpose<S>(rows);
}

// The transpose of `count` columns: place(k)[i] is column k of row i for i < kLanes. load_square(k, columns, rows)
// makes `rows` the transpose of the square of `columns` columns, from k on.
template <class S, class Place, class LoadSquare>
FASTLSTM_INLINE void transpose_with(Index count, const Place& place, const LoadSquare& load_square) {
  for (Index k = 0; k < count; k += kLanes<S>) {
    const Index columns = count - k < kLanes<S> ? count - k : kLanes<S>;
    Vec<S> rows[kLanes<S>];
    load_square(k, columns, rows);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<S>; ++i) {
      if (i < columns) store(place(k + i), rows[i]);
    }
  }
}

// The same of `height` rows of a row-major matrix: out[k * out_stride + i] = in[i * in_stride + k], zero from `height`
// on.
template <class S>
FASTLSTM_INLINE void transpose_into(const S* in, Index in_stride, Index height, Index count, S* out, Index out_stride) {
  transpose_with<S>(
      count, [=](Index k) { return out + k * out_stride; },
      [=](Index k, Index columns, Vec<S>(&rows)[kLanes<S>]) {
        load_transposed(in + k, in_stride, height, columns, rows);
      });
}

FASTLSTM_INLINE constexpr Index min_of(Index a, Index b) { return a < b ? a : b; }
FASTLSTM_INLINE constexpr Index max_of(Index a, Index b) { return a > b ? a : b; }
FASTLSTM_INLINE constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// The part-th of parts nearly equal pieces of [0, count).
struct Range {
  Index begin, end;
};
FASTLSTM_INLINE constexpr Range piece(Index count, Index part, Index parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace fastlstm::FASTLSTM_ISA
