// The GRU, float64.
#include "gru_step.h"
#include "run_tiles.h"

namespace fastlstm::cuda {

void run_gru_float64(const Plan& plan, const Sequence<double>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Float64, kFloat64Tiles, Gru>(plan, sequence, workspace, stream);
}

}  // namespace fastlstm::cuda
