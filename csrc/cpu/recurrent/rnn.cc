// tanh RNN kernels of one instruction set.
#include "sequence_backward.h"
#include "sequence_forward.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// h = tanh(x Wx + h_prev Wh + b), Elman (1990). The tape is h alone.
struct RnnCell {
  static constexpr BlockLayout kLayout = kRnnLayout;
  static constexpr int kGates = 1;
  static constexpr Index kGrain = 64;
  static constexpr bool kHasCellState = false;
  static constexpr bool kHasResetGate = false;

  template <class S>
  static Vec<S> output(const S* pre_activation, const S*, Index) {
    return Math<S>::tanh(load(pre_activation));
  }

  template <class S>
  static FASTLSTM_INLINE void backward(const RecurrentSizes&, const CellPlaces<S>& places, const Vec<S>& dh) {
    const Vec<S> h = load(places.h);
    store(places.gates, dh * (1 - h * h));
  }
};

template <class Format, class Kept = Format, class S = Sum<typename Format::Word>>
constexpr RecurrentKernels<S> table() {
  using Forward = SequenceForward<Format, RnnCell>;
  using Prepared = SequenceForward<Kept, RnnCell>;
  using Backward = SequenceBackward<Format, RnnCell>;
  return {Forward::workspace,      run_pass<Forward, RecurrentForward<S>>,
          Backward::workspace,     run_pass<Backward, RecurrentBackward<S>>,
          prepared_size<Prepared>, run_prepare<Prepared, RecurrentForward<S>>,
          Prepared::workspace,     run_pass<Prepared, RecurrentForward<S>>};
}

}  // namespace

#if !FASTLSTM_ONLY_BF16
extern const RecurrentKernels<float> rnn_float32 = table<Exact<float>>();
extern const RecurrentKernels<double> rnn_float64 = table<Exact<double>>();
#endif
extern const RecurrentKernels<float> rnn_bf16 = table<Bf16, KeptBf16>();

}  // namespace fastlstm::FASTLSTM_ISA
