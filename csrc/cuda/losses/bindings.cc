// Softmax, cross entropy and what stands around their matrix products, for Python.
#include "../bindings.h"

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "../device/element_types.h"
#include "losses.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

Divisor divisor_of(Address counts, double normalizer, Address normalizer_at) {
  return {pointer<const int>(counts), {normalizer, pointer<const double>(normalizer_at)}};
}

}  // namespace

void bind_losses(py::module_& module) {
  module.attr("TARGET_COUNTS") = kCounts;
  module.def(
      "count_targets",
      [](Address targets, Address counts, Index M, Index ignore_index, int id_bytes, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_id(id_bytes, [&]<class Id>() {
          count_targets(TargetCount<Id>{pointer<const Id>(targets), M, ignore_index, pointer<int>(counts)},
                        stream_at(stream));
        });
      },
      py::kw_only(), py::arg("targets"), py::arg("counts"), py::arg("M"), py::arg("ignore_index"), py::arg("id_bytes"),
      py::arg("device"), py::arg("stream"));
  module.def(
      "softmax_loss",
      [](Address logits, Address bias, Address targets, Address counts, double normalizer, Address normalizer_at,
         Address dlogits, Address losses, Index rows, Index V, Index ignore_index, int float_bytes, int id_bytes,
         int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          softmax_loss(SoftmaxLoss<S, Id>{pointer<const S>(logits), pointer<const S>(bias), pointer<const Id>(targets),
                                          divisor_of(counts, normalizer, normalizer_at), pointer<S>(dlogits),
                                          pointer<double>(losses), rows, V, ignore_index},
                       stream_at(stream));
        });
      },
      py::kw_only(), py::arg("logits"), py::arg("bias"), py::arg("targets"), py::arg("counts"), py::arg("normalizer"),
      py::arg("normalizer_at"), py::arg("dlogits"), py::arg("losses"), py::arg("rows"), py::arg("V"),
      py::arg("ignore_index"), py::arg("float_bytes"), py::arg("id_bytes"), py::arg("device"), py::arg("stream"));
  module.def("mean_loss_workspace", &mean_loss_workspace, py::kw_only(), py::arg("M"));
  module.def(
      "mean_loss",
      [](Address losses, Address counts, double normalizer, Address normalizer_at, Address loss, Address workspace,
         Index M, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        mean_loss(MeanLoss{pointer<const double>(losses), M, divisor_of(counts, normalizer, normalizer_at),
                           pointer<double>(loss)},
                  pointer<char>(workspace), stream_at(stream));
      },
      py::kw_only(), py::arg("losses"), py::arg("counts"), py::arg("normalizer"), py::arg("normalizer_at"),
      py::arg("loss"), py::arg("workspace"), py::arg("M"), py::arg("device"), py::arg("stream"));
  module.def(
      "copy_valid_rows",
      [](Address from, Address targets, Address to, Index M, Index E, Index ignore_index, int float_bytes, int id_bytes,
         int device, Address stream) {
        const WithoutGil released;
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
      [](Address matrix, Address sums, Index M, Index V, bool accumulate, int float_bytes, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_float(float_bytes, [&]<class S>() {
          sum_columns(ColumnSum<S>{pointer<const S>(matrix), pointer<S>(sums), M, V, accumulate}, stream_at(stream));
        });
      },
      py::kw_only(), py::arg("matrix"), py::arg("sums"), py::arg("M"), py::arg("V"), py::arg("accumulate"),
      py::arg("float_bytes"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
