// Dropout masks.
#include "../bindings.h"

#include "../arrays.h"
#include "kernels.h"

namespace fastlstm {
namespace {

py::array dropout_mask(const py::array& xs, double ratio, std::uint64_t seed) {
  return with_float_type(xs, [&]<class S>() {
    py::array mask = new_array<S>({xs.shape(), xs.shape() + xs.ndim()});
    S* const data = writable<S>(mask);
    const Index count = mask.size();
    {
      const WithoutGil released;
      kernels<S>().dropout->mask(data, count, ratio, 1 / (1 - ratio), seed);
    }
    return mask;
  });
}

}  // namespace

void bind_dropout(py::module_& module) {
  module.def("dropout_mask", &dropout_mask, py::arg("xs"), py::kw_only(), py::arg("ratio"), py::arg("seed"));
}

}  // namespace fastlstm
