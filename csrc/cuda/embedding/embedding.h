// Rows by ids: what embedding.cu does, for the bindings. Ids are in range, M rows of E numbers; nothing is done for M =
// 0 or E = 0.
#pragma once

#include <cuda_runtime.h>

#include "../device/index.h"

namespace fastlstm::cuda {

// out[m] = W[ids[m]]
template <class S, class Id>
struct RowGather {
  const S* W;     // (V, E)
  const Id* ids;  // (M,)
  S* out;         // (M, E)
  Index M, E;
};

// target[ids[m]] = 0
template <class S, class Id>
struct RowClearing {
  S* target;      // (V, E)
  const Id* ids;  // (M,)
  Index M, E;
};

// target[ids[m]] = sum of the rows with that id or, with accumulate, += ; other rows are left as they are.
template <class S, class Id>
struct RowSum {
  S* target;      // (V, E)
  const Id* ids;  // (M,)
  const S* rows;  // (M, E)
  Index M, E, V;
  Index skip;  // an id whose row is left as it is; -1: none
  bool accumulate;
};

// The unique ids, ascending, and the sums of their rows; beyond the first *count the results are left as they are.
template <class S, class Id>
struct UniqueRows {
  const Id* ids;  // (M,)
  const S* rows;  // (M, E)
  Index M, E;
  Id* indices;          // (M,)
  S* values;            // (M, E)
  std::int32_t* count;  // (1,)
};

// Bytes of the workspaces of sum_rows and unique_rows.
Index sum_rows_workspace(Index M, Index E, Index id_bytes, Index float_bytes);
Index unique_rows_workspace(Index M, Index E, Index id_bytes, Index float_bytes);

template <class S, class Id>
void gather_rows(const RowGather<S, Id>& a, cudaStream_t stream);
template <class S, class Id>
void clear_rows(const RowClearing<S, Id>& a, cudaStream_t stream);
template <class S, class Id>
void sum_rows(const RowSum<S, Id>& a, char* workspace, cudaStream_t stream);
template <class S, class Id>
void unique_rows(const UniqueRows<S, Id>& a, char* workspace, cudaStream_t stream);

}  // namespace fastlstm::cuda
