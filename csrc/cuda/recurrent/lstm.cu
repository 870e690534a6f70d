// The step, persistent and row kernels of the LSTM and the RNN, of one precision: FASTLSTM_PRECISION.
#include <iterator>

#include "rows.h"
#include "run_tiles.h"

namespace fastlstm::cuda {
namespace {

template <int width>
void (*row_kernel(int rows))(Sequence<float>) {
  static_assert(std::size(kRowCounts) == 3);
  if (rows == kRowCounts[0]) return run_rows<width, kRowCounts[0]>;
  return rows == kRowCounts[1] ? run_rows<width, kRowCounts[1]> : run_rows<width, kRowCounts[2]>;
}

// A template, so that only one precision compiles it.
template <class S>
void run_row_blocks(const Plan& plan, const Sequence<S>& sequence, cudaStream_t stream) {
  static_assert(std::size(kRowWidths) == 4);
  const int width = plan.tile.M, rows = plan.tile.J;
  auto* const kernel = width == kRowWidths[0]   ? row_kernel<kRowWidths[0]>(rows)
                       : width == kRowWidths[1] ? row_kernel<kRowWidths[1]>(rows)
                       : width == kRowWidths[2] ? row_kernel<kRowWidths[2]>(rows)
                                                : row_kernel<kRowWidths[3]>(rows);
  const dim3 grid(static_cast<unsigned>(plan.row_blocks));
  launch(kernel, grid, plan.threads, plan.shared_bytes, stream, false, sequence);
}

}  // namespace

template <Precision p>
void run_lstm_or_rnn(const Plan& plan, const SequenceOf<p>& sequence, char* workspace, cudaStream_t stream) {
  if constexpr (p == Precision::kFloat32) {
    if (plan.kernel == Kernel::kRows) return run_row_blocks(plan, sequence, stream);
  }
  run_tiles<Arithmetic<p>, compiled_tiles<p>(), LstmOrRnn>(plan, sequence, workspace, stream);
}

template void run_lstm_or_rnn<Precision::FASTLSTM_PRECISION>(const Plan&,
                                                             const SequenceOf<Precision::FASTLSTM_PRECISION>&, char*,
                                                             cudaStream_t);

}  // namespace fastlstm::cuda
