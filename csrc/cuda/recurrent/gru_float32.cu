// The GRU, float32.
#include "gru_step.h"
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_gru_float32(const Plan& plan, const Sequence<float>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Float32, kFloat32Tiles, Gru>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
