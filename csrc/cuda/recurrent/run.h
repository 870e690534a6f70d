// Launches a planned pass on a stream: allocates nothing, waits for nothing.
#pragma once

#include <cuda_runtime.h>

#include "plan.h"
#include "sequence.h"

namespace fastlstm::cuda {

// The time loop of a sequence with N, T >= 1; workspace holds plan.workspace_bytes. A precision a file, and one more
// for its GRU and for its clusters, which nvcc compiles side by side.
void run_float32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_float64(const Plan& plan, const Sequence<double>& sequence, char* workspace, cudaStream_t stream);
void run_tf32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_bf16(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_gru_float32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_gru_float64(const Plan& plan, const Sequence<double>& sequence, char* workspace, cudaStream_t stream);
void run_gru_tf32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_gru_bf16(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream);
void run_cluster_float32(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream);
void run_cluster_float64(const Plan& plan, const Sequence<double>& sequence, cudaStream_t stream);
void run_cluster_tf32(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream);
void run_cluster_bf16(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream);

// Blocks of the largest cluster that runs on the device, which is the current one, with so much shared memory a block;
// 0 if the cluster kernel cannot run.
int largest_cluster_of(int device, Index shared_bytes);

}  // namespace fastlstm::cuda
