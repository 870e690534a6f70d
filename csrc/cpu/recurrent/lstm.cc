// LSTM kernels of one instruction set.
#include "sequence_backward.h"
#include "sequence_forward.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// Calls body(the gates' activation as a constant).
template <class Body>
FASTLSTM_INLINE void with_activation(const RecurrentSizes& sizes, const Body& body) {
  if (sizes.activation == RecurrentActivation::kSigmoid) {
    body.template operator()<RecurrentActivation::kSigmoid>();
  } else {
    body.template operator()<RecurrentActivation::kHardSigmoid>();
  }
}

struct LstmCell {
  static constexpr BlockLayout kLayout = kLstmLayout;
  static constexpr int kGates = 4;
  static constexpr Index kGrain = 16;
  static constexpr bool kHasCellState = true;
  static constexpr bool kHasResetGate = false;
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
  static void activate_gates(const RecurrentSizes& sizes, const S* pre_activations, S* activated, S* c, Index before,
                             Index after) {
    Gates<Vec<S>> gates = load_gates<S>(pre_activations);
    with_activation(sizes, [&]<RecurrentActivation activation>() {
      store(c + after, lstm_cell_state<Math<S>, activation>(gates, load(c + before)));
    });
    store_gates<S>(activated, gates);
  }
  template <class S>
  static Vec<S> output(const S* activated, const S* c, Index after) {
    return load(activated + 3 * kUnits) * Math<S>::tanh(load(c + after));
  }

  template <class S>
  static FASTLSTM_INLINE void backward(const RecurrentSizes& sizes, const CellPlaces<S>& places, const Vec<S>& dh) {
    Gates<Vec<S>> gates = load_gates<S>(places.gates);
    Vec<S> dc = load(places.dc);
    with_activation(sizes, [&]<RecurrentActivation activation>() {
      lstm_cell_backward<Math<S>, activation>(gates, load(places.c_prev), load(places.c), dh, dc);
    });
    store_gates<S>(places.gates, gates);
    store(places.dc, dc);
  }
};

template <class Format, class Kept = Format, class S = Sum<typename Format::Word>>
constexpr RecurrentKernels<S> table() {
  using Forward = SequenceForward<Format, LstmCell>;
  using Prepared = SequenceForward<Kept, LstmCell>;
  using Backward = SequenceBackward<Format, LstmCell>;
  return {Forward::workspace,      run_pass<Forward, RecurrentForward<S>>,
          Backward::workspace,     run_pass<Backward, RecurrentBackward<S>>,
          prepared_size<Prepared>, run_prepare<Prepared, RecurrentForward<S>>,
          Prepared::workspace,     run_pass<Prepared, RecurrentForward<S>>};
}

}  // namespace

#if !FASTLSTM_ONLY_BF16
extern const RecurrentKernels<float> lstm_float32 = table<Exact<float>>();
extern const RecurrentKernels<double> lstm_float64 = table<Exact<double>>();
#endif
extern const RecurrentKernels<float> lstm_bf16 = table<Bf16, KeptBf16>();

}  // namespace fastlstm::FASTLSTM_ISA
