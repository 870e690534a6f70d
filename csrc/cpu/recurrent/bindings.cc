// The LSTM, the GRU and the tanh RNN.
#include "../bindings.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>

#include "../arrays.h"
#include "../threads.h"
#include "kernels.h"

namespace fastlstm {
namespace {

struct Lstm {
  static constexpr BlockLayout kLayout = kLstmLayout;
  static constexpr const char* kGateOrder = "ifgo";
  static constexpr Index kGates = 4;
  static constexpr bool kHasCellState = true;
  static constexpr bool kKeepsGates = true;
  template <class S>
  static const RecurrentKernels<S>& table() {
    return *kernels<S>().lstm;
  }
};

struct Gru {
  static constexpr BlockLayout kLayout = kGruLayout;
  static constexpr const char* kGateOrder = "zrn";
  static constexpr Index kGates = 3;
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = true;
  template <class S>
  static const RecurrentKernels<S>& table() {
    return *kernels<S>().gru;
  }
};

struct Rnn {
  static constexpr BlockLayout kLayout = kRnnLayout;
  static constexpr const char* kGateOrder = "";
  static constexpr Index kGates = 1;
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = false;  // the states are enough for the backward pass
  template <class S>
  static const RecurrentKernels<S>& table() {
    return *kernels<S>().rnn;
  }
};

// The arguments of a forward call; the arrays stay alive with it.
struct RecurrentInputs {
  RecurrentSizes sizes;
  py::array xs, Wx, Wh, b;
  OptionalArray h0, c0, mask;
};

template <class S, class Layer>
class Tape {
 public:
  Tape(RecurrentInputs inputs, bool keep)
      : inputs_(std::move(inputs)), keep_(keep), slots_(keep ? inputs_.sizes.T + 1 : 2) {
    const RecurrentSizes& s = inputs_.sizes;
    if (keep && Layer::kKeepsGates) gates_ = Array<S>(Layer::kLayout.gate_buffer(s.T * s.N, s.H));
    h_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
    if (Layer::kHasCellState) c_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
  }

  // Without the GIL. The outputs may be null.
  void forward(S* hs, S* h_n, S* c_n) {
    const RecurrentSizes s = sizes_now();
    const Array<S> workspace(workspace_size(s));
    Layer::template table<S>().forward({.sizes = s,
                                        .xs = pointer<S>(inputs_.xs),
                                        .Wx = pointer<S>(inputs_.Wx),
                                        .Wh = pointer<S>(inputs_.Wh),
                                        .b = pointer<S>(inputs_.b),
                                        .h0 = pointer<S>(inputs_.h0),
                                        .c0 = pointer<S>(inputs_.c0),
                                        .mask = pointer<bool>(inputs_.mask),
                                        .hs = hs,
                                        .h_n = h_n,
                                        .c_n = c_n,
                                        .gates = gates_.data(),
                                        .h = h_.data(),
                                        .c = c_.data(),
                                        .slots = slots_,
                                        .workspace = workspace.data()});
  }

  py::tuple backward(const OptionalArray& dhs, const OptionalArray& dh_n, const OptionalArray& dc_n) {
    const RecurrentSizes s = sizes_now();
    const Index G = Layer::kGates * s.H;
    py::array dxs = new_array<S>({s.N, s.T, s.D});
    py::array dWx = new_array<S>({s.D, G});
    py::array dWh = new_array<S>({s.H, G});
    py::array db = s.reset_after ? new_array<S>({2, G}) : new_array<S>({G});
    py::array dh0 = new_array<S>({s.N, s.H});
    py::array dc0 = Layer::kHasCellState ? new_array<S>({s.N, s.H}) : py::array();
    RecurrentBackward<S> args{.sizes = s,
                              .xs = pointer<S>(inputs_.xs),
                              .Wx = pointer<S>(inputs_.Wx),
                              .Wh = pointer<S>(inputs_.Wh),
                              .mask = pointer<bool>(inputs_.mask),
                              .dhs = pointer<S>(dhs),
                              .dh_n = pointer<S>(dh_n),
                              .dc_n = pointer<S>(dc_n),
                              .gates = nullptr,
                              .h = h_.data(),
                              .c = c_.data(),
                              .dxs = writable<S>(dxs),
                              .dWx = writable<S>(dWx),
                              .dWh = writable<S>(dWh),
                              .db = writable<S>(db),
                              .dh0 = writable<S>(dh0),
                              .dc0 = Layer::kHasCellState ? writable<S>(dc0) : nullptr,
                              .workspace = nullptr};
    {
      const WithoutGil released;
      const std::lock_guard lock(mutex_);
      Array<S> gate_gradients;
      if constexpr (Layer::kKeepsGates) {
        // The gates' gradients take the gates' place; a second call computes the gates again.
        if (gates_consumed_) forward(nullptr, nullptr, nullptr);
        gates_consumed_ = true;
        args.gates = gates_.data();
      } else {
        gate_gradients = Array<S>(Layer::kLayout.gate_buffer(s.T * s.N, s.H));
        args.gates = gate_gradients.data();
      }
      const Array<S> workspace(workspace_size(s));
      args.workspace = workspace.data();
      Layer::template table<S>().backward(args);
    }
    if constexpr (Layer::kHasCellState) return py::make_tuple(dxs, dWx, dWh, db, dh0, dc0);
    return py::make_tuple(dxs, dWx, dWh, db, dh0);
  }

 private:
  // One size for both passes: the pool hands the memory of the first to the second.
  Index workspace_size(const RecurrentSizes& sizes) const {
    const RecurrentKernels<S>& table = Layer::template table<S>();
    const Index forward = table.forward_workspace(sizes);
    return keep_ ? std::max(forward, table.backward_workspace(sizes)) : forward;
  }

  // The number of threads may change between a tape's calls, but not between the size of a workspace and its use.
  RecurrentSizes sizes_now() const {
    RecurrentSizes sizes = inputs_.sizes;
    sizes.threads = num_threads();
    return sizes;
  }

  RecurrentInputs inputs_;
  bool keep_;
  Index slots_;
  Array<S> gates_, h_, c_;
  bool gates_consumed_ = false;
  std::mutex mutex_;
};

template <class S, class Layer>
py::tuple recurrent_forward_of(RecurrentInputs inputs, bool training) {
  const RecurrentSizes s = inputs.sizes;
  py::array hs = new_array<S>({s.N, s.T, s.H});
  py::array h_n = new_array<S>({s.N, s.H});
  py::array c_n = Layer::kHasCellState ? new_array<S>({s.N, s.H}) : py::array();
  S* const hs_data = writable<S>(hs);
  S* const h_n_data = writable<S>(h_n);
  S* const c_n_data = Layer::kHasCellState ? writable<S>(c_n) : nullptr;
  auto tape = std::make_unique<Tape<S, Layer>>(std::move(inputs), training);
  {
    const WithoutGil released;
    tape->forward(hs_data, h_n_data, c_n_data);
  }
  const py::object kept = training ? py::cast(std::move(tape)) : py::none();
  if constexpr (Layer::kHasCellState) return py::make_tuple(hs, h_n, c_n, kept);
  return py::make_tuple(hs, h_n, kept);
}

// sizes: what the layers have apart from each other; the rest is filled in.
template <class Layer>
py::tuple recurrent_forward(RecurrentSizes sizes, const py::array& xs, const py::array& Wx, const py::array& Wh,
                            const py::array& b, const OptionalArray& h0, const OptionalArray& c0,
                            const OptionalArray& mask, const std::string& gate_order, bool training) {
  sizes.N = xs.shape(0);
  sizes.T = xs.shape(1);
  sizes.D = xs.shape(2);
  sizes.H = Wh.shape(0);
  for (std::size_t gate = 0; gate < gate_order.size(); ++gate) {
    sizes.gate_position[gate] = static_cast<int>(gate_order.find(Layer::kGateOrder[gate]));
  }
  RecurrentInputs inputs{sizes, xs, Wx, Wh, b, h0, c0, mask};
  return with_float_type(xs, [&]<class S>() { return recurrent_forward_of<S, Layer>(std::move(inputs), training); });
}

py::tuple lstm_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                       const OptionalArray& h0, const OptionalArray& c0, const OptionalArray& mask, bool reverse,
                       const std::string& gate_order, bool hard_sigmoid, bool training) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  sizes.activation = hard_sigmoid ? RecurrentActivation::kHardSigmoid : RecurrentActivation::kSigmoid;
  return recurrent_forward<Lstm>(sizes, xs, Wx, Wh, b, h0, c0, mask, gate_order, training);
}

py::tuple gru_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, const std::string& gate_order,
                      bool reset_after, bool z_keeps, bool training) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  sizes.reset_after = reset_after;
  sizes.z_keeps = z_keeps;
  return recurrent_forward<Gru>(sizes, xs, Wx, Wh, b, h0, std::nullopt, mask, gate_order, training);
}

py::tuple rnn_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, bool training) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  return recurrent_forward<Rnn>(sizes, xs, Wx, Wh, b, h0, std::nullopt, mask, "", training);
}

template <class Tape>
void bind_tape_without_cell_state(py::module_& module, const std::string& name) {
  py::class_<Tape>(module, name.c_str())
      .def(
          "backward",
          [](Tape& tape, const OptionalArray& dhs, const OptionalArray& dh_n) {
            return tape.backward(dhs, dh_n, std::nullopt);
          },
          py::arg("dhs"), py::arg("dh_n"));
}

template <class S>
void bind_tapes(py::module_& module, const std::string& suffix) {
  using LstmTape = Tape<S, Lstm>;
  py::class_<LstmTape>(module, ("LstmTape" + suffix).c_str())
      .def("backward", &LstmTape::backward, py::arg("dhs"), py::arg("dh_n"), py::arg("dc_n"));
  bind_tape_without_cell_state<Tape<S, Gru>>(module, "GruTape" + suffix);
  bind_tape_without_cell_state<Tape<S, Rnn>>(module, "RnnTape" + suffix);
}

}  // namespace

void bind_recurrent(py::module_& module) {
  bind_tapes<float>(module, "Float32");
  bind_tapes<double>(module, "Float64");
  module.def("lstm_forward", &lstm_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("c0"), py::arg("mask"), py::arg("reverse"), py::arg("gate_order"), py::arg("hard_sigmoid"),
             py::arg("training"));
  module.def("gru_forward", &gru_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("mask"), py::arg("reverse"), py::arg("gate_order"), py::arg("reset_after"), py::arg("z_keeps"),
             py::arg("training"));
  module.def("rnn_forward", &rnn_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("mask"), py::arg("reverse"), py::arg("training"));
}

}  // namespace fastlstm
