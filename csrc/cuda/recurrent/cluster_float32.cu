// The cluster kernel, float32, exact products.
#include "cluster.h"

namespace fastlstm::cuda {

void run_cluster_float32(const Plan& plan, const Sequence<float>& sequence, cudaStream_t stream) {
  run_clusters<Float32, kClusterJs>(plan, sequence, stream);
}

}  // namespace fastlstm::cuda
