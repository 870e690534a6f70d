// The cluster kernel, float64.
#include "cluster.h"

namespace fastlstm::cuda {

void run_cluster_float64(const Plan& plan, const Sequence<double>& sequence, cudaStream_t stream) {
  run_clusters<Float64, kFloat64ClusterJs>(plan, sequence, stream);
}

}  // namespace fastlstm::cuda
