// tanh RNN kernels of one instruction set.
#include "recurrent.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// h = tanh(x Wx + h_prev Wh + b), Elman (1990). The tape is h alone.
struct RnnCell {
  static constexpr BlockLayout kLayout = kRnnLayout;
  static constexpr bool kHasCellState = false;

  template <class S>
  static Vec<S> output(const S* pre_activation, const S*, Index) {
    return Math<S>::tanh(load(pre_activation));
  }

  template <class S>
  static void backward(S* dz, const S* h, const S*, Index, Index after, const Vec<S>& dh, S*) {
    const Vec<S> h_new = load(h + after);
    store(dz, dh * (1 - h_new * h_new));
  }
};

template <class S>
constexpr RecurrentKernels<S> table() {
  return {ForwardPass<S, RnnCell>::workspace, run_forward<S, RnnCell>, BackwardPass<S, RnnCell>::workspace,
          run_backward<S, RnnCell>};
}

}  // namespace

extern const RecurrentKernels<float> rnn_float32 = table<float>();
extern const RecurrentKernels<double> rnn_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
