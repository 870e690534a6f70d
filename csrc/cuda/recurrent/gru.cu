// The step and persistent kernels of the GRU, of one precision: FASTLSTM_PRECISION.
#include "gru_step.h"
#include "run_tiles.h"

namespace fastlstm::cuda {

template <Precision p>
void run_gru(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream) {
  run_tiles<Arithmetic<p>, compiled_tiles<p>(), Gru>(plan, sequence, workspace, stream);
}

template void run_gru<Precision::FASTLSTM_PRECISION>(const Plan&, const SequenceOf<Precision::FASTLSTM_PRECISION>&,
                                                     char*, cudaStream_t);

}  // namespace fastlstm::cuda
