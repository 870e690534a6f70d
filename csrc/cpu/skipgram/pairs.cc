// Compiled without fused multiply-add: every product and sum rounds by itself, as contract.py asks.
#include "pairs.h"

#include "../../splitmix.h"

namespace fastlstm {
namespace {

// The neighbours of position i: [begin, end) without i itself.
struct Neighbours {
  std::ptrdiff_t begin, end;
};

Neighbours neighbours(const Windows& text, std::ptrdiff_t i) {
  if (text.ids[i] < 0) return {i, i + 1};
  const double u = uniform(text.seed, static_cast<std::uint64_t>(i));
  const std::ptrdiff_t reach = 1 + static_cast<std::ptrdiff_t>(u * static_cast<double>(text.window));
  const std::ptrdiff_t first = i < reach ? 0 : i - reach;
  const std::ptrdiff_t last = text.length - i <= reach ? text.length : i + reach + 1;
  Neighbours found{i, i + 1};
  while (found.begin > first && text.ids[found.begin - 1] >= 0) --found.begin;
  while (found.end < last && text.ids[found.end] >= 0) ++found.end;
  return found;
}

}  // namespace

std::ptrdiff_t subsample(const std::int64_t* ids, std::ptrdiff_t length, const double* keep, std::uint64_t seed,
                         std::int64_t* kept) {
  std::ptrdiff_t count = 0;
  for (std::ptrdiff_t i = 0; i < length; ++i) {
    kept[count] = ids[i];
    count += ids[i] < 0 || uniform(seed, static_cast<std::uint64_t>(i)) < keep[ids[i]];
  }
  return count;
}

std::ptrdiff_t skipgram_counts(const Windows& text, std::ptrdiff_t start, std::ptrdiff_t stop, std::int64_t* counts) {
  std::ptrdiff_t total = 0;
  for (std::ptrdiff_t i = start; i < stop; ++i) {
    const Neighbours found = neighbours(text, i);
    counts[i - start] = found.end - found.begin - 1;
    total += found.end - found.begin - 1;
  }
  return total;
}

void skipgram_pairs(const Windows& text, std::ptrdiff_t start, std::ptrdiff_t stop, std::int64_t* centers,
                    std::int64_t* contexts) {
  for (std::ptrdiff_t i = start; i < stop; ++i) {
    const Neighbours found = neighbours(text, i);
    for (std::ptrdiff_t k = found.begin; k < found.end; ++k) {
      if (k == i) continue;
      *centers++ = text.ids[i];
      *contexts++ = text.ids[k];
    }
  }
}

}  // namespace fastlstm
