// float64: exact products.
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_float64(const Plan& plan, const Sequence<double>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Float64, kFloat64Tiles>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
