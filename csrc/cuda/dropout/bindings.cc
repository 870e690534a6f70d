// Masks of dropout, for Python.
#include "../bindings.h"

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "dropout.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void dropout_mask_at(std::uintptr_t mask, bool float64, std::int64_t count, double ratio, double factor,
                     std::uint64_t seed, std::uintptr_t seed_at, int device, std::uintptr_t stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  dropout_mask({.mask = reinterpret_cast<void*>(mask),
                .float64 = float64,
                .count = count,
                .ratio = ratio,
                .factor = factor,
                .seed = {seed, reinterpret_cast<const std::uint64_t*>(seed_at)}},
               reinterpret_cast<cudaStream_t>(stream));
}

}  // namespace

void bind_dropout(py::module_& module) {
  module.def("dropout_mask", &dropout_mask_at, py::kw_only(), py::arg("mask"), py::arg("float64"), py::arg("count"),
             py::arg("ratio"), py::arg("factor"), py::arg("seed"), py::arg("seed_at"), py::arg("device"),
             py::arg("stream"));
}

}  // namespace fastlstm::cuda
