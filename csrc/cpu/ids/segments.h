// Rows sorted into segments of equal ids, for row gradients.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlstm {

// order: the indices 0 .. M - 1 sorted by their id, ties in their own order. starts[u] .. starts[u + 1]: the rows of
// the u-th unique id in it. Returns the number of unique ids U; starts has M + 1 places. work holds M elements.
// The ids are not negative.
template <class Id>
std::ptrdiff_t find_segments(const Id* ids, std::ptrdiff_t M, std::ptrdiff_t* order, std::ptrdiff_t* starts,
                             std::ptrdiff_t* work);

extern template std::ptrdiff_t find_segments(const std::int32_t*, std::ptrdiff_t, std::ptrdiff_t*, std::ptrdiff_t*,
                                             std::ptrdiff_t*);
extern template std::ptrdiff_t find_segments(const std::int64_t*, std::ptrdiff_t, std::ptrdiff_t*, std::ptrdiff_t*,
                                             std::ptrdiff_t*);

}  // namespace fastlstm
