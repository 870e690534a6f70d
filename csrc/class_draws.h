// Draws of classes that contract.py fixes to the last bit, and their expected counts: for the CPU and for CUDA. Whoever
// includes this is compiled without fused multiply-add, so that every product and sum rounds by itself.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "splitmix.h"

namespace fastlstm {

// exp(x) for 0 <= x < 700 from operations that round the same everywhere.
FASTLSTM_HOST_DEVICE inline double exp_exactly(double x) {
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr double kTaylor[] = {1.6059043836821613e-10,
                                2.08767569878681e-09,
                                2.505210838544172e-08,
                                2.755731922398589e-07,
                                2.7557319223985893e-06,
                                2.48015873015873e-05,
                                0.0001984126984126984,
                                0.001388888888888889,
                                0.008333333333333333,
                                0.041666666666666664,
                                0.16666666666666666,
                                0.5,
                                1.0,
                                1.0};
  constexpr int kTerms = sizeof(kTaylor) / sizeof(kTaylor[0]);
  const double k = std::floor(x * kLog2E + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double total = kTaylor[0];
  for (int n = 1; n < kTerms; ++n) total = total * r + kTaylor[n];
  return std::ldexp(total, static_cast<int>(k));
}

// Draw j of a seed, for a log-uniform law over 0 .. range_max - 1; log_range = log(range_max + 1).
struct LogUniform {
  std::int64_t range_max;
  double log_range;
  std::uint64_t seed;

  FASTLSTM_HOST_DEVICE std::int64_t operator()(std::uint64_t j) const {
    return (static_cast<std::int64_t>(exp_exactly(uniform(seed, j) * log_range)) - 1) % range_max;
  }
};

// Draw j of a seed from Vose's table: column floor(x), or its alias where the rest is not below the threshold; x in
// [0, V). Without a branch, which nothing could predict.
struct AliasDraw {
  const double* threshold;
  const std::int64_t* alias;
  std::int64_t V;
  std::uint64_t seed;

  FASTLSTM_HOST_DEVICE std::int64_t operator()(std::uint64_t j) const {
    const double x = uniform(seed, j) * static_cast<double>(V);
    const auto column = static_cast<std::int64_t>(x);
    const auto own = -static_cast<std::int64_t>(x - static_cast<double>(column) < threshold[column]);
    return (column & own) | (alias[column] & ~own);
  }
};

FASTLSTM_HOST_DEVICE inline double log_uniform_probability(std::int64_t value, double log_range) {
  return std::log1p(1 / (static_cast<double>(value) + 1.0)) / log_range;
}

// How often a class of probability p is expected in a sample, as TensorFlow counts.
FASTLSTM_HOST_DEVICE inline double expected_count(double p, std::int64_t num_tries, std::int64_t num_sampled) {
  if (num_tries == num_sampled) return p * static_cast<double>(num_sampled);
  return -std::expm1(static_cast<double>(num_tries) * std::log1p(-p));
}

}  // namespace fastlstm
