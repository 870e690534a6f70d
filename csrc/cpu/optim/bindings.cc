// Optimisers.
#include "../bindings.h"

#include <optional>

#include "../arrays.h"
#include "kernels.h"

namespace fastlstm {
namespace {

void optim_update(OptimRule rule, py::array param, const py::array& grad, const OptionalArray& rows, double grad_scale,
                  double lr, std::optional<py::array> first, std::optional<py::array> second, double momentum,
                  double beta2, double eps, double decay, bool eps_inside_root) {
  const Index count = rows ? rows->shape(0) : (param.ndim() ? param.shape(0) : 1);
  const Index elements = grad.size();
  const OptimSettings settings{.grad_scale = grad_scale,
                               .lr = lr,
                               .momentum = momentum,
                               .beta2 = beta2,
                               .eps = eps,
                               .eps_inside_root = eps_inside_root,
                               .decay = decay};
  with_float_type(param, [&]<class S>() {
    const OptimUpdate<S> update{.rule = rule,
                                .param = writable<S>(param),
                                .grad = pointer<S>(grad),
                                .first = first ? writable<S>(*first) : nullptr,
                                .second = second ? writable<S>(*second) : nullptr,
                                .ids = pointer<std::int64_t>(rows),
                                .rows = count,
                                .width = count ? elements / count : 0,
                                .hyperparameters = OptimHyperparameters<S>(settings)};
    const WithoutGil released;
    kernels<S>().optim->update(update);
  });
}

double squared_norm(const py::array& values) {
  return with_float_type(values, [&]<class S>() {
    const WithoutGil released;
    return kernels<S>().optim->squared_norm(pointer<S>(values), values.size());
  });
}

void scale(py::array values, double factor) {
  with_float_type(values, [&]<class S>() {
    S* const data = writable<S>(values);
    const Index count = values.size();
    const WithoutGil released;
    kernels<S>().optim->scale(data, count, static_cast<S>(factor));
  });
}

void clip(py::array values, double limit) {
  with_float_type(values, [&]<class S>() {
    S* const data = writable<S>(values);
    const Index count = values.size();
    const WithoutGil released;
    kernels<S>().optim->clip(data, count, static_cast<S>(limit));
  });
}

}  // namespace

void bind_optim(py::module_& module) {
  py::enum_<OptimRule>(module, "OptimRule")
      .value("SGD", OptimRule::kSgd)
      .value("MOMENTUM", OptimRule::kMomentum)
      .value("NESTEROV", OptimRule::kNesterov)
      .value("ADAGRAD", OptimRule::kAdaGrad)
      .value("RMSPROP", OptimRule::kRmsProp)
      .value("ADAM", OptimRule::kAdam);
  module.def("optim_update", &optim_update, py::arg("rule"), py::arg("param"), py::arg("grad"), py::arg("rows"),
             py::arg("grad_scale"), py::arg("lr"), py::arg("first") = py::none(), py::arg("second") = py::none(),
             py::arg("momentum") = 0.0, py::arg("beta2") = 0.0, py::arg("eps") = 0.0, py::arg("decay") = 0.0,
             py::arg("eps_inside_root") = false);
  module.def("squared_norm", &squared_norm, py::arg("values"));
  module.def("scale", &scale, py::arg("values"), py::arg("factor"));
  module.def("clip", &clip, py::arg("values"), py::arg("limit"));
}

}  // namespace fastlstm
