// Softmax, cross entropy and what stands around their matrix products, for Python.
#include "../bindings.h"

#include <pybind11/pybind11.h>

#include "../device/current_device.h"
#include "../device/element_types.h"
#include "losses.h"

namespace py = pybind11;

namespace fastlstm::cuda {

void bind_losses(py::module_& module) {
  module.attr("TARGET_COUNTS") = kCounts;
  module.def(
      "count_targets",
      [](std::uintptr_t targets, std::uintptr_t counts, Index M, Index ignore_index, int id_bytes, int device,
         std::uintptr_t stream) {
        const CurrentDevice current(device);
        with_types(sizeof(float), id_bytes, [&]<class, class Id>() {
          count_targets(TargetCount<Id>{pointer<const Id>(targets), M, ignore_index, pointer<int>(counts)},
                        stream_at(stream));
        });
      },
      py::kw_only(), py::arg("targets"), py::arg("counts"), py::arg("M"), py::arg("ignore_index"), py::arg("id_bytes"),
      py::arg("device"), py::arg("stream"));
  module.def(
      "softmax_loss",
      [](std::uintptr_t logits, std::uintptr_t bias, std::uintptr_t targets, std::uintptr_t counts,
         std::uintptr_t dlogits, std::uintptr_t losses, Index rows, Index V, Index ignore_index, int float_bytes,
         int id_bytes, int device, std::uintptr_t stream) {
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          softmax_loss(SoftmaxLoss<S, Id>{pointer<const S>(logits), pointer<const S>(bias), pointer<const Id>(targets),
                                          pointer<const int>(counts), pointer<S>(dlogits), pointer<double>(losses),
                                          rows, V, ignore_index},
                       stream_at(stream));
        });
      },
      py::kw_only(), py::arg("logits"), py::arg("bias"), py::arg("targets"), py::arg("counts"), py::arg("dlogits"),
      py::arg("losses"), py::arg("rows"), py::arg("V"), py::arg("ignore_index"), py::arg("float_bytes"),
      py::arg("id_bytes"), py::arg("device"), py::arg("stream"));
  module.def("mean_loss_workspace", &mean_loss_workspace, py::kw_only(), py::arg("M"));
  module.def(
      "mean_loss",
      [](std::uintptr_t losses, std::uintptr_t counts, std::uintptr_t loss, std::uintptr_t workspace, Index M,
         int device, std::uintptr_t stream) {
        const CurrentDevice current(device);
        mean_loss(MeanLoss{pointer<const double>(losses), M, pointer<const int>(counts), pointer<double>(loss)},
                  pointer<char>(workspace), stream_at(stream));
      },
      py::kw_only(), py::arg("losses"), py::arg("counts"), py::arg("loss"), py::arg("workspace"), py::arg("M"),
      py::arg("device"), py::arg("stream"));
  module.def(
      "copy_valid_rows",
      [](std::uintptr_t from, std::uintptr_t targets, std::uintptr_t to, Index M, Index E, Index ignore_index,
         int float_bytes, int id_bytes, int device, std::uintptr_t stream) {
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          copy_valid_rows(
              ValidRows<S, Id>{pointer<const S>(from), pointer<const Id>(targets), pointer<S>(to), M, E, ignore_index},
              stream_at(stream));
        });
      },
      py::kw_only(), py::arg("rows"), py::arg("targets"), py::arg("out"), py::arg("M"), py::arg("E"),
      py::arg("ignore_index"), py::arg("float_bytes"), py::arg("id_bytes"), py::arg("device"), py::arg("stream"));
  module.def(
      "sum_columns",
      [](std::uintptr_t matrix, std::uintptr_t sums, Index M, Index V, bool accumulate, int float_bytes, int device,
         std::uintptr_t stream) {
        const CurrentDevice current(device);
        with_types(float_bytes, sizeof(std::int32_t), [&]<class S, class>() {
          sum_columns(ColumnSum<S>{pointer<const S>(matrix), pointer<S>(sums), M, V, accumulate}, stream_at(stream));
        });
      },
      py::kw_only(), py::arg("matrix"), py::arg("sums"), py::arg("M"), py::arg("V"), py::arg("accumulate"),
      py::arg("float_bytes"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
