// Skip-gram pairs of a text: subsampling, windows. What contract.py fixes to the last bit for every backend.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlstm {

// Copies the ids to keep, and all below 0, into kept (length,); returns how many. Position i is kept if its draw is
// below keep[ids[i]].
std::ptrdiff_t subsample(const std::int64_t* ids, std::ptrdiff_t length, const double* keep, std::uint64_t seed,
                         std::int64_t* kept);

struct Windows {
  const std::int64_t* ids;  // (length,); ids below 0 end a sentence
  std::ptrdiff_t length;
  std::ptrdiff_t window;
  std::uint64_t seed;
};

// counts (stop - start,): how many pairs the words at positions start to stop - 1 have. Returns their sum.
std::ptrdiff_t skipgram_counts(const Windows& text, std::ptrdiff_t start, std::ptrdiff_t stop, std::int64_t* counts);

// The pairs themselves, contexts from left to right.
void skipgram_pairs(const Windows& text, std::ptrdiff_t start, std::ptrdiff_t stop, std::int64_t* centers,
                    std::int64_t* contexts);

}  // namespace fastlstm
