// Sampled classes: the draws that contract.py fixes to the last bit for every backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastlstm {

struct Sample {
  std::vector<std::int64_t> classes;
  std::int64_t num_tries;
};

Sample log_uniform_sample(std::int64_t num_sampled, std::int64_t range_max, bool unique, double log_range,
                          std::uint64_t seed);

Sample unigram_sample(const double* threshold, const std::int64_t* alias, std::int64_t V, std::int64_t num_sampled,
                      bool unique, std::uint64_t seed);

// Draws first, first + 1 ... of the same stream, repeats allowed.
void unigram_draws(const double* threshold, const std::int64_t* alias, std::int64_t V, std::uint64_t first,
                   std::int64_t count, std::uint64_t seed, std::int64_t* classes);

// As expected_count in class_draws.h, for classes (M,) of probability probabilities[class], or of the log-uniform law.
void unigram_expected_counts(const double* probabilities, const std::int64_t* classes, std::int64_t M,
                             std::int64_t num_tries, std::int64_t num_sampled, double* counts);
void log_uniform_expected_counts(double log_range, const std::int64_t* classes, std::int64_t M, std::int64_t num_tries,
                                 std::int64_t num_sampled, double* counts);

// In place: scaled probabilities become thresholds. Vose (1991).
void alias_table(double* threshold, std::int64_t* alias, std::int64_t V);

}  // namespace fastlstm
