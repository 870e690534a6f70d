// What the gradients by rows of embeddings and sampled classes share: segments of equal ids, as Python gets them.
#pragma once

#include "../arrays.h"
#include "segments.h"

namespace fastlstm {

// Rows in segments of equal ids, ids ascending.
template <class Id>
class Segments {
 public:
  Segments(const Id* ids, Index M) : order_(M), starts_(M + 1) {
    const Array<Index> work(M);
    const WithoutGil released;
    count_ = find_segments(ids, M, order_.data(), starts_.data(), work.data());
  }

  const Index* order() const { return order_.data(); }
  const Index* starts() const { return starts_.data(); }
  Index count() const { return count_; }
  py::array unique(const Id* ids) const {
    py::array indices = new_array<Id>({count_});
    Id* const out = writable<Id>(indices);
    for (Index u = 0; u < count_; ++u) out[u] = ids[order()[starts()[u]]];
    return indices;
  }

 private:
  Array<Index> order_, starts_;
  Index count_ = 0;
};

}  // namespace fastlstm
