// The GRU, bf16.
#include "gru_step.h"
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_gru_bf16(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Bf16, kTensorTiles, Gru>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
