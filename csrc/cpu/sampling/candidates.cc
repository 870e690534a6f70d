// Compiled without fused multiply-add: every product and sum rounds by itself, as contract.py asks.
#include "candidates.h"

#include "../../class_draws.h"

namespace fastlstm {
namespace {

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
  return first_draws(num_sampled, unique, LogUniform{range_max, log_range, seed});
}

Sample unigram_sample(const double* threshold, const std::int64_t* alias, std::int64_t V, std::int64_t num_sampled,
                      bool unique, std::uint64_t seed) {
  return first_draws(num_sampled, unique, AliasDraw{threshold, alias, V, seed});
}

void unigram_draws(const double* threshold, const std::int64_t* alias, std::int64_t V, std::uint64_t first,
                   std::int64_t count, std::uint64_t seed, std::int64_t* classes) {
  const AliasDraw draw{threshold, alias, V, seed};
  for (std::int64_t k = 0; k < count; ++k) classes[k] = draw(first + static_cast<std::uint64_t>(k));
}

void unigram_expected_counts(const double* probabilities, const std::int64_t* classes, std::int64_t M,
                             std::int64_t num_tries, std::int64_t num_sampled, double* counts) {
  for (std::int64_t m = 0; m < M; ++m) counts[m] = expected_count(probabilities[classes[m]], num_tries, num_sampled);
}

void log_uniform_expected_counts(double log_range, const std::int64_t* classes, std::int64_t M, std::int64_t num_tries,
                                 std::int64_t num_sampled, double* counts) {
  for (std::int64_t m = 0; m < M; ++m) {
    counts[m] = expected_count(log_uniform_probability(classes[m], log_range), num_tries, num_sampled);
  }
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
