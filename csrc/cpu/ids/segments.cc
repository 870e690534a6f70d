#include "segments.h"

#include <algorithm>
#include <array>
#include <utility>

namespace fastlstm {

namespace {

// Radix sort of the rows by their ids, least significant digit first: stable, so that sums over a segment run in the
// order of the rows.
template <int digit_bits, class Id>
void sort_rows(const Id* ids, std::uint64_t largest, std::ptrdiff_t M, std::ptrdiff_t* order, std::ptrdiff_t* work) {
  constexpr std::size_t kDigits = std::size_t{1} << digit_bits;
  std::ptrdiff_t* from = order;
  std::ptrdiff_t* to = work;
  for (int shift = 0; shift < 64 && largest >> shift != 0; shift += digit_bits) {
    const auto digit = [&](std::ptrdiff_t m) { return static_cast<std::uint64_t>(ids[m]) >> shift & (kDigits - 1); };
    std::array<std::ptrdiff_t, kDigits> place{};
    for (std::ptrdiff_t m = 0; m < M; ++m) ++place[digit(m)];
    std::ptrdiff_t sum = 0;
    for (std::ptrdiff_t& count : place) sum += std::exchange(count, sum);
    for (std::ptrdiff_t k = 0; k < M; ++k) to[place[digit(from[k])]++] = from[k];
    std::swap(from, to);
  }
  if (from != order) std::copy_n(from, M, order);
}

}  // namespace

template <class Id>
std::ptrdiff_t find_segments(const Id* ids, std::ptrdiff_t M, std::ptrdiff_t* order, std::ptrdiff_t* starts,
                             std::ptrdiff_t* work) {
  std::uint64_t largest = 0;
  for (std::ptrdiff_t m = 0; m < M; ++m) {
    largest = std::max(largest, static_cast<std::uint64_t>(ids[m]));
    order[m] = m;
  }
  // With few rows, clearing and summing the places of a wide digit would take longer than another round.
  M < 1024 ? sort_rows<6>(ids, largest, M, order, work) : sort_rows<11>(ids, largest, M, order, work);
  std::ptrdiff_t unique = 0;
  for (std::ptrdiff_t k = 0; k < M; ++k) {
    if (k == 0 || ids[order[k]] != ids[order[k - 1]]) starts[unique++] = k;
  }
  starts[unique] = M;
  return unique;
}

template std::ptrdiff_t find_segments(const std::int32_t*, std::ptrdiff_t, std::ptrdiff_t*, std::ptrdiff_t*,
                                      std::ptrdiff_t*);
template std::ptrdiff_t find_segments(const std::int64_t*, std::ptrdiff_t, std::ptrdiff_t*, std::ptrdiff_t*,
                                      std::ptrdiff_t*);

}  // namespace fastlstm
