// LSTM kernels of one instruction set.
#include "recurrent.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

template <RecurrentActivation activation>
struct LstmCell {
  static constexpr BlockLayout kLayout = kLstmLayout;
  static constexpr bool kHasCellState = true;
  static constexpr Index kUnits = kLayout.units;

  template <class S>
  static Gates<Vec<S>> load_gates(const S* p) {
    return {load(p), load(p + kUnits), load(p + 2 * kUnits), load(p + 3 * kUnits)};
  }
  template <class S>
  static void store_gates(S* p, const Gates<Vec<S>>& gates) {
    store(p, gates.i);
    store(p + kUnits, gates.f);
    store(p + 2 * kUnits, gates.g);
    store(p + 3 * kUnits, gates.o);
  }

  template <class S>
  static void activate_gates(const S* pre_activations, S* activated, S* c, Index before, Index after) {
    Gates<Vec<S>> gates = load_gates<S>(pre_activations);
    store(c + after, lstm_cell_state<Math<S>, activation>(gates, load(c + before)));
    store_gates<S>(activated, gates);
  }
  template <class S>
  static Vec<S> output(const S* activated, const S* c, Index after) {
    return load(activated + 3 * kUnits) * Math<S>::tanh(load(c + after));
  }

  template <class S>
  static void backward(S* kept, const S*, const S* c, Index before, Index after, const Vec<S>& dh, S* dc) {
    Gates<Vec<S>> gates = load_gates<S>(kept);
    Vec<S> dc_value = load(dc);
    lstm_cell_backward<Math<S>, activation>(gates, load(c + before), load(c + after), dh, dc_value);
    store_gates<S>(kept, gates);
    store(dc, dc_value);
  }
};

using SigmoidCell = LstmCell<RecurrentActivation::kSigmoid>;
using HardSigmoidCell = LstmCell<RecurrentActivation::kHardSigmoid>;

template <class S>
void lstm_forward(const RecurrentForward<S>& args) {
  if (args.sizes.activation == RecurrentActivation::kSigmoid) {
    run_forward<S, SigmoidCell>(args);
  } else {
    run_forward<S, HardSigmoidCell>(args);
  }
}

template <class S>
void lstm_backward(const RecurrentBackward<S>& args) {
  if (args.sizes.activation == RecurrentActivation::kSigmoid) {
    run_backward<S, SigmoidCell>(args);
  } else {
    run_backward<S, HardSigmoidCell>(args);
  }
}

template <class S>
constexpr RecurrentKernels<S> table() {
  return {ForwardPass<S, SigmoidCell>::workspace, lstm_forward<S>, BackwardPass<S, SigmoidCell>::workspace,
          lstm_backward<S>};
}

}  // namespace

extern const RecurrentKernels<float> lstm_float32 = table<float>();
extern const RecurrentKernels<double> lstm_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
