// Checks of ids, for Python.
#include "../bindings.h"

#include <pybind11/stl.h>

#include <optional>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "check_ids.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void check_at(Address ids, Address checked, bool wide, std::int64_t count, std::optional<std::int64_t> upper,
              std::optional<std::int64_t> ignore_index, std::int64_t source, Address shared, Address fault, int device,
              Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  check_ids({.ids = pointer<const void>(ids),
             .checked = pointer<void>(checked),
             .wide = wide,
             .count = count,
             .upper = upper.value_or(std::numeric_limits<std::int64_t>::max()),
             .has_ignore_index = ignore_index.has_value(),
             .ignore_index = ignore_index.value_or(0),
             .source = source,
             .shared = pointer<Shared>(shared),
             .fault = pointer<Fault>(fault)},
            stream_at(stream));
}

}  // namespace

void bind_ids(py::module_& module) {
  module.def("check_ids", &check_at, py::kw_only(), py::arg("ids"), py::arg("checked"), py::arg("wide"),
             py::arg("count"), py::arg("upper"), py::arg("ignore_index"), py::arg("source"), py::arg("shared"),
             py::arg("fault"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
