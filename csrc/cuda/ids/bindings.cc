// Checks of ids, for Python.
#include "../bindings.h"

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "check_ids.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void check_at(std::uintptr_t ids, std::uintptr_t checked, bool wide, std::int64_t count,
              std::optional<std::int64_t> upper, std::optional<std::int64_t> ignore_index, std::int64_t source,
              std::uintptr_t shared, std::uintptr_t fault, int device, std::uintptr_t stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  check_ids({.ids = reinterpret_cast<const void*>(ids),
             .checked = reinterpret_cast<void*>(checked),
             .wide = wide,
             .count = count,
             .upper = upper.value_or(std::numeric_limits<std::int64_t>::max()),
             .has_ignore_index = ignore_index.has_value(),
             .ignore_index = ignore_index.value_or(0),
             .source = source,
             .shared = reinterpret_cast<Shared*>(shared),
             .fault = reinterpret_cast<Fault*>(fault)},
            reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace

void bind_ids(py::module_& module) {
  module.def("check_ids", &check_at, py::kw_only(), py::arg("ids"), py::arg("checked"), py::arg("wide"),
             py::arg("count"), py::arg("upper"), py::arg("ignore_index"), py::arg("source"), py::arg("shared"),
             py::arg("fault"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
