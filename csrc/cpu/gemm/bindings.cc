// Matrix products of dense layers.
#include "../bindings.h"

#include "../arrays.h"
#include "../threads.h"
#include "kernels.h"

namespace fastlstm {
namespace {

// a and b are C-contiguous, as they are or transposed.
void product(const py::array& a, const py::array& b, const OptionalArray& bias, bool a_transposed, bool b_transposed,
             py::array out) {
  with_float_type(a, [&]<class S>() {
    Product<S> args{.M = out.shape(0),
                    .K = a.shape(a_transposed ? 0 : 1),
                    .L = out.shape(1),
                    .a_transposed = a_transposed,
                    .b_transposed = b_transposed,
                    .a = pointer<S>(a),
                    .b = pointer<S>(b),
                    .bias = pointer<S>(bias),
                    .out = writable<S>(out),
                    .threads = num_threads(),
                    .workspace = nullptr};
    const WithoutGil released;
    const Array<S> workspace(kernels<S>().product->workspace(args));
    args.workspace = workspace.data();
    kernels<S>().product->run(args);
  });
}

}  // namespace

void bind_dense(py::module_& module) {
  module.def("product", &product, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("a_transposed"),
             py::arg("b_transposed"), py::arg("out"));
}

}  // namespace fastlstm
