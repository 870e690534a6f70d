// The LSTM, the GRU and the tanh RNN.
#include "../bindings.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>

#include "../arrays.h"
#include "../process_lock.h"
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
  static constexpr auto kTable = [](const auto& kernels) { return kernels.lstm; };
};

struct Gru {
  static constexpr BlockLayout kLayout = kGruLayout;
  static constexpr const char* kGateOrder = "zrn";
  static constexpr Index kGates = 3;
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = true;
  static constexpr auto kTable = [](const auto& kernels) { return kernels.gru; };
};

struct Rnn {
  static constexpr BlockLayout kLayout = kRnnLayout;
  static constexpr const char* kGateOrder = "";
  static constexpr Index kGates = 1;
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = false;  // the states are enough for the backward pass
  static constexpr auto kTable = [](const auto& kernels) { return kernels.rnn; };
};

template <class S, class Layer>
const RecurrentKernels<S>& recurrent_kernels(bool bf16) {
  if constexpr (std::is_same_v<S, float>) {
    if (bf16) return *Layer::kTable(instruction_set().bf16);
  }
  return *Layer::kTable(kernels<S>());
}

// The arguments of a forward call; the arrays stay alive with it.
struct RecurrentInputs {
  RecurrentSizes sizes;
  bool time_major;
  bool bf16;  // float32 alone has it
  py::array xs;
  OptionalArray Wx, Wh, b, h0, c0, mask;  // Wh: unless the weights are prepared
  void* prepared = nullptr;               // packed weights, which outlive the call

  // A cell is a sequence of one step, whose arrays have no axis of steps.
  bool is_cell() const { return xs.ndim() == 2; }

  // A result (N, T, K), in memory (T, N, K) with time_major; of a cell (N, K).
  template <class S>
  py::array new_sequence(Index K) const {
    constexpr Index kBytes = sizeof(S);
    if (is_cell()) return new_array<S>({sizes.N, K});
    if (!time_major) return new_array<S>({sizes.N, sizes.T, K});
    return new_array<S>({sizes.N, sizes.T, K}, {K * kBytes, sizes.N * K * kBytes, kBytes});
  }
};

// A sequence's array (N, T, K), or a cell's (N, K).
template <class S>
Sequence<const S> sequence(const OptionalArray& array) {
  if (!array) return {};
  constexpr Index kBytes = sizeof(S);
  return {pointer<S>(*array), array->strides(0) / kBytes, array->ndim() == 3 ? array->strides(1) / kBytes : 0};
}
template <class S>
Sequence<S> writable_sequence(OptionalArray& array) {
  if (!array) return {};
  const Sequence<const S> read = sequence<S>(array);
  return {writable<S>(*array), read.row, read.step};
}

template <class S>
Weights<S> weights(const OptionalArray& array) {
  if (!array) return {};
  if (array->flags() & py::array::c_style) return {pointer<S>(*array), array->shape(array->ndim() - 1), 1};
  return {pointer<S>(*array), 1, array->shape(0)};
}

// A gradient lies in memory as its weight does, so that an update reads both in one order.
template <class S>
py::array new_gradient(const py::array& weight) {
  const Index rows = weight.shape(0), columns = weight.shape(1);
  constexpr Index kBytes = sizeof(S);
  if (weight.flags() & py::array::c_style) return new_array<S>({rows, columns});
  return new_array<S>({rows, columns}, {kBytes, rows * kBytes});
}

// A result of a backward call, if it is wanted: in the caller's array, or in a new one.
struct Result {
  OptionalArray array;
  bool given = false;

  template <class S>
  S* data() {
    return array ? writable<S>(*array) : nullptr;
  }
};

// Names of results as Python has them, made once: to make and look up six takes longer than the smallest call.
struct Names {
  static PyObject* make(const char* name) { return PyUnicode_InternFromString(name); }
  PyObject *dxs = make("dxs"), *dx = make("dx"), *dWx = make("dWx"), *dWh = make("dWh"), *db = make("db"),
           *dh0 = make("dh0"), *dh_prev = make("dh_prev"), *dc0 = make("dc0"), *dc_prev = make("dc_prev");
};
const Names& names() {
  static const Names made;
  return made;
}

// The fields of fastlstm.contract.Destination.
struct Destination {
  const py::dict& arrays;
  bool accumulate;
  const py::tuple& without;

  template <class New>
  Result result(PyObject* name, const New& make) const {
    if (PySequence_Contains(without.ptr(), name) == 1) return {};
    PyObject* const given = PyDict_GetItem(arrays.ptr(), name);
    if (given == nullptr || given == Py_None) return {make()};
    return {py::reinterpret_borrow<py::array>(given), true};
  }

  template <class S>
  WeightResult<S> weights(Result& result) const {
    if (!result.array) return {};
    const Weights<S> layout = fastlstm::weights<S>(result.array);
    return {result.data<S>(), layout.row, layout.column, accumulate && result.given};
  }
};

template <class S, class Layer>
class Tape {
 public:
  Tape(RecurrentInputs inputs, bool keep)
      : inputs_(std::move(inputs)),
        keep_(keep),
        slots_(keep ? inputs_.sizes.T + 1 : 2),
        kernels_(recurrent_kernels<S, Layer>(inputs_.bf16)) {
    RecurrentSizes& s = inputs_.sizes;
    s.keeps_gates = keep && Layer::kKeepsGates;
    if (s.keeps_gates) gates_ = Array<S>(Layer::kLayout.gate_buffer(s.T * s.N, s.H));
    h_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
    if (Layer::kHasCellState) c_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
  }

  // Without the GIL. The outputs may be null.
  void forward(const Sequence<S>& hs, S* h_n, S* c_n) {
    const RecurrentSizes s = sizes_now();
    const Array<S> workspace(workspace_size(s));
    const auto run = inputs_.prepared ? kernels_.prepared_forward : kernels_.forward;
    run({.sizes = s,
         .xs = sequence<S>(inputs_.xs),
         .Wx = weights<S>(inputs_.Wx),
         .Wh = weights<S>(inputs_.Wh),
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
         .prepared = static_cast<S*>(inputs_.prepared),
         .workspace = workspace.data()});
  }

  // dxs, dWx, dWh, db, dh0, dc0, those that are wanted.
  py::tuple backward(const OptionalArray& dhs, const OptionalArray& dh_n, const OptionalArray& dc_n,
                     const py::dict& arrays, bool accumulate, const py::tuple& without) {
    const RecurrentSizes s = sizes_now();
    const Index G = Layer::kGates * s.H;
    const bool cell = inputs_.is_cell();
    const Destination into{arrays, accumulate, without};
    const auto state = [&] { return new_array<S>({s.N, s.H}); };
    Result dxs = into.result(cell ? names().dx : names().dxs,
                             [&] { return inputs_.new_sequence<S>(inputs_.xs.shape(inputs_.xs.ndim() - 1)); });
    Result dWx = inputs_.Wx ? into.result(names().dWx, [&] { return new_gradient<S>(*inputs_.Wx); }) : Result{};
    Result dWh = into.result(names().dWh, [&] { return new_gradient<S>(*inputs_.Wh); });
    Result db;
    if (inputs_.b)
      db = into.result(names().db, [&] { return s.reset_after ? new_array<S>({2, G}) : new_array<S>({G}); });
    Result dh0 = into.result(cell ? names().dh_prev : names().dh0, state);
    Result dc0 = Layer::kHasCellState ? into.result(cell ? names().dc_prev : names().dc0, state) : Result{};
    RecurrentBackward<S> args{.sizes = s,
                              .xs = sequence<S>(inputs_.xs),
                              .Wx = weights<S>(inputs_.Wx),
                              .Wh = weights<S>(inputs_.Wh),
                              .mask = pointer<bool>(inputs_.mask),
                              .dhs = sequence<S>(dhs),
                              .dh_n = pointer<S>(dh_n),
                              .dc_n = pointer<S>(dc_n),
                              .gates = nullptr,
                              .h = h_.data(),
                              .c = c_.data(),
                              .dxs = writable_sequence<S>(dxs.array),
                              .dWx = into.weights<S>(dWx),
                              .dWh = into.weights<S>(dWh),
                              .db = into.weights<S>(db),
                              .dh0 = dh0.data<S>(),
                              .dc0 = dc0.data<S>(),
                              .workspace = nullptr};
    {
      const WithoutGil released;
      const std::lock_guard lock(lock_);
      Array<S> gate_gradients;
      if constexpr (Layer::kKeepsGates) {
        // The gates' gradients take the gates' place; a second call computes the gates again.
        if (gates_consumed_) forward({}, nullptr, nullptr);
        gates_consumed_ = true;
        args.gates = gates_.data();
      } else {
        gate_gradients = Array<S>(Layer::kLayout.gate_buffer(s.T * s.N, s.H));
        args.gates = gate_gradients.data();
      }
      const Array<S> workspace(workspace_size(s));
      args.workspace = workspace.data();
      kernels_.backward(args);
    }
    return py::make_tuple(dxs.array, dWx.array, dWh.array, db.array, dh0.array, dc0.array);
  }

 private:
  // One size for both passes: the pool hands the memory of the first to the second.
  Index workspace_size(const RecurrentSizes& sizes) const {
    if (inputs_.prepared) return kernels_.prepared_workspace(sizes);
    const Index forward = kernels_.forward_workspace(sizes);
    return keep_ ? std::max(forward, kernels_.backward_workspace(sizes)) : forward;
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
  const RecurrentKernels<S>& kernels_;
  Array<S> gates_, h_, c_;
  bool gates_consumed_ = false;  // set before they are, so that it holds in a child forked meanwhile too
  ProcessLock lock_;
};

template <class S, class Layer>
py::tuple recurrent_forward_of(RecurrentInputs inputs, bool training) {
  const RecurrentSizes s = inputs.sizes;
  OptionalArray hs;
  if (!inputs.is_cell()) hs = inputs.new_sequence<S>(s.H);
  py::array h_n = new_array<S>({s.N, s.H});
  OptionalArray c_n;
  if (Layer::kHasCellState) c_n = new_array<S>({s.N, s.H});
  const Sequence<S> hs_place = writable_sequence<S>(hs);
  S* const h_n_data = writable<S>(h_n);
  S* const c_n_data = c_n ? writable<S>(*c_n) : nullptr;
  auto tape = std::make_unique<Tape<S, Layer>>(std::move(inputs), training);
  {
    const WithoutGil released;
    tape->forward(hs_place, h_n_data, c_n_data);
  }
  const py::object kept = training ? py::cast(std::move(tape)) : py::none();
  if constexpr (Layer::kHasCellState) return py::make_tuple(hs, h_n, c_n, kept);
  return py::make_tuple(hs, h_n, kept);
}

template <class Layer>
void place_gates(RecurrentSizes& sizes, const std::string& gate_order) {
  for (std::size_t gate = 0; gate < gate_order.size(); ++gate) {
    sizes.gate_position[gate] = static_cast<int>(gate_order.find(Layer::kGateOrder[gate]));
  }
}

// inputs.sizes: what the layers have apart from each other; the rest is filled in.
template <class Layer>
py::tuple recurrent_forward(RecurrentInputs inputs, const std::string& gate_order, bool training) {
  RecurrentSizes& sizes = inputs.sizes;
  sizes.N = inputs.xs.shape(0);
  sizes.T = inputs.is_cell() ? 1 : inputs.xs.shape(1);
  sizes.D = inputs.Wx ? inputs.Wx->shape(0) : 0;
  sizes.H = inputs.Wh->shape(0);
  sizes.masked = inputs.mask.has_value();
  place_gates<Layer>(sizes, gate_order);
  return with_float_type(inputs.xs,
                         [&]<class S>() { return recurrent_forward_of<S, Layer>(std::move(inputs), training); });
}

py::tuple lstm_forward(const py::array& xs, const OptionalArray& Wx, const py::array& Wh, const OptionalArray& b,
                       const OptionalArray& h0, const OptionalArray& c0, const OptionalArray& mask, bool reverse,
                       bool time_major, const std::string& gate_order, bool hard_sigmoid, bool training, bool bf16) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  sizes.activation = hard_sigmoid ? RecurrentActivation::kHardSigmoid : RecurrentActivation::kSigmoid;
  return recurrent_forward<Lstm>({sizes, time_major, bf16, xs, Wx, Wh, b, h0, c0, mask}, gate_order, training);
}

py::tuple gru_forward(const py::array& xs, const OptionalArray& Wx, const py::array& Wh, const OptionalArray& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, bool time_major,
                      const std::string& gate_order, bool reset_after, bool z_keeps, bool training, bool bf16) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  sizes.reset_after = reset_after;
  sizes.z_keeps = z_keeps;
  return recurrent_forward<Gru>({sizes, time_major, bf16, xs, Wx, Wh, b, h0, {}, mask}, gate_order, training);
}

py::tuple rnn_forward(const py::array& xs, const OptionalArray& Wx, const py::array& Wh, const OptionalArray& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, bool time_major, bool training,
                      bool bf16) {
  RecurrentSizes sizes{};
  sizes.reverse = reverse;
  return recurrent_forward<Rnn>({sizes, time_major, bf16, xs, Wx, Wh, b, h0, {}, mask}, "", training);
}

// Weights as forward calls without training read them.
template <class S, class Layer>
class PreparedWeights {
 public:
  // sizes: what the layers have apart from each other, and the places of the gates.
  PreparedWeights(RecurrentSizes sizes, const OptionalArray& Wx, const OptionalArray& Wh, const OptionalArray& b,
                  bool bf16)
      : sizes_(sizes), bf16_(bf16) {
    sizes_.prepared = true;
    sizes_.D = Wx ? Wx->shape(0) : 0;
    sizes_.H = Wh->shape(0);
    const RecurrentKernels<S>& kernels = recurrent_kernels<S, Layer>(bf16);
    packed_ = Array<S>(kernels.prepared_size(sizes_));
    RecurrentForward<S> args{};
    args.sizes = sizes_;
    args.Wx = weights<S>(Wx);
    args.Wh = weights<S>(Wh);
    args.b = pointer<S>(b);
    args.prepared = args.workspace = packed_.data();
    const WithoutGil released;
    kernels.prepare(args);
  }

  // As lstm_forward and its sisters, without a tape.
  py::tuple forward(const py::array& xs, const OptionalArray& h0, const OptionalArray& c0, const OptionalArray& mask,
                    bool reverse, bool time_major, bool hard_sigmoid) const {
    RecurrentInputs inputs{sizes_, time_major, bf16_, xs, {}, {}, {}, h0, c0, mask, packed_.data()};
    inputs.sizes.N = xs.shape(0);
    inputs.sizes.T = xs.shape(1);
    inputs.sizes.reverse = reverse;
    inputs.sizes.activation = hard_sigmoid ? RecurrentActivation::kHardSigmoid : RecurrentActivation::kSigmoid;
    return recurrent_forward_of<S, Layer>(std::move(inputs), false);
  }

 private:
  RecurrentSizes sizes_;
  bool bf16_;
  Array<S> packed_;
};

template <class Layer>
py::object prepare(RecurrentSizes sizes, const OptionalArray& Wx, const OptionalArray& Wh, const OptionalArray& b,
                   const std::string& gate_order, bool bf16) {
  place_gates<Layer>(sizes, gate_order);
  return with_float_type(*Wh, [&]<class S>() -> py::object {
    return py::cast(std::make_unique<PreparedWeights<S, Layer>>(sizes, Wx, Wh, b, bf16));
  });
}

py::object prepare_lstm(const OptionalArray& Wx, const OptionalArray& Wh, const OptionalArray& b,
                        const std::string& gate_order, bool bf16) {
  return prepare<Lstm>({}, Wx, Wh, b, gate_order, bf16);
}

py::object prepare_gru(const OptionalArray& Wx, const OptionalArray& Wh, const OptionalArray& b,
                       const std::string& gate_order, bool reset_after, bool z_keeps, bool bf16) {
  RecurrentSizes sizes{};
  sizes.reset_after = reset_after;
  sizes.z_keeps = z_keeps;
  return prepare<Gru>(sizes, Wx, Wh, b, gate_order, bf16);
}

py::object prepare_rnn(const OptionalArray& Wx, const OptionalArray& Wh, const OptionalArray& b, bool bf16) {
  return prepare<Rnn>({}, Wx, Wh, b, "", bf16);
}

template <class S>
void bind_tapes(py::module_& module, const std::string& suffix) {
  const auto bind = [&]<class Layer>(const Layer&, const std::string& name) {
    using LayerTape = Tape<S, Layer>;
    py::class_<LayerTape>(module, (name + "Tape" + suffix).c_str())
        .def("backward", &LayerTape::backward, py::arg("dhs"), py::arg("dh_n"), py::arg("dc_n"), py::arg("arrays"),
             py::arg("accumulate"), py::arg("without"));
    using LayerWeights = PreparedWeights<S, Layer>;
    py::class_<LayerWeights>(module, (name + "Weights" + suffix).c_str())
        .def("forward", &LayerWeights::forward, py::arg("xs"), py::arg("h0"), py::arg("c0"), py::arg("mask"),
             py::arg("reverse"), py::arg("time_major"), py::arg("hard_sigmoid"));
  };
  bind(Lstm{}, "Lstm");
  bind(Gru{}, "Gru");
  bind(Rnn{}, "Rnn");
}

}  // namespace

void bind_recurrent(py::module_& module) {
  bind_tapes<float>(module, "Float32");
  bind_tapes<double>(module, "Float64");
  module.def("lstm_forward", &lstm_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("c0"), py::arg("mask"), py::arg("reverse"), py::arg("time_major"), py::arg("gate_order"),
             py::arg("hard_sigmoid"), py::arg("training"), py::arg("bf16"));
  module.def("gru_forward", &gru_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("mask"), py::arg("reverse"), py::arg("time_major"), py::arg("gate_order"), py::arg("reset_after"),
             py::arg("z_keeps"), py::arg("training"), py::arg("bf16"));
  module.def("rnn_forward", &rnn_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("mask"), py::arg("reverse"), py::arg("time_major"), py::arg("training"), py::arg("bf16"));
  module.def("prepare_lstm", &prepare_lstm, py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("gate_order"),
             py::arg("bf16"));
  module.def("prepare_gru", &prepare_gru, py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("gate_order"),
             py::arg("reset_after"), py::arg("z_keeps"), py::arg("bf16"));
  module.def("prepare_rnn", &prepare_rnn, py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("bf16"));
}

}  // namespace fastlstm
