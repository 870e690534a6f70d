// The cluster kernel, bf16.
#include "cluster.h"

namespace fastlstm::cuda {

void run_cluster_bf16(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream) {
  run_clusters<Bf16, kClusterJs>(plan, sequence, stream);
}

int largest_cluster_of(int device, Index shared_bytes) {
  return largest_cluster(run_cluster_forward<Bf16, 1>, kTileThreads, shared_bytes, device);
}

}  // namespace fastlstm::cuda
