// Gathers, clears and sums rows by ids, for Python.
#include "../bindings.h"

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "../device/element_types.h"
#include "embedding.h"

namespace py = pybind11;

namespace fastlstm::cuda {

void bind_embedding(py::module_& module) {
  module.def(
      "gather_rows",
      [](Address W, Address ids, Address out, Index M, Index E, int float_bytes, int id_bytes, int device,
         Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          gather_rows(RowGather<S, Id>{pointer<const S>(W), pointer<const Id>(ids), pointer<S>(out), M, E},
                      stream_at(stream));
        });
      },
      py::kw_only(), py::arg("W"), py::arg("ids"), py::arg("out"), py::arg("M"), py::arg("E"), py::arg("float_bytes"),
      py::arg("id_bytes"), py::arg("device"), py::arg("stream"));
  module.def(
      "clear_rows",
      [](Address target, Address ids, Index M, Index E, int float_bytes, int id_bytes, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          clear_rows(RowClearing<S, Id>{pointer<S>(target), pointer<const Id>(ids), M, E}, stream_at(stream));
        });
      },
      py::kw_only(), py::arg("target"), py::arg("ids"), py::arg("M"), py::arg("E"), py::arg("float_bytes"),
      py::arg("id_bytes"), py::arg("device"), py::arg("stream"));
  module.def("sum_rows_workspace", &sum_rows_workspace, py::kw_only(), py::arg("M"), py::arg("E"), py::arg("id_bytes"),
             py::arg("float_bytes"));
  module.def(
      "sum_rows",
      [](Address target, Address ids, Address rows, Address workspace, Index M, Index E, Index V, Index skip,
         bool accumulate, int float_bytes, int id_bytes, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          sum_rows(RowSum<S, Id>{pointer<S>(target), pointer<const Id>(ids), pointer<const S>(rows), M, E, V, skip,
                                 accumulate},
                   pointer<char>(workspace), stream_at(stream));
        });
      },
      py::kw_only(), py::arg("target"), py::arg("ids"), py::arg("rows"), py::arg("workspace"), py::arg("M"),
      py::arg("E"), py::arg("V"), py::arg("skip"), py::arg("accumulate"), py::arg("float_bytes"), py::arg("id_bytes"),
      py::arg("device"), py::arg("stream"));
  module.def("unique_rows_workspace", &unique_rows_workspace, py::kw_only(), py::arg("M"), py::arg("E"),
             py::arg("id_bytes"), py::arg("float_bytes"));
  module.def(
      "unique_rows",
      [](Address indices, Address values, Address count, Address ids, Address rows, Address workspace, Index M, Index E,
         int float_bytes, int id_bytes, int device, Address stream) {
        const WithoutGil released;
        const CurrentDevice current(device);
        with_types(float_bytes, id_bytes, [&]<class S, class Id>() {
          unique_rows(UniqueRows<S, Id>{pointer<const Id>(ids), pointer<const S>(rows), M, E, pointer<Id>(indices),
                                        pointer<S>(values), pointer<std::int32_t>(count)},
                      pointer<char>(workspace), stream_at(stream));
        });
      },
      py::kw_only(), py::arg("indices"), py::arg("values"), py::arg("count"), py::arg("ids"), py::arg("rows"),
      py::arg("workspace"), py::arg("M"), py::arg("E"), py::arg("float_bytes"), py::arg("id_bytes"), py::arg("device"),
      py::arg("stream"));
}

}  // namespace fastlstm::cuda
