// Scalars of the host's for captured graphs, for Python.
#include "../bindings.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "scalars.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void store_scalars_at(Address target, const std::vector<std::uint64_t>& values, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  for (std::size_t first = 0; first < values.size(); first += kMostScalars) {
    GraphScalars arguments{};
    arguments.target = pointer<std::uint64_t>(target) + first;
    arguments.count = static_cast<int>(std::min<std::size_t>(kMostScalars, values.size() - first));
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(first), arguments.count, arguments.values);
    store_scalars(arguments, stream_at(stream));
  }
}

}  // namespace

void bind_graph(py::module_& module) {
  module.def("store_scalars", &store_scalars_at, py::kw_only(), py::arg("target"), py::arg("values"), py::arg("device"),
             py::arg("stream"));
}

}  // namespace fastlstm::cuda
