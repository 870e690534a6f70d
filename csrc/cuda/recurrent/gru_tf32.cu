// The GRU, tf32.
#include "gru_step.h"
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_gru_tf32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Tf32, kTensorTiles, Gru>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
