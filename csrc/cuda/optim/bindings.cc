// Optimisers and clipping, for Python.
#include "../bindings.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "optim.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

// Addresses of param, grad, first, second, rows and num_rows (0: not there); bytes of a row number; elements of grad
// and of a row.
using Updated = std::tuple<Address, Address, Address, Address, Address, Address, int, Index, Index>;
// Address and elements.
using Flat = std::tuple<Address, Index>;
// The same, and the address of num_rows (0: not there) and the elements of a row.
using Squared = std::tuple<Address, Index, Address, Index>;

OptimRule rule_named(const std::string& name) {
  static const std::map<std::string, OptimRule> rules{
      {"sgd", OptimRule::kSgd},         {"momentum", OptimRule::kMomentum}, {"nesterov", OptimRule::kNesterov},
      {"adagrad", OptimRule::kAdaGrad}, {"rmsprop", OptimRule::kRmsProp},   {"adam", OptimRule::kAdam},
  };
  const auto found = rules.find(name);
  if (found == rules.end()) throw std::invalid_argument("there is no rule '" + name + "'");
  return found->second;
}

// Calls body(arguments) for all entries, as many at a time as a launch takes; fill(tensor, entry) fills in one.
template <class Arguments, class Entry, class Fill, class Body>
void in_launches(Arguments arguments, const std::vector<Entry>& entries, const Fill& fill, const Body& body) {
  for (std::size_t first = 0; first < entries.size(); first += kMostTensors) {
    arguments.count = static_cast<int>(std::min<std::size_t>(kMostTensors, entries.size() - first));
    for (int i = 0; i < arguments.count; ++i) fill(arguments.tensors[i], entries[first + static_cast<std::size_t>(i)]);
    body(arguments);
  }
}

struct Hyperparameters {
  Scalar<double> lr, grad_scale;
  double correction, momentum, beta2, eps, weight_decay;
  bool eps_inside_root;
  const std::int64_t* step;
};

template <class S>
void update(OptimRule rule, const std::vector<Updated>& tensors, const Hyperparameters& h, cudaStream_t stream) {
  UpdateArguments<S> arguments{};
  arguments.lr = h.lr;
  arguments.grad_scale = h.grad_scale;
  arguments.correction = h.correction;
  arguments.momentum = h.momentum;
  arguments.beta2 = h.beta2;
  arguments.eps = h.eps;
  arguments.weight_decay = h.weight_decay;
  arguments.eps_inside_root = h.eps_inside_root;
  arguments.step = h.step;
  const auto fill = [](UpdatedTensor<S>& tensor, const Updated& entry) {
    const auto& [param, grad, first, second, rows, num_rows, id_bytes, size, width] = entry;
    tensor = {pointer<S>(param),
              pointer<const S>(grad),
              pointer<S>(first),
              pointer<S>(second),
              pointer<const void>(rows),
              pointer<const std::int32_t>(num_rows),
              size,
              width,
              id_bytes,
              0};
  };
  in_launches(arguments, tensors, fill, [&](const auto& a) { launch_update<S>(rule, a, stream); });
}

void optim_update(const std::string& rule, bool float64, const std::vector<Updated>& tensors, double lr, Address lr_at,
                  double grad_scale, Address grad_scale_at, double correction, double momentum, double beta2,
                  double eps, double weight_decay, bool eps_inside_root, Address step_at, int device, Address stream) {
  const OptimRule chosen = rule_named(rule);
  const Hyperparameters hyper{{lr, pointer<const double>(lr_at)},
                              {grad_scale, pointer<const double>(grad_scale_at)},
                              correction,
                              momentum,
                              beta2,
                              eps,
                              weight_decay,
                              eps_inside_root,
                              pointer<const std::int64_t>(step_at)};
  const WithoutGil released;
  const CurrentDevice current(device);
  if (float64) return update<double>(chosen, tensors, hyper, stream_at(stream));
  update<float>(chosen, tensors, hyper, stream_at(stream));
}

template <class S>
void fill_flat(ScaledTensor<S>& tensor, const Flat& entry) {
  tensor = {pointer<S>(std::get<0>(entry)), nullptr, std::get<1>(entry), 1, 0};
}

template <class S>
void scale(const std::vector<Flat>& tensors, Scalar<double> factor, cudaStream_t stream) {
  ScaleArguments<S> arguments{};
  arguments.factor = factor;
  in_launches(arguments, tensors, fill_flat<S>, [&](const auto& a) { launch_scale<S>(a, stream); });
}

void optim_scale(bool float64, const std::vector<Flat>& tensors, double factor, Address factor_at, int device,
                 Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  const Scalar<double> scalar{factor, pointer<const double>(factor_at)};
  if (float64) return scale<double>(tensors, scalar, stream_at(stream));
  scale<float>(tensors, scalar, stream_at(stream));
}

template <class S>
void clip(const std::vector<Flat>& tensors, double limit, cudaStream_t stream) {
  ClipArguments<S> arguments{};
  arguments.limit = static_cast<S>(limit);
  in_launches(arguments, tensors, fill_flat<S>, [&](const auto& a) { launch_clip<S>(a, stream); });
}

void optim_clip(bool float64, const std::vector<Flat>& tensors, double limit, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  if (float64) return clip<double>(tensors, limit, stream_at(stream));
  clip<float>(tensors, limit, stream_at(stream));
}

// How many partial sums the norm of arrays of so many elements takes.
Index norm_partials(const std::vector<Index>& float32, const std::vector<Index>& float64) {
  Index count = 0;
  for (const Index size : float32) count += pieces_of<float>(size, kNormPiecePacks);
  for (const Index size : float64) count += pieces_of<double>(size, kNormPiecePacks);
  return count;
}

template <class S>
void squares(const std::vector<Squared>& tensors, double*& partials, cudaStream_t stream) {
  const auto fill = [](ScaledTensor<const S>& tensor, const Squared& entry) {
    const auto& [values, size, num_rows, width] = entry;
    tensor = {pointer<const S>(values), pointer<const std::int32_t>(num_rows), size, width, 0};
  };
  in_launches(NormArguments<S>{}, tensors, fill, [&](NormArguments<S> a) {
    a.partials = partials;
    partials += launch_squares<S>(a, stream);
  });
}

void optim_norm(const std::vector<Squared>& float32, const std::vector<Squared>& float64, Address partials, bool root,
                Address norm, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  double* const first = pointer<double>(partials);
  double* end = first;
  squares<float>(float32, end, stream_at(stream));
  squares<double>(float64, end, stream_at(stream));
  launch_total(first, end - first, root, pointer<double>(norm), stream_at(stream));
}

void optim_clip_scale(Address norm, double max_norm, Address scale, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  launch_clip_scale(pointer<const double>(norm), max_norm, pointer<double>(scale), stream_at(stream));
}

}  // namespace

void bind_optim(py::module_& module) {
  module.def("optim_update", &optim_update, py::kw_only(), py::arg("rule"), py::arg("float64"), py::arg("tensors"),
             py::arg("lr"), py::arg("lr_at"), py::arg("grad_scale"), py::arg("grad_scale_at"), py::arg("correction"),
             py::arg("momentum"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("eps_inside_root"),
             py::arg("step_at"), py::arg("device"), py::arg("stream"));
  module.def("optim_scale", &optim_scale, py::kw_only(), py::arg("float64"), py::arg("tensors"), py::arg("factor"),
             py::arg("factor_at"), py::arg("device"), py::arg("stream"));
  module.def("optim_clip", &optim_clip, py::kw_only(), py::arg("float64"), py::arg("tensors"), py::arg("limit"),
             py::arg("device"), py::arg("stream"));
  module.def("optim_norm_partials", &norm_partials, py::kw_only(), py::arg("float32"), py::arg("float64"));
  module.def("optim_norm", &optim_norm, py::kw_only(), py::arg("float32"), py::arg("float64"), py::arg("partials"),
             py::arg("root"), py::arg("norm"), py::arg("device"), py::arg("stream"));
  module.def("optim_clip_scale", &optim_clip_scale, py::kw_only(), py::arg("norm"), py::arg("max_norm"),
             py::arg("scale"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
