// tf32: operands rounded to TF32, sums and states in float32.
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_tf32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Tf32, kTensorTiles>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
