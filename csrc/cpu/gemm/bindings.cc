// Matrix products of dense layers.
#include "../bindings.h"

#include <memory>
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
                    .prepared = nullptr,
                    .workspace = nullptr};
    const WithoutGil released;
    const ProductKernels<S>& chosen = product_kernels<S>(bf16);
    const Array<S> workspace(chosen.workspace(args));
    args.workspace = workspace.data();
    chosen.run(args);
  });
}

// b and bias as products with many an a read them.
template <class S>
class PreparedMatrix {
 public:
  PreparedMatrix(const py::array& b, const OptionalArray& bias, bool b_transposed, bool bf16)
      : K_(b.shape(b_transposed ? 1 : 0)), L_(b.shape(b_transposed ? 0 : 1)), kernels_(product_kernels<S>(bf16)) {
    Product<S> args{};
    args.K = K_, args.L = L_;
    args.b_transposed = b_transposed;
    args.b = pointer<S>(b);
    args.bias = pointer<S>(bias);
    args.threads = num_threads();
    const WithoutGil released;
    packed_ = Array<S>(kernels_.prepared_size(K_, L_));
    kernels_.prepare(args, packed_.data());
  }

  // a b + bias, in out if that is given.
  py::array product(const py::array& a, const OptionalArray& given) const {
    py::array out = given ? *given : new_array<S>({a.shape(0), L_});
    Product<S> args{};
    args.M = a.shape(0), args.K = K_, args.L = L_;
    args.a = pointer<S>(a);
    args.out = writable<S>(out);
    args.threads = num_threads();
    args.prepared = packed_.data();
    {
      const WithoutGil released;
      const Array<S> workspace(kernels_.prepared_workspace(args));
      args.workspace = workspace.data();
      kernels_.run_prepared(args);
    }
    return out;
  }

 private:
  Index K_, L_;
  const ProductKernels<S>& kernels_;
  Array<S> packed_;
};

py::object prepare_dense(const py::array& W, const OptionalArray& b, bool transposed, bool bf16) {
  return with_float_type(W, [&]<class S>() -> py::object {
    return py::cast(std::make_unique<PreparedMatrix<S>>(W, b, transposed, bf16));
  });
}

template <class S>
void bind_prepared(py::module_& module, const char* name) {
  py::class_<PreparedMatrix<S>>(module, name).def("product", &PreparedMatrix<S>::product, py::arg("a"), py::arg("out"));
}

}  // namespace

void bind_dense(py::module_& module) {
  bind_prepared<float>(module, "DenseWeightsFloat32");
  bind_prepared<double>(module, "DenseWeightsFloat64");
  module.def("prepare_dense", &prepare_dense, py::arg("W"), py::arg("b"), py::arg("transposed"), py::arg("bf16"));
  module.def("product", &product, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("a_transposed"),
             py::arg("b_transposed"), py::arg("out"), py::arg("bf16"));
}

}  // namespace fastlstm
