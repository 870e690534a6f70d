// A thin vector type: the compilers' own vector extension, so that one source serves every instruction set.
//
// This header and all kernels live in a namespace named after the instruction set they are compiled for
// (FASTLSTM_ISA), so that no function compiled for a newer processor is ever linked into an older one's path. For the
// same reason they call no inline function of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>

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

// The first count lanes, the others zero; nothing behind p[count - 1] is read.
template <class S>
FASTLSTM_INLINE Vec<S> load_partial(const S* p, Index count) {
  if (count >= kLanes<S>) return load(p);
  Vec<S> v{};
  for (Index k = 0; k < count; ++k) v[k] = p[k];
  return v;
}

template <class S>
FASTLSTM_INLINE void store_partial(S* p, const Vec<S>& v, Index count) {
  if (count >= kLanes<S>) {
    store(p, v);
  } else {
    for (Index k = 0; k < count; ++k) p[k] = v[k];
  }
}

// Lanes summed in one fixed order.
template <class S>
FASTLSTM_INLINE S sum_lanes(const Vec<S>& v) {
  S parts[kLanes<S>];
  for (int k = 0; k < kLanes<S>; ++k) parts[k] = v[k];
  for (int width = kLanes<S> / 2; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) parts[k] += parts[k + width];
  }
  return parts[0];
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

// The lane-wise maximum; NaN where either is NaN.
template <class S>
FASTLSTM_INLINE Vec<S> maximum(const Vec<S>& a, const Vec<S>& b) {
  const Vec<S> larger = a > b ? a : b;  // b where a is NaN, so only b's NaN comes through
  return a != a ? a : larger;
}

template <class S>
FASTLSTM_INLINE void prefetch_for_writing(S* p, Index count) {
  for (Index k = 0; k < count; k += 64 / static_cast<Index>(sizeof(S))) __builtin_prefetch(p + k, 1);
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
