// The GRU.
#include <memory>
#include <mutex>
#include <string>

#include "../arrays.h"
#include "../bindings.h"
#include "kernels.h"

namespace fastlstm {
namespace {

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
      const WithoutGil released;
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
      const WithoutGil released;
      tape->forward(hs_data, h_n_data);
    }
    return py::make_tuple(hs, h_n, training ? py::cast(std::move(tape)) : py::none());
  });
}

template <class S>
void bind_tape(py::module_& module, const char* name) {
  py::class_<GruTape<S>>(module, name).def("backward", &GruTape<S>::backward, py::arg("dhs"), py::arg("dh_n"));
}

}  // namespace

void bind_gru(py::module_& module) {
  bind_tape<float>(module, "GruTapeFloat32");
  bind_tape<double>(module, "GruTapeFloat64");
  module.def("gru_forward", &gru_forward, py::arg("xs"), py::arg("Wx"), py::arg("Wh"), py::arg("b"), py::arg("h0"),
             py::arg("mask"), py::arg("reverse"), py::arg("gate_order"), py::arg("reset_after"), py::arg("z_keeps"),
             py::arg("training"));
}

}  // namespace fastlstm
