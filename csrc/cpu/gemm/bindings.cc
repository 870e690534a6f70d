// Matrix products of dense layers.
#include "../bindings.h"

#include <type_traits>

#include "../arrays.h"
#include "../threads.h"
#include "kernels.h"

namespace fastlstm {
namespace {

template <class S>
const ProductKernels<S>& product_kernels(bool bf16) {
  if constexpr (std::is_same_v<S, float>) {
    if (bf16) return *instruction_set().bf16.product;
  }
  return *kernels<S>().product;
}

// a and b are C-contiguous, as they are or transposed.
void product(const py::array& a, const py::array& b, const OptionalArray& bias, bool a_transposed, bool b_transposed,
             py::array out, bool bf16) {
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
    const ProductKernels<S>& chosen = product_kernels<S>(bf16);
    const Array<S> workspace(chosen.workspace(args));
    args.workspace = workspace.data();
    chosen.run(args);
  });
}

}  // namespace

void bind_dense(py::module_& module) {
  module.def("product", &product, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("a_transposed"),
             py::arg("b_transposed"), py::arg("out"), py::arg("bf16"));
}

}  // namespace fastlstm
