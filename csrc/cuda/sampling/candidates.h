// Samples of classes: launches on a stream that allocate nothing and wait for nothing. The draws are those of
// class_draws.h, so a sample has the bits that it has on the CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../graph/scalars.h"

namespace fastlstm::cuda {

// What one call fills: sampled (num_sampled,), and how many draws that took.
struct Sample {
  std::int64_t num_sampled;
  bool unique;
  std::int64_t* sampled;
  std::int64_t* num_tries;
  char* workspace;  // of sample_workspace_bytes
};

std::int64_t sample_workspace_bytes(std::int64_t num_sampled, bool unique);

void log_uniform_sample(const Sample& sample, std::int64_t range_max, double log_range, Seed seed, cudaStream_t stream);
// threshold and alias (V,), Vose's table.
void unigram_sample(const Sample& sample, const double* threshold, const std::int64_t* alias, std::int64_t V, Seed seed,
                    cudaStream_t stream);

// How often classes are expected in a sample of num_sampled, in one launch for two lists of them. The number of tries
// is read on the device, or it is known_tries where num_tries is null.
struct ExpectedCounts {
  const std::int64_t* classes[2];
  std::int64_t size[2];
  double* counts[2];
  const std::int64_t* num_tries;
  std::int64_t known_tries;
  std::int64_t num_sampled;
};

void log_uniform_expected_counts(const ExpectedCounts& counts, double log_range, cudaStream_t stream);
// probabilities (V,)
void unigram_expected_counts(const ExpectedCounts& counts, const double* probabilities, cudaStream_t stream);

}  // namespace fastlstm::cuda
