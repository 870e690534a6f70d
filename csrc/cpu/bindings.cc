// The Python module _cpu. The only file that sees Python: it takes apart what fastlstm.backends.cpp passes (checked
// before by fastlstm.ops), makes the result arrays and tapes, and calls the kernels without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "candidates.h"
#include "kernels.h"
#include "pairs.h"
#include "row_groups.h"
#include "threads.h"
#include "workspace.h"

namespace py = pybind11;

namespace fastlstm {
namespace {

using OptionalArray = std::optional<py::array>;

template <class S>
const S* pointer(const py::array& array) {
  return static_cast<const S*>(array.data());
}
template <class S>
const S* pointer(const OptionalArray& array) {
  return array ? pointer<S>(*array) : nullptr;
}
template <class S>
S* writable(py::array& array) {
  return static_cast<S*>(array.mutable_data());
}

// A result array. Large ones come from the workspace pool and return to it when Python lets go of them: fresh memory
// costs a page fault every 4 KB.
template <class S>
py::array new_array(const std::vector<Index>& shape) {
  constexpr Index kLarge = 64 * 1024;
  Index bytes = sizeof(S);
  for (const Index length : shape) bytes *= length;
  if (bytes < kLarge) return py::array_t<S>(shape);
  Buffer buffer = take_buffer(static_cast<std::size_t>(bytes));
  const py::capsule owner(buffer.get(), [](void* memory) { ReleaseBuffer{}(memory); });
  void* const memory = buffer.release();
  return py::array_t<S>(shape, static_cast<const S*>(memory), owner);
}

// Calls body<float>() or body<double>(), as the array's elements are.
template <class Body>
auto with_float_type(const py::array& array, const Body& body) {
  return array.itemsize() == sizeof(float) ? body.template operator()<float>() : body.template operator()<double>();
}

template <class Body>
auto with_id_type(const py::array& ids, const Body& body) {
  return ids.itemsize() == sizeof(std::int32_t) ? body.template operator()<std::int32_t>()
                                                : body.template operator()<std::int64_t>();
}

template <class S, class Id>
const EmbeddingKernels<S, Id>& embedding_kernels() {
  if constexpr (std::is_same_v<Id, std::int32_t>) {
    return *kernels<S>().embedding_int32;
  } else {
    return *kernels<S>().embedding_int64;
  }
}

template <class S, class Id>
const LossKernels<S, Id>& loss_kernels() {
  if constexpr (std::is_same_v<Id, std::int32_t>) {
    return *kernels<S>().loss_int32;
  } else {
    return *kernels<S>().loss_int64;
  }
}

// ---- Recurrent layers ----------------------------------------------------------------------------------------------

struct Lstm {
  static constexpr BlockLayout kLayout = kLstmLayout;
  static constexpr bool kHasCellState = true;
  static constexpr bool kKeepsGates = true;
  template <class S>
  static const RecurrentKernels<S>& table() {
    return *kernels<S>().lstm;
  }
};

struct Rnn {
  static constexpr BlockLayout kLayout = kRnnLayout;
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
  Tape(RecurrentInputs inputs, bool keep) : inputs_(std::move(inputs)), slots_(keep ? inputs_.sizes.T + 1 : 2) {
    const RecurrentSizes& s = inputs_.sizes;
    if (keep && Layer::kKeepsGates) gates_ = Array<S>(Layer::kLayout.gate_buffer(s.T * s.N, s.H));
    h_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
    if (Layer::kHasCellState) c_ = Array<S>(Layer::kLayout.state_buffer(slots_ * s.N, s.H));
  }

  // Without the GIL. The outputs may be null.
  void forward(S* hs, S* h_n, S* c_n) {
    const RecurrentSizes s = sizes_now();
    const Array<S> workspace(Layer::template table<S>().forward_workspace(s));
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
    const Index G = Layer::kLayout.gates * s.H;
    py::array dxs = new_array<S>({s.N, s.T, s.D});
    py::array dWx = new_array<S>({s.D, G});
    py::array dWh = new_array<S>({s.H, G});
    py::array db = new_array<S>({G});
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
      const py::gil_scoped_release release;
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
      const Array<S> workspace(Layer::template table<S>().backward_workspace(s));
      args.workspace = workspace.data();
      Layer::template table<S>().backward(args);
    }
    if constexpr (Layer::kHasCellState) return py::make_tuple(dxs, dWx, dWh, db, dh0, dc0);
    return py::make_tuple(dxs, dWx, dWh, db, dh0);
  }

 private:
  // The number of threads may change between a tape's calls, but not between the size of a workspace and its use.
  RecurrentSizes sizes_now() const {
    RecurrentSizes sizes = inputs_.sizes;
    sizes.threads = num_threads();
    return sizes;
  }

  RecurrentInputs inputs_;
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
    const py::gil_scoped_release release;
    tape->forward(hs_data, h_n_data, c_n_data);
  }
  const py::object kept = training ? py::cast(std::move(tape)) : py::none();
  if constexpr (Layer::kHasCellState) return py::make_tuple(hs, h_n, c_n, kept);
  return py::make_tuple(hs, h_n, kept);
}

template <class Layer>
py::tuple recurrent_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                            const OptionalArray& h0, const OptionalArray& c0, const OptionalArray& mask, bool reverse,
                            const std::string& gate_order, bool hard_sigmoid, bool training) {
  RecurrentSizes sizes{.N = xs.shape(0),
                       .T = xs.shape(1),
                       .D = xs.shape(2),
                       .H = Wh.shape(0),
                       .reverse = reverse,
                       .gate_position = {},
                       .activation = hard_sigmoid ? RecurrentActivation::kHardSigmoid : RecurrentActivation::kSigmoid,
                       .threads = 1};
  for (std::size_t gate = 0; gate < gate_order.size(); ++gate) {
    sizes.gate_position[gate] = static_cast<int>(gate_order.find("ifgo"[gate]));
  }
  RecurrentInputs inputs{sizes, xs, Wx, Wh, b, h0, c0, mask};
  return with_float_type(xs, [&]<class S>() { return recurrent_forward_of<S, Layer>(std::move(inputs), training); });
}

py::tuple lstm_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                       const OptionalArray& h0, const OptionalArray& c0, const OptionalArray& mask, bool reverse,
                       const std::string& gate_order, bool hard_sigmoid, bool training) {
  return recurrent_forward<Lstm>(xs, Wx, Wh, b, h0, c0, mask, reverse, gate_order, hard_sigmoid, training);
}

py::tuple rnn_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, bool training) {
  return recurrent_forward<Rnn>(xs, Wx, Wh, b, h0, std::nullopt, mask, reverse, "", false, training);
}

// ---- GRU -----------------------------------------------------------------------------------------------------------

// The arguments of a forward call; the arrays stay alive with it.
struct GruInputs {
  GruSizes sizes;
  py::array xs, Wx, Wh, b;
  OptionalArray h0, mask;
};

template <class S>
class GruTape {
 public:
  GruTape(GruInputs inputs, bool keep) : inputs_(std::move(inputs)), keep_(keep) {
    const GruSizes& s = inputs_.sizes;
    planes_ = Array<S>(kGruPlanes * kGruLayout.state_buffer((keep ? s.T : 1) * s.N, s.H));
    h_ = Array<S>(kGruLayout.state_buffer((keep ? s.T + 1 : 2) * s.N, s.H));
  }

  // Without the GIL. The outputs may be null.
  void forward(S* hs, S* h_n) {
    const GruSizes& s = inputs_.sizes;
    const Array<S> workspace(kernels<S>().gru->forward_workspace(s));
    kernels<S>().gru->forward({.sizes = s,
                               .xs = pointer<S>(inputs_.xs),
                               .Wx = pointer<S>(inputs_.Wx),
                               .Wh = pointer<S>(inputs_.Wh),
                               .b = pointer<S>(inputs_.b),
                               .h0 = pointer<S>(inputs_.h0),
                               .mask = pointer<bool>(inputs_.mask),
                               .hs = hs,
                               .h_n = h_n,
                               .keep = keep_,
                               .planes = planes_.data(),
                               .h = h_.data(),
                               .workspace = workspace.data()});
  }

  py::tuple backward(const OptionalArray& dhs, const OptionalArray& dh_n) {
    const GruSizes& s = inputs_.sizes;
    const Index G = 3 * s.H;
    py::array dxs = new_array<S>({s.N, s.T, s.D});
    py::array dWx = new_array<S>({s.D, G});
    py::array dWh = new_array<S>({s.H, G});
    py::array db = s.reset_after ? new_array<S>({2, G}) : new_array<S>({G});
    py::array dh0 = new_array<S>({s.N, s.H});
    GruBackward<S> args{.sizes = s,
                        .xs = pointer<S>(inputs_.xs),
                        .Wx = pointer<S>(inputs_.Wx),
                        .Wh = pointer<S>(inputs_.Wh),
                        .mask = pointer<bool>(inputs_.mask),
                        .dhs = pointer<S>(dhs),
                        .dh_n = pointer<S>(dh_n),
                        .planes = planes_.data(),
                        .h = h_.data(),
                        .dxs = writable<S>(dxs),
                        .dWx = writable<S>(dWx),
                        .dWh = writable<S>(dWh),
                        .db = writable<S>(db),
                        .dh0 = writable<S>(dh0),
                        .workspace = nullptr};
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      // The gradients take the activations' place; a second call computes those again.
      if (consumed_) forward(nullptr, nullptr);
      consumed_ = true;
      const Array<S> workspace(kernels<S>().gru->backward_workspace(s));
      args.workspace = workspace.data();
      kernels<S>().gru->backward(args);
    }
    return py::make_tuple(dxs, dWx, dWh, db, dh0);
  }

 private:
  GruInputs inputs_;
  bool keep_;
  Array<S> planes_, h_;
  bool consumed_ = false;
  std::mutex mutex_;
};

py::tuple gru_forward(const py::array& xs, const py::array& Wx, const py::array& Wh, const py::array& b,
                      const OptionalArray& h0, const OptionalArray& mask, bool reverse, const std::string& gate_order,
                      bool reset_after, bool z_keeps, bool training) {
  GruSizes sizes{.N = xs.shape(0),
                 .T = xs.shape(1),
                 .D = xs.shape(2),
                 .H = Wh.shape(0),
                 .reverse = reverse,
                 .gate_position = {},
                 .reset_after = reset_after,
                 .z_keeps = z_keeps};
  for (std::size_t gate = 0; gate < gate_order.size(); ++gate) {
    sizes.gate_position[gate] = static_cast<int>(gate_order.find("zrn"[gate]));
  }
  GruInputs inputs{sizes, xs, Wx, Wh, b, h0, mask};
  return with_float_type(xs, [&]<class S>() {
    py::array hs = new_array<S>({sizes.N, sizes.T, sizes.H});
    py::array h_n = new_array<S>({sizes.N, sizes.H});
    S* const hs_data = writable<S>(hs);
    S* const h_n_data = writable<S>(h_n);
    auto tape = std::make_unique<GruTape<S>>(std::move(inputs), training);
    {
      const py::gil_scoped_release release;
      tape->forward(hs_data, h_n_data);
    }
    return py::make_tuple(hs, h_n, training ? py::cast(std::move(tape)) : py::none());
  });
}

template <class S>
void bind_tapes(py::module_& module, const std::string& suffix) {
  using LstmTape = Tape<S, Lstm>;
  using RnnTape = Tape<S, Rnn>;
  py::class_<LstmTape>(module, ("LstmTape" + suffix).c_str())
      .def("backward", &LstmTape::backward, py::arg("dhs"), py::arg("dh_n"), py::arg("dc_n"));
  py::class_<RnnTape>(module, ("RnnTape" + suffix).c_str())
      .def(
          "backward",
          [](RnnTape& tape, const OptionalArray& dhs, const OptionalArray& dh_n) {
            return tape.backward(dhs, dh_n, std::nullopt);
          },
          py::arg("dhs"), py::arg("dh_n"));
  py::class_<GruTape<S>>(module, ("GruTape" + suffix).c_str())
      .def("backward", &GruTape<S>::backward, py::arg("dhs"), py::arg("dh_n"));
}

// ---- Embedding -----------------------------------------------------------------------------------------------------

py::array embedding_forward(const py::array& W, const py::array& ids) {
  const Index M = ids.shape(0), E = W.shape(1);
  return with_float_type(W, [&]<class S>() {
    py::array out = new_array<S>({M, E});
    S* const out_data = writable<S>(out);
    with_id_type(ids, [&]<class Id>() {
      const py::gil_scoped_release release;
      embedding_kernels<S, Id>().gather(pointer<S>(W), pointer<Id>(ids), M, E, out_data);
    });
    return out;
  });
}

// target[ids[m]] += rows[m]; with clear, target is zeroed first; rows of the id skip (-1: none) are left out.
void scatter_add(py::array target, const py::array& ids, const py::array& rows, bool clear, Index skip) {
  const Index V = target.shape(0), E = target.shape(1), M = ids.shape(0);
  with_float_type(target, [&]<class S>() {
    S* const data = writable<S>(target);
    with_id_type(ids, [&]<class Id>() {
      const py::gil_scoped_release release;
      embedding_kernels<S, Id>().scatter_add(data, V, pointer<Id>(ids), pointer<S>(rows), M, E, clear, skip);
    });
  });
}

void clear_rows(py::array target, const py::array& ids) {
  const Index E = target.shape(1), M = ids.shape(0);
  with_float_type(target, [&]<class S>() {
    S* const data = writable<S>(target);
    with_id_type(ids, [&]<class Id>() {
      const py::gil_scoped_release release;
      embedding_kernels<S, Id>().clear_rows(data, pointer<Id>(ids), M, E);
    });
  });
}

// Rows grouped by id, ids ascending.
template <class Id>
class RowGroups {
 public:
  RowGroups(const Id* ids, Index M) : order_(M), starts_(M + 1) {
    const Array<Index> work(M);
    const py::gil_scoped_release release;
    count_ = group_rows(ids, M, order_.data(), starts_.data(), work.data());
  }

  const Index* order() const { return order_.data(); }
  const Index* starts() const { return starts_.data(); }
  Index count() const { return count_; }
  py::array unique(const Id* ids) const {
    py::array indices = new_array<Id>({count_});
    Id* const out = writable<Id>(indices);
    for (Index u = 0; u < count_; ++u) out[u] = ids[order()[starts()[u]]];
    return indices;
  }

 private:
  Array<Index> order_, starts_;
  Index count_ = 0;
};

py::tuple embedding_backward_rows(const py::array& ids, const py::array& dout) {
  const Index E = dout.shape(1);
  return with_id_type(ids, [&]<class Id>() {
    const RowGroups groups(pointer<Id>(ids), ids.shape(0));
    const py::array indices = groups.unique(pointer<Id>(ids));
    return with_float_type(dout, [&]<class S>() {
      py::array values = new_array<S>({groups.count(), E});
      S* const out = writable<S>(values);
      {
        const py::gil_scoped_release release;
        embedding_kernels<S, Id>().sum_segments(pointer<S>(dout), groups.order(), groups.starts(), groups.count(), E,
                                                out);
      }
      return py::make_tuple(indices, values);
    });
  });
}

// ---- Losses --------------------------------------------------------------------------------------------------------

template <class Id>
Index count_targets(const Id* targets, Index M, Id ignore_index) {
  Index count = 0;
  for (Index m = 0; m < M; ++m) count += targets[m] != ignore_index;
  return count;
}

// The mean over the targets that count, 0 if there are none; ignored rows have loss 0.
double mean_loss(const double* losses, Index M, Index counted) {
  double sum = 0;
  for (Index m = 0; m < M; ++m) sum += losses[m];
  return counted ? sum / static_cast<double>(counted) : 0.0;
}

template <class S>
S scale_of(Index counted) {
  return counted ? S{1} / static_cast<S>(counted) : S{0};
}

py::tuple softmax_cross_entropy(const py::array& logits, const py::array& targets, std::int64_t ignore_index) {
  const Index M = logits.shape(0), V = logits.shape(1);
  return with_float_type(logits, [&]<class S>() {
    py::array dlogits = new_array<S>({M, V});
    S* const out = writable<S>(dlogits);
    const double loss = with_id_type(targets, [&]<class Id>() {
      const py::gil_scoped_release release;
      const Id* const ids = pointer<Id>(targets);
      const Id ignored = static_cast<Id>(ignore_index);
      const Index counted = count_targets(ids, M, ignored);
      const Array<double> losses(M);
      loss_kernels<S, Id>().softmax_cross_entropy(pointer<S>(logits), ids, M, V, ignored, scale_of<S>(counted),
                                                  losses.data(), out);
      return mean_loss(losses.data(), M, counted);
    });
    return py::make_tuple(loss, dlogits);
  });
}

// The rows of h whose targets count, side by side; the others are never read. Without ignored targets h is used as it
// is.
template <class S>
class CountedRows {
 public:
  CountedRows(const S* h, const std::int64_t* targets, Index M, Index H, std::int64_t ignore_index)
      : M_(M), H_(H), count_(count_targets(targets, M, ignore_index)), h_(h), targets_(targets) {
    if (count_ == M) return;
    places_ = Array<Index>(count_);
    h_copy_ = Array<S>(count_ * H);
    dh_copy_ = Array<S>(count_ * H);
    targets_copy_ = Array<std::int64_t>(count_);
    for (Index m = 0, k = 0; m < M; ++m) {
      if (targets[m] == ignore_index) continue;
      places_.data()[k] = m;
      targets_copy_.data()[k] = targets[m];
      std::copy_n(h + m * H, H, h_copy_.data() + k++ * H);
    }
    h_ = h_copy_.data();
    targets_ = targets_copy_.data();
  }

  Index count() const { return count_; }
  const S* h() const { return h_; }
  const std::int64_t* targets() const { return targets_; }

  // Where the kernel writes the gradients of the counted rows, and from there to their places among zeros.
  S* dh_or(S* dh) const { return dh_copy_ ? dh_copy_.data() : dh; }
  void spread_dh(S* dh) const {
    if (!dh_copy_) return;
    std::fill_n(dh, M_ * H_, S{0});
    for (Index k = 0; k < count_; ++k) std::copy_n(dh_copy_.data() + k * H_, H_, dh + places_.data()[k] * H_);
  }

 private:
  Index M_, H_, count_;
  const S* h_;
  const std::int64_t* targets_;
  Array<Index> places_;
  Array<S> h_copy_, dh_copy_;
  Array<std::int64_t> targets_copy_;
};

// block: columns of the logits held at once.
py::tuple linear_cross_entropy(const py::array& h, const py::array& W, const py::array& b, const py::array& targets,
                               std::int64_t ignore_index, Index block) {
  const Index M = h.shape(0), H = h.shape(1), V = W.shape(1);
  const bool transposed = (W.flags() & py::array::c_style) == 0;
  return with_float_type(h, [&]<class S>() {
    py::array dh = new_array<S>({M, H});
    py::array dW = transposed ? new_array<S>({V, H}) : new_array<S>({H, V});
    py::array db = new_array<S>({V});
    S* const dh_data = writable<S>(dh);
    LinearLoss<S> args{.M = 0,
                       .H = H,
                       .V = V,
                       .transposed = transposed,
                       .h = nullptr,
                       .W = pointer<S>(W),
                       .b = pointer<S>(b),
                       .targets = nullptr,
                       .block = block,
                       .threads = num_threads(),
                       .losses = nullptr,
                       .dh = nullptr,
                       .dW = writable<S>(dW),
                       .db = writable<S>(db),
                       .workspace = nullptr};
    double loss = 0;
    {
      const py::gil_scoped_release release;
      const CountedRows<S> rows(pointer<S>(h), pointer<std::int64_t>(targets), M, H, ignore_index);
      args.M = rows.count();
      args.h = rows.h();
      args.targets = rows.targets();
      args.dh = rows.dh_or(dh_data);
      const Array<double> losses(args.M);
      args.losses = losses.data();
      const Array<S> workspace(kernels<S>().linear_loss->workspace(args));
      args.workspace = workspace.data();
      kernels<S>().linear_loss->run(args);
      rows.spread_dh(dh_data);
      loss = mean_loss(losses.data(), args.M, args.M);
    }
    const py::object dW_of_shape = transposed ? py::object(dW.attr("T")) : py::object(dW);
    return py::tuple(py::make_tuple(loss, dh, dW_of_shape, db));
  });
}

// ---- Matrix products -----------------------------------------------------------------------------------------------

// a and b are C-contiguous, as they are or transposed.
void product(const py::array& a, const py::array& b, const OptionalArray& bias, bool a_transposed, bool b_transposed,
             py::array out) {
  with_float_type(a, [&]<class S>() {
    Product<S> args{.M = out.shape(0),
                    .K = a.shape(a_transposed ? 0 : 1),
                    .L = out.shape(1),
                    .a_transposed = a_transposed,
                    .b_transposed = b_transposed,
                    .a = pointer<S>(a),
                    .b = pointer<S>(b),
                    .bias = pointer<S>(bias),
                    .out = writable<S>(out),
                    .threads = num_threads(),
                    .workspace = nullptr};
    const py::gil_scoped_release release;
    const Array<S> workspace(kernels<S>().product->workspace(args));
    args.workspace = workspace.data();
    kernels<S>().product->run(args);
  });
}

// ---- Sampled classes -----------------------------------------------------------------------------------------------

py::array log_uniform_expected_count(const py::array& classes, double log_range, std::int64_t num_tries,
                                     std::int64_t num_sampled) {
  py::array counts = new_array<double>({classes.size()});
  log_uniform_expected_counts(log_range, pointer<std::int64_t>(classes), classes.size(), num_tries, num_sampled,
                              writable<double>(counts));
  return counts;
}

py::array classes_of(const Sample& sample) {
  py::array classes = new_array<std::int64_t>({static_cast<Index>(sample.classes.size())});
  std::copy(sample.classes.begin(), sample.classes.end(), writable<std::int64_t>(classes));
  return classes;
}

py::tuple log_uniform_candidates(std::int64_t num_sampled, std::int64_t range_max, const py::array& true_classes,
                                 bool unique, double log_range, std::uint64_t seed) {
  const Sample sample = [&] {
    const py::gil_scoped_release release;
    return log_uniform_sample(num_sampled, range_max, unique, log_range, seed);
  }();
  const py::array sampled = classes_of(sample);
  return py::make_tuple(sampled, log_uniform_expected_count(true_classes, log_range, sample.num_tries, num_sampled),
                        log_uniform_expected_count(sampled, log_range, sample.num_tries, num_sampled),
                        sample.num_tries);
}

py::tuple unigram_candidates(const py::array& probabilities, const py::array& threshold, const py::array& alias,
                             std::int64_t num_sampled, const py::array& true_classes, bool unique, std::uint64_t seed) {
  const Sample sample = [&] {
    const py::gil_scoped_release release;
    return unigram_sample(pointer<double>(threshold), pointer<std::int64_t>(alias), threshold.shape(0), num_sampled,
                          unique, seed);
  }();
  const auto expected_count = [&](const py::array& classes) {
    py::array counts = new_array<double>({classes.size()});
    unigram_expected_counts(pointer<double>(probabilities), pointer<std::int64_t>(classes), classes.size(),
                            sample.num_tries, num_sampled, writable<double>(counts));
    return counts;
  };
  const py::array sampled = classes_of(sample);
  return py::make_tuple(sampled, expected_count(true_classes), expected_count(sampled), sample.num_tries);
}

py::tuple alias_table_of(const py::array& scaled) {
  const Index V = scaled.shape(0);
  py::array threshold = new_array<double>({V});
  py::array alias = new_array<std::int64_t>({V});
  std::copy_n(pointer<double>(scaled), V, writable<double>(threshold));
  alias_table(writable<double>(threshold), writable<std::int64_t>(alias), V);
  return py::make_tuple(threshold, alias);
}

// The arguments of a forward call and the rows gathered for it.
template <class S>
class SampledTape {
 public:
  SampledTape(const py::array& weights, const OptionalArray& biases, const py::array& labels, const py::array& inputs,
              const py::array& sampled, const OptionalArray& true_expected, const OptionalArray& sampled_expected,
              bool remove_accidental_hits)
      : arrays_(py::make_tuple(weights, biases, labels, inputs, sampled, true_expected, sampled_expected)) {
    args_.B = labels.shape(0);
    args_.K = labels.shape(1);
    args_.sampled_count = sampled.shape(0);
    args_.E = inputs.shape(1);
    args_.weights = pointer<S>(weights);
    args_.biases = pointer<S>(biases);
    args_.labels = pointer<std::int64_t>(labels);
    args_.inputs = pointer<S>(inputs);
    args_.sampled = pointer<std::int64_t>(sampled);
    args_.true_expected = pointer<double>(true_expected);
    args_.sampled_expected = pointer<double>(sampled_expected);
    args_.remove_accidental_hits = remove_accidental_hits;
    workspace_ = Array<S>(kernels<S>().sampled->workspace(args_));
    args_.workspace = workspace_.data();
  }

  py::array forward() {
    py::array logits = new_array<S>({args_.B, args_.K + args_.sampled_count});
    args_.logits = writable<S>(logits);
    const py::gil_scoped_release release;
    kernels<S>().sampled->forward(args_);
    return logits;
  }

  py::tuple backward(const py::array& dlogits) {
    return with_gradients([&](SampledLogits<S> args) {
      args.dlogits = pointer<S>(dlogits);
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      kernels<S>().sampled->backward(args);
    });
  }

  py::tuple loss(SampledLossKind kind) {
    py::array losses = new_array<S>({args_.B});
    S* const out = writable<S>(losses);
    const py::tuple grads = with_gradients([&](SampledLogits<S> args) {
      const py::gil_scoped_release release;
      const Array<S> logits(args.B * (args.K + args.sampled_count));
      args.logits = logits.data();
      kernels<S>().sampled->loss(args, kind, out);
    });
    return py::make_tuple(losses) + grads;
  }

 private:
  // (dinputs, indices, dweights, dbiases or None), filled by compute.
  template <class Compute>
  py::tuple with_gradients(const Compute& compute) const {
    SampledLogits<S> args = args_;
    const Index labels = args.B * args.K, M = labels + args.sampled_count;
    const Array<std::int64_t> ids(M);
    std::copy_n(args.labels, labels, ids.data());
    std::copy_n(args.sampled, args.sampled_count, ids.data() + labels);
    const RowGroups groups(ids.data(), M);
    args.order = groups.order();
    args.starts = groups.starts();
    args.U = groups.count();
    py::array indices = groups.unique(ids.data());
    py::array dinputs = new_array<S>({args.B, args.E});
    py::array dweights = new_array<S>({args.U, args.E});
    OptionalArray dbiases;
    if (args.biases) dbiases = new_array<S>({args.U});
    args.dinputs = writable<S>(dinputs);
    args.dweights = writable<S>(dweights);
    args.dbiases = dbiases ? writable<S>(*dbiases) : nullptr;
    compute(args);
    return py::make_tuple(dinputs, indices, dweights, dbiases);
  }

  py::tuple arrays_;  // keeps them alive
  SampledLogits<S> args_{};
  Array<S> workspace_;
  std::mutex mutex_;
};

py::tuple sampled_logits_forward(const py::array& weights, const OptionalArray& biases, const py::array& labels,
                                 const py::array& inputs, const py::array& sampled, const OptionalArray& true_expected,
                                 const OptionalArray& sampled_expected, bool remove_accidental_hits) {
  return with_float_type(weights, [&]<class S>() {
    auto tape = std::make_unique<SampledTape<S>>(weights, biases, labels, inputs, sampled, true_expected,
                                                 sampled_expected, remove_accidental_hits);
    const py::array logits = tape->forward();
    return py::tuple(py::make_tuple(logits, std::move(tape)));
  });
}

py::tuple sampled_loss(const py::array& weights, const OptionalArray& biases, const py::array& labels,
                       const py::array& inputs, const py::array& sampled, const OptionalArray& true_expected,
                       const OptionalArray& sampled_expected, bool remove_accidental_hits, bool softmax) {
  return with_float_type(weights, [&]<class S>() {
    SampledTape<S> tape(weights, biases, labels, inputs, sampled, true_expected, sampled_expected,
                        remove_accidental_hits);
    return tape.loss(softmax ? SampledLossKind::kSoftmax : SampledLossKind::kSigmoid);
  });
}

// ---- Word vectors --------------------------------------------------------------------------------------------------

py::array subsample_of(const py::array& ids, const py::array& keep, std::uint64_t seed) {
  const Array<std::int64_t> room(ids.size());
  Index count = 0;
  {
    const py::gil_scoped_release release;
    count = subsample(pointer<std::int64_t>(ids), ids.size(), pointer<double>(keep), seed, room.data());
  }
  py::array kept = new_array<std::int64_t>({count});
  std::copy_n(room.data(), count, writable<std::int64_t>(kept));
  return kept;
}

py::array skipgram_counts_of(const py::array& ids, Index window, Index start, Index stop, std::uint64_t seed) {
  py::array counts = new_array<std::int64_t>({stop - start});
  std::int64_t* const out = writable<std::int64_t>(counts);
  const py::gil_scoped_release release;
  skipgram_counts({pointer<std::int64_t>(ids), ids.size(), window, seed}, start, stop, out);
  return counts;
}

py::tuple skipgram_pairs_of(const py::array& ids, Index window, Index start, Index stop, std::uint64_t seed) {
  const Windows text{pointer<std::int64_t>(ids), ids.size(), window, seed};
  Index pairs = 0;
  {
    const py::gil_scoped_release release;
    const Array<std::int64_t> counts(stop - start);
    pairs = skipgram_counts(text, start, stop, counts.data());
  }
  py::array centers = new_array<std::int64_t>({pairs}), contexts = new_array<std::int64_t>({pairs});
  std::int64_t* const centers_out = writable<std::int64_t>(centers);
  std::int64_t* const contexts_out = writable<std::int64_t>(contexts);
  {
    const py::gil_scoped_release release;
    skipgram_pairs(text, start, stop, centers_out, contexts_out);
  }
  return py::make_tuple(centers, contexts);
}

// Returns the sum of the pairs' losses.
double negative_sampling_update(py::array vectors, py::array weights, const py::array& centers,
                                const py::array& contexts, const py::array& threshold, const py::array& alias,
                                Index num_sampled, double lr, std::uint64_t seed) {
  constexpr Index kBlock = 256;  // pairs whose negatives are drawn at once
  const Index M = centers.size(), V = threshold.size();
  return with_float_type(vectors, [&]<class S>() {
    SkipgramUpdate<S> update{.M = 0,
                             .K = num_sampled,
                             .E = vectors.shape(1),
                             .vectors = writable<S>(vectors),
                             .weights = writable<S>(weights),
                             .centers = nullptr,
                             .contexts = nullptr,
                             .negatives = nullptr,
                             .lr = static_cast<S>(lr),
                             .workspace = nullptr};
    const py::gil_scoped_release release;
    const Array<S> workspace(kernels<S>().skipgram->workspace(update));
    const Array<std::int64_t> negatives(kBlock * num_sampled);
    update.workspace = workspace.data();
    update.negatives = negatives.data();
    double loss = 0;
    for (Index m = 0; m < M; m += kBlock) {
      update.M = std::min(kBlock, M - m);
      update.centers = pointer<std::int64_t>(centers) + m;
      update.contexts = pointer<std::int64_t>(contexts) + m;
      unigram_draws(pointer<double>(threshold), pointer<std::int64_t>(alias), V,
                    static_cast<std::uint64_t>(m * num_sampled), update.M * num_sampled, seed, negatives.data());
      loss += kernels<S>().skipgram->update(update);
    }
    return loss;
  });
}

// ---- Optimisers ----------------------------------------------------------------------------------------------------

void optim_update(OptimRule rule, py::array param, const py::array& grad, const OptionalArray& rows, double grad_scale,
                  double lr, std::optional<py::array> first, std::optional<py::array> second, double momentum,
                  double beta2, double eps, double decay) {
  const Index count = rows ? rows->shape(0) : (param.ndim() ? param.shape(0) : 1);
  const Index elements = grad.size();
  with_float_type(param, [&]<class S>() {
    const OptimUpdate<S> update{.rule = rule,
                                .param = writable<S>(param),
                                .grad = pointer<S>(grad),
                                .first = first ? writable<S>(*first) : nullptr,
                                .second = second ? writable<S>(*second) : nullptr,
                                .ids = pointer<std::int64_t>(rows),
                                .rows = count,
                                .width = count ? elements / count : 0,
                                .grad_scale = static_cast<S>(grad_scale),
                                .lr = static_cast<S>(lr),
                                .momentum = static_cast<S>(momentum),
                                .beta2 = static_cast<S>(beta2),
                                .eps = static_cast<S>(eps),
                                .decay = static_cast<S>(decay)};
    const py::gil_scoped_release release;
    kernels<S>().optim->update(update);
  });
}

double squared_norm(const py::array& values) {
  return with_float_type(values, [&]<class S>() {
    const py::gil_scoped_release release;
    return kernels<S>().optim->squared_norm(pointer<S>(values), values.size());
  });
}

void scale(py::array values, double factor) {
  with_float_type(values, [&]<class S>() {
    S* const data = writable<S>(values);
    const Index count = values.size();
    const py::gil_scoped_release release;
    kernels<S>().optim->scale(data, count, static_cast<S>(factor));
  });
}

py::array dropout_mask(const py::array& xs, double ratio, std::uint64_t seed) {
  return with_float_type(xs, [&]<class S>() {
    py::array mask = new_array<S>({xs.shape(), xs.shape() + xs.ndim()});
    S* const data = writable<S>(mask);
    const Index count = mask.size();
    {
      const py::gil_scoped_release release;
      kernels<S>().dropout->mask(data, count, ratio, 1 / (1 - ratio), seed);
    }
    return mask;
  });
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "Compiled CPU kernels. Private: call fastlstm.ops, which checks what these functions trust.";
  // Arguments come by position: for one that comes by name pybind11 makes and looks up strings in every call, which
  // takes longer than the smallest kernels.
  module.def("isa", [] { return std::string(instruction_set().name); });
  module.def("set_num_threads", &set_num_threads, py::arg("threads"));
  module.def("get_num_threads", &num_threads);
  module.def("free_unused_buffers", &free_unused_buffers);
  module.def("buffer_bytes_in_use", &buffer_bytes_in_use);

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

  module.def("embedding_forward", &embedding_forward, py::arg("W"), py::arg("ids"));
  module.def("scatter_add", &scatter_add, py::arg("target"), py::arg("ids"), py::arg("rows"), py::arg("clear"),
             py::arg("skip"));
  module.def("clear_rows", &clear_rows, py::arg("target"), py::arg("ids"));
  module.def("embedding_backward_rows", &embedding_backward_rows, py::arg("ids"), py::arg("dout"));

  module.def("product", &product, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("a_transposed"),
             py::arg("b_transposed"), py::arg("out"));

  module.def("softmax_cross_entropy", &softmax_cross_entropy, py::arg("logits"), py::arg("targets"),
             py::arg("ignore_index"));
  module.def("linear_cross_entropy", &linear_cross_entropy, py::arg("h"), py::arg("W"), py::arg("b"),
             py::arg("targets"), py::arg("ignore_index"), py::arg("block"));

  py::class_<SampledTape<float>>(module, "SampledTapeFloat32")
      .def("backward", &SampledTape<float>::backward, py::arg("dlogits"));
  py::class_<SampledTape<double>>(module, "SampledTapeFloat64")
      .def("backward", &SampledTape<double>::backward, py::arg("dlogits"));
  module.def("log_uniform_candidates", &log_uniform_candidates, py::arg("num_sampled"), py::arg("range_max"),
             py::arg("true_classes"), py::arg("unique"), py::arg("log_range"), py::arg("seed"));
  module.def("log_uniform_expected_count", &log_uniform_expected_count, py::arg("classes"), py::arg("log_range"),
             py::arg("num_tries"), py::arg("num_sampled"));
  module.def("alias_table", &alias_table_of, py::arg("scaled"));
  module.def("unigram_candidates", &unigram_candidates, py::arg("probabilities"), py::arg("threshold"),
             py::arg("alias"), py::arg("num_sampled"), py::arg("true_classes"), py::arg("unique"), py::arg("seed"));
  module.def("sampled_logits_forward", &sampled_logits_forward, py::arg("weights"), py::arg("biases"),
             py::arg("labels"), py::arg("inputs"), py::arg("sampled"), py::arg("true_expected_count"),
             py::arg("sampled_expected_count"), py::arg("remove_accidental_hits"));
  module.def("sampled_loss", &sampled_loss, py::arg("weights"), py::arg("biases"), py::arg("labels"), py::arg("inputs"),
             py::arg("sampled"), py::arg("true_expected_count"), py::arg("sampled_expected_count"),
             py::arg("remove_accidental_hits"), py::arg("softmax"));

  module.def("subsample", &subsample_of, py::arg("ids"), py::arg("keep"), py::arg("seed"));
  module.def("skipgram_counts", &skipgram_counts_of, py::arg("ids"), py::arg("window"), py::arg("start"),
             py::arg("stop"), py::arg("seed"));
  module.def("skipgram_pairs", &skipgram_pairs_of, py::arg("ids"), py::arg("window"), py::arg("start"), py::arg("stop"),
             py::arg("seed"));
  module.def("negative_sampling_update", &negative_sampling_update, py::arg("vectors"), py::arg("weights"),
             py::arg("centers"), py::arg("contexts"), py::arg("threshold"), py::arg("alias"), py::arg("num_sampled"),
             py::arg("lr"), py::arg("seed"));

  py::enum_<OptimRule>(module, "OptimRule")
      .value("SGD", OptimRule::kSgd)
      .value("MOMENTUM", OptimRule::kMomentum)
      .value("NESTEROV", OptimRule::kNesterov)
      .value("ADAGRAD", OptimRule::kAdaGrad)
      .value("RMSPROP", OptimRule::kRmsProp)
      .value("ADAM", OptimRule::kAdam);
  module.def("optim_update", &optim_update, py::arg("rule"), py::arg("param"), py::arg("grad"), py::arg("rows"),
             py::arg("grad_scale"), py::arg("lr"), py::arg("first") = py::none(), py::arg("second") = py::none(),
             py::arg("momentum") = 0.0, py::arg("beta2") = 0.0, py::arg("eps") = 0.0, py::arg("decay") = 0.0);
  module.def("squared_norm", &squared_norm, py::arg("values"));
  module.def("scale", &scale, py::arg("values"), py::arg("factor"));

  module.def("dropout_mask", &dropout_mask, py::arg("xs"), py::kw_only(), py::arg("ratio"), py::arg("seed"));
}

}  // namespace fastlstm
