// bf16: operands rounded to bfloat16, sums and states in float32.
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_bf16(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Bf16, kTensorTiles>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
