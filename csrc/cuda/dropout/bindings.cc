// Masks of dropout, for Python.
#include "../bindings.h"

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "dropout.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

void dropout_mask_at(Address mask, bool float64, std::int64_t count, double ratio, double factor, std::uint64_t seed,
                     Address seed_at, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  dropout_mask({.mask = pointer<void>(mask),
                .float64 = float64,
                .count = count,
                .ratio = ratio,
                .factor = factor,
                .seed = {seed, pointer<const std::uint64_t>(seed_at)}},
               stream_at(stream));
}

}  // namespace

void bind_dropout(py::module_& module) {
  module.def("dropout_mask", &dropout_mask_at, py::kw_only(), py::arg("mask"), py::arg("float64"), py::arg("count"),
             py::arg("ratio"), py::arg("factor"), py::arg("seed"), py::arg("seed_at"), py::arg("device"),
             py::arg("stream"));
}

}  // namespace fastlstm::cuda
