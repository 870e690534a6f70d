// Embedding.
#include "../bindings.h"

#include "../ids/segment_arrays.h"
#include "kernels.h"

namespace fastlstm {
namespace {

template <class S, class Id>
const EmbeddingKernels<S, Id>& embedding_kernels() {
  if constexpr (std::is_same_v<Id, std::int32_t>) {
    return *kernels<S>().embedding_int32;
  } else {
    return *kernels<S>().embedding_int64;
  }
}

py::array embedding_forward(const py::array& W, const py::array& ids) {
  const Index M = ids.shape(0), E = W.shape(1);
  return with_float_type(W, [&]<class S>() {
    py::array out = new_array<S>({M, E});
    S* const out_data = writable<S>(out);
    with_id_type(ids, [&]<class Id>() {
      const WithoutGil released;
      embedding_kernels<S, Id>().gather(pointer<S>(W), pointer<Id>(ids), M, E, out_data);
    });
    return out;
  });
}

// target[ids[m]] += rows[m]; with clear, target is zeroed first; rows of the id skip (-1: none) are left out.
void scatter_add(py::array target, const py::array& ids, const py::array& rows, bool clear, Index skip) {
  const Index V = target.shape(0), E = target.shape(1), M = ids.shape(0);
  with_float_type(target, [&]<class S>() {
    S* const data = writable<S>(target);
    with_id_type(ids, [&]<class Id>() {
      const WithoutGil released;
      embedding_kernels<S, Id>().scatter_add(data, V, pointer<Id>(ids), pointer<S>(rows), M, E, clear, skip);
    });
  });
}

void clear_rows(py::array target, const py::array& ids) {
  const Index E = target.shape(1), M = ids.shape(0);
  with_float_type(target, [&]<class S>() {
    S* const data = writable<S>(target);
    with_id_type(ids, [&]<class Id>() {
      const WithoutGil released;
      embedding_kernels<S, Id>().clear_rows(data, pointer<Id>(ids), M, E);
    });
  });
}

py::tuple embedding_backward_rows(const py::array& ids, const py::array& dout) {
  const Index E = dout.shape(1);
  return with_id_type(ids, [&]<class Id>() {
    const Segments segments(pointer<Id>(ids), ids.shape(0));
    const py::array indices = segments.unique(pointer<Id>(ids));
    return with_float_type(dout, [&]<class S>() {
      py::array values = new_array<S>({segments.count(), E});
      S* const out = writable<S>(values);
      {
        const WithoutGil released;
        embedding_kernels<S, Id>().sum_segments(pointer<S>(dout), segments.order(), segments.starts(), segments.count(),
                                                E, out);
      }
      return py::make_tuple(indices, values);
    });
  });
}

}  // namespace

void bind_embedding(py::module_& module) {
  module.def("embedding_forward", &embedding_forward, py::arg("W"), py::arg("ids"));
  module.def("scatter_add", &scatter_add, py::arg("target"), py::arg("ids"), py::arg("rows"), py::arg("clear"),
             py::arg("skip"));
  module.def("clear_rows", &clear_rows, py::arg("target"), py::arg("ids"));
  module.def("embedding_backward_rows", &embedding_backward_rows, py::arg("ids"), py::arg("dout"));
}

}  // namespace fastlstm
