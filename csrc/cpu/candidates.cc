// Compiled without fused multiply-add: every product and sum rounds by itself, as contract.py asks.
#include "candidates.h"

#include <cmath>

#include "splitmix.h"

namespace fastlstm {
namespace {

// exp(x) for 0 <= x < 700 from operations that round the same everywhere.
double exp_exactly(double x) {
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
  const double k = std::floor(x * kLog2E + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double total = kTaylor[0];
  for (std::size_t n = 1; n < std::size(kTaylor); ++n) total = total * r + kTaylor[n];
  return std::ldexp(total, static_cast<int>(k));
}

// Classes seen so far, in an open hash table: samples are small beside the vocabulary.
class Seen {
 public:
  explicit Seen(std::int64_t most) {
    while ((std::int64_t{1} << bits_) < 2 * most) ++bits_;
    places_.assign(std::size_t{1} << bits_, -1);
  }

  // True if value was not there before.
  bool add(std::int64_t value) {
    const std::size_t mask = places_.size() - 1;
    std::size_t place = static_cast<std::uint64_t>(value) * 0x9E3779B97F4A7C15u >> (64 - bits_);
    for (; places_[place] != -1; place = (place + 1) & mask) {
      if (places_[place] == value) return false;
    }
    places_[place] = value;
    return true;
  }

 private:
  int bits_ = 4;
  std::vector<std::int64_t> places_;
};

template <class Draw>
Sample first_draws(std::int64_t num_sampled, bool unique, const Draw& draw) {
  Sample sample;
  sample.classes.reserve(static_cast<std::size_t>(num_sampled));
  std::uint64_t j = 0;
  if (!unique) {
    for (; j < static_cast<std::uint64_t>(num_sampled); ++j) sample.classes.push_back(draw(j));
  } else {
    for (Seen seen(num_sampled); static_cast<std::int64_t>(sample.classes.size()) < num_sampled; ++j) {
      const std::int64_t value = draw(j);
      if (seen.add(value)) sample.classes.push_back(value);
    }
  }
  sample.num_tries = static_cast<std::int64_t>(j);
  return sample;
}

}  // namespace

Sample log_uniform_sample(std::int64_t num_sampled, std::int64_t range_max, bool unique, double log_range,
                          std::uint64_t seed) {
  return first_draws(num_sampled, unique, [=](std::uint64_t j) {
    return (static_cast<std::int64_t>(exp_exactly(uniform(seed, j) * log_range)) - 1) % range_max;
  });
}

namespace {

// Vose's table: column floor(x), or its alias where the rest is not below the threshold; x in [0, V). Without a branch,
// which nothing could predict.
std::int64_t alias_draw(const double* threshold, const std::int64_t* alias, double x) {
  const auto column = static_cast<std::int64_t>(x);
  const auto own = -static_cast<std::int64_t>(x - static_cast<double>(column) < threshold[column]);
  return (column & own) | (alias[column] & ~own);
}

}  // namespace

Sample unigram_sample(const double* threshold, const std::int64_t* alias, std::int64_t V, std::int64_t num_sampled,
                      bool unique, std::uint64_t seed) {
  return first_draws(num_sampled, unique, [=](std::uint64_t j) {
    return alias_draw(threshold, alias, uniform(seed, j) * static_cast<double>(V));
  });
}

void unigram_draws(const double* threshold, const std::int64_t* alias, std::int64_t V, std::uint64_t first,
                   std::int64_t count, std::uint64_t seed, std::int64_t* classes) {
  for (std::int64_t k = 0; k < count; ++k) {
    const double x = uniform(seed, first + static_cast<std::uint64_t>(k)) * static_cast<double>(V);
    classes[k] = alias_draw(threshold, alias, x);
  }
}

double log_uniform_probability(std::int64_t value, double log_range) {
  return std::log1p(1 / (static_cast<double>(value) + 1.0)) / log_range;
}

double expected_count(double p, std::int64_t num_tries, std::int64_t num_sampled) {
  if (num_tries == num_sampled) return p * static_cast<double>(num_sampled);
  return -std::expm1(static_cast<double>(num_tries) * std::log1p(-p));
}

void alias_table(double* threshold, std::int64_t* alias, std::int64_t V) {
  std::vector<std::int64_t> low, high;
  for (std::int64_t v = 0; v < V; ++v) {
    alias[v] = v;
    (threshold[v] < 1 ? low : high).push_back(v);
  }
  while (!low.empty() && !high.empty()) {
    const std::int64_t shorter = low.back(), longer = high.back();
    low.pop_back();
    high.pop_back();
    alias[shorter] = longer;
    threshold[longer] = threshold[longer] + threshold[shorter] - 1;
    (threshold[longer] < 1 ? low : high).push_back(longer);
  }
  for (const std::int64_t v : low) threshold[v] = 1;
  for (const std::int64_t v : high) threshold[v] = 1;
}

}  // namespace fastlstm
