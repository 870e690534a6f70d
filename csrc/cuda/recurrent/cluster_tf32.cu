// The cluster kernel, TF32.
#include "cluster.h"

namespace fastlstm::cuda {

void run_cluster_tf32(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream) {
  run_clusters<Tf32, kClusterJs>(plan, sequence, stream);
}

}  // namespace fastlstm::cuda
