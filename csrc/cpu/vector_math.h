// exp, sigmoid and tanh on vectors. NaN in, NaN out; no libm, no branches.
//
// All three come from expm1: x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, Cody and Waite 1980), expm1(r) a
// polynomial (Chebyshev interpolation, error below 0.01 ulp in float32 and 0.4 ulp in float64), and
// expm1(x) = 2^n expm1(r) + (2^n - 1), which keeps its relative accuracy near 0.
#pragma once

#include "simd.h"

namespace fastlstm::FASTLSTM_ISA {

template <class S>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kSmallest = -87.0f, kLargest = 88.0f;  // results stay normal numbers
  static constexpr float kSaturated = 10.0f;                    // tanh is 1 to the last bit from here
  static constexpr int kExponentShift = 23, kExponentBias = 127;
  static constexpr float kPolynomial[] = {0.5000000014286223f,   0.16666666682534356f,  0.04166645680967788f,
                                          0.008333310024225292f, 0.001393454192827027f, 0.00019891981313977691f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 1.908214929270587816e-10;
  static constexpr double kSmallest = -708.0, kLargest = 709.0;
  static constexpr double kSaturated = 20.0;
  static constexpr int kExponentShift = 52, kExponentBias = 1023;
  static constexpr double kPolynomial[] = {
      0.5000000000000001128,    0.16666666666666667534,    0.041666666666620638584,    0.0083333333333297934996,
      0.0013888888918939167785, 0.00019841269864380513295, 0.000024801518641395993583, 2.7557266418612303703e-6,
      2.76213386691429238e-7,   2.5101346928350340198e-8};
};

template <class S>
struct Math {
  using V = Vec<S>;
  using C = ExpConstants<S>;

  // 2^n and expm1(r), for x in [kSmallest, kLargest].
  struct Reduced {
    V scale, expm1_r;
  };
  static FASTLSTM_INLINE Reduced reduce(const V& x) {
    using Integer = typename VectorOf<S>::Integer;
    constexpr S kLog2E = static_cast<S>(1.4426950408889634074);
    const V shifted = x * kLog2E + C::kRound;
    const V n = shifted - C::kRound;
    const V r = (x - n * C::kLn2High) - n * C::kLn2Low;
    constexpr int kDegree = sizeof(C::kPolynomial) / sizeof(S) - 1;
    // Even and odd powers apart: two short chains of additions run side by side.
    static_assert(kDegree % 2 == 1);
    const V r2 = r * r;
    V even = broadcast<S>(C::kPolynomial[kDegree - 1]), odd = broadcast<S>(C::kPolynomial[kDegree]);
#pragma GCC unroll 16
    for (int k = kDegree - 3; k >= 0; k -= 2) {
      even = even * r2 + C::kPolynomial[k];
      odd = odd * r2 + C::kPolynomial[k + 1];
    }
    const V p = odd * r + even;
    // The integer n stands in the low bits of shifted; those above fall off the shift.
    const Integer exponent = (reinterpret_cast<Integer>(shifted) + C::kExponentBias) << C::kExponentShift;
    return {reinterpret_cast<V>(exponent), r2 * p + r};
  }

  // Zero, not a denormal number, where the result would be below the smallest normal number.
  static FASTLSTM_INLINE V exp(const V& x) {
    const Reduced e = reduce(clamp<S>(x, C::kSmallest, C::kLargest));
    const V result = e.scale * e.expm1_r + e.scale;
    return x < C::kSmallest ? V{} : result;
  }

  static FASTLSTM_INLINE V sigmoid(const V& x) {
    const Reduced e = reduce(clamp<S>(-x, C::kSmallest, -C::kSmallest));
    return 1 / (e.scale * e.expm1_r + (e.scale + 1));  // 2^n + 1 is nearly always exact
  }

  static FASTLSTM_INLINE V tanh(const V& x) {
    const Reduced e = reduce(clamp<S>(x + x, -2 * C::kSaturated, 2 * C::kSaturated));
    const V m = e.scale * e.expm1_r + (e.scale - 1);
    return m / (m + 2);
  }

  // Keras 1 and 2: clip(0.2 x + 0.5, 0, 1).
  static FASTLSTM_INLINE V hard_sigmoid(const V& x) {
    return clamp<S>(x * static_cast<S>(0.2) + static_cast<S>(0.5), 0, 1);
  }

  static FASTLSTM_INLINE V hard_sigmoid_slope(const V& s) {
    const V slope = s > 0 ? broadcast<S>(static_cast<S>(0.2)) : V{};
    const V inside = s < 1 ? slope : V{};
    return s != s ? s : inside;
  }
};

}  // namespace fastlstm::FASTLSTM_ISA
