// How far exp, sigmoid and tanh of the kernels are from the exact functions, over all 2^32 float32 numbers.
//
// Compiled once an instruction set, with the flags of csrc/cpu/CMakeLists.txt; for AVX2:
//   g++ -std=c++20 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -mavx2 -mfma -DFASTLSTM_ISA=avx2
//       -DFASTLSTM_VECTOR_BYTES=32 -DFASTLSTM_TILE_VECTORS=2 -Icsrc/cpu tests/fuzz/elementary_sweep.cc -o sweep
//   ./sweep [stride] [function]
// for baseline without -mavx2 -mfma, with -DFASTLSTM_ISA=baseline -DFASTLSTM_VECTOR_BYTES=16. The reference is libm in
// float64, whose own error is below 1e-8 ulp of a float32.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "vector_math.h"

#define FASTLSTM_STRING(x) FASTLSTM_STRING_OF(x)
#define FASTLSTM_STRING_OF(x) #x

namespace fastlstm::FASTLSTM_ISA {
namespace {

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// The distance of float32 numbers at y; that of the denormal ones below the normal ones.
double ulp_at(double y) {
  int exponent;
  std::frexp(y, &exponent);
  return std::ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
}

struct Worst {
  double ulps = 0, absolute = 0;
  float at = 0, at_absolute = 0;
};

// `inside` is where the result is promised to a few ulps; outside of it, where results leave the normal numbers, to an
// absolute error.
template <class Kernel, class Reference, class Inside>
void sweep(const char* name, std::uint64_t stride, const Kernel& kernel, const Reference& reference,
           const Inside& inside) {
  Worst in, out;
  std::uint64_t numbers = 0, not_nearest = 0, nan_lost = 0;
  constexpr int kCount = kLanes<float>;
  for (std::uint64_t first = 0; first < std::uint64_t{1} << 32; first += stride * kCount) {
    Vec<float> x;
    for (int k = 0; k < kCount; ++k) x[k] = from_bits(static_cast<std::uint32_t>(first + stride * k));
    const Vec<float> y = kernel(x);
    for (int k = 0; k < kCount && first + stride * k < std::uint64_t{1} << 32; ++k) {
      if (x[k] != x[k]) {
        nan_lost += y[k] == y[k];
        continue;
      }
      const double want = reference(static_cast<double>(x[k]));
      const double error = std::fabs(static_cast<double>(y[k]) - want);
      if (!inside(x[k])) {
        if (!(error <= out.absolute)) out.absolute = error, out.at_absolute = x[k];
        continue;
      }
      ++numbers;
      not_nearest += bits_of(y[k]) != bits_of(static_cast<float>(want)) && error != 0;
      const double ulps = error / ulp_at(want);
      if (!(ulps <= in.ulps)) in.ulps = ulps, in.at = x[k];
      if (!(error <= in.absolute)) in.absolute = error, in.at_absolute = x[k];
    }
  }
  std::printf(
      "%s %s: %llu numbers, at most %.4f ulp (at %.9g), not the nearest float32 in %.2f %%; absolute error at most %.3g"
      " (at %.9g); outside at most %.3g (at %.9g); %llu NaN lost\n",
      FASTLSTM_STRING(FASTLSTM_ISA), name, static_cast<unsigned long long>(numbers), in.ulps,
      static_cast<double>(in.at), 100.0 * static_cast<double>(not_nearest) / static_cast<double>(numbers), in.absolute,
      static_cast<double>(in.at_absolute), out.absolute, static_cast<double>(out.at_absolute),
      static_cast<unsigned long long>(nan_lost));
  std::fflush(stdout);
}

}  // namespace

int run(std::uint64_t stride, const char* only) {
  using M = Math<float>;
  using V = Vec<float>;
  const auto wanted = [=](const char* name) { return only == nullptr || std::strcmp(only, name) == 0; };
  if (wanted("tanh")) {
    sweep(
        "tanh", stride, [](const V& x) { return M::tanh(x); }, [](double x) { return std::tanh(x); },
        [](float) { return true; });
  }
  if (wanted("sigmoid")) {
    sweep(
        "sigmoid", stride, [](const V& x) { return M::sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); },
        [](float x) { return x >= -87; });
  }
  if (wanted("exp")) {  // losses take it of what is not above 0; above 88 it stays exp(88)
    sweep(
        "exp", stride, [](const V& x) { return M::exp(x); }, [](double x) { return std::exp(x > 88 ? 88 : x); },
        [](float x) { return x >= -87; });
  }
  return 0;
}

}  // namespace fastlstm::FASTLSTM_ISA

int main(int argc, char** argv) {
  const long long stride = argc > 1 ? std::atoll(argv[1]) : 1;
  if (stride < 1) return std::fprintf(stderr, "stride is %s, expected a number above 0\n", argv[1]), 2;
  return fastlstm::FASTLSTM_ISA::run(static_cast<std::uint64_t>(stride), argc > 2 ? argv[2] : nullptr);
}
