// What the embedding's kernels take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

template <class S, class Id>
struct EmbeddingKernels {
  // out[m] = W[ids[m]]
  void (*gather)(const S* W, const Id* ids, Index M, Index E, S* out);
  // target[ids[m]] += rows[m], in the order of m; with clear, target (V, E) is zeroed first. Rows whose id is skip
  // (-1: none) are left out.
  void (*scatter_add)(S* target, Index V, const Id* ids, const S* rows, Index M, Index E, bool clear, Index skip);
  // target[ids[m]] = 0
  void (*clear_rows)(S* target, const Id* ids, Index M, Index E);
  // out[u] = sum of rows[order[k]] for k in [starts[u], starts[u + 1])
  void (*sum_segments)(const S* rows, const Index* order, const Index* starts, Index U, Index E, S* out);
};

}  // namespace fastlstm
