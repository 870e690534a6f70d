// Launches a planned pass on a stream: allocates nothing, waits for nothing.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "plan.h"
#include "sequence.h"

namespace fastlstm::cuda {

template <Precision p>
using SequenceOf = Sequence<std::conditional_t<p == Precision::kFloat64, double, float>>;

// The time loop of a sequence with N, T >= 1; workspace holds plan.workspace_bytes. lstm.cu, gru.cu and cluster.cu are
// compiled once for each precision, side by side.
template <Precision p>
void run_lstm_or_rnn(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream);
template <Precision p>
void run_gru(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream);
template <Precision p>
void run_plain(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream);
template <Precision p>
void run_clusters(const Plan& plan, const SequenceOf<p>& sequence, cudaStream_t stream);

// Blocks of the largest cluster that runs on the device, which is the current one, with so much shared memory a block;
// 0 if the cluster kernel cannot run. Any precision has the same answer.
template <Precision p>
int largest_cluster_of(int device, Index shared_bytes);

}  // namespace fastlstm::cuda
