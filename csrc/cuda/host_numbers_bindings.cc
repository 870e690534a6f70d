// Numbers of the host's for captured graphs, for Python.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "../without_gil.h"
#include "bindings.h"
#include "current_device.h"
#include "host_numbers.h"
#include "numbers.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void store_numbers_at(std::uintptr_t target, const std::vector<std::uint64_t>& numbers, int device,
                      std::uintptr_t stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  for (std::size_t first = 0; first < numbers.size(); first += kMostNumbers) {
    HostNumbers arguments{};
    arguments.target = pointer<std::uint64_t>(target) + first;
    arguments.count = static_cast<int>(std::min<std::size_t>(kMostNumbers, numbers.size() - first));
    std::copy_n(numbers.begin() + static_cast<std::ptrdiff_t>(first), arguments.count, arguments.numbers);
    store_numbers(arguments, stream_at(stream));
  }
}

}  // namespace

void bind_host_numbers(py::module_& module) {
  module.def("store_numbers", &store_numbers_at, py::kw_only(), py::arg("target"), py::arg("numbers"),
             py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
