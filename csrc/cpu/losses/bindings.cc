// Cross entropy.
#include "../bindings.h"

#include <algorithm>
#include <optional>

#include "../arrays.h"
#include "../threads.h"
#include "kernels.h"

namespace fastlstm {
namespace {

template <class S, class Id>
const LossKernels<S, Id>& loss_kernels() {
  if constexpr (std::is_same_v<Id, std::int32_t>) {
    return *kernels<S>().loss_int32;
  } else {
    return *kernels<S>().loss_int64;
  }
}

template <class Id>
Index count_targets(const Id* targets, Index M, Id ignore_index) {
  Index count = 0;
  for (Index m = 0; m < M; ++m) count += targets[m] != ignore_index;
  return count;
}

double sum_of(const double* losses, Index M) {
  double sum = 0;
  for (Index m = 0; m < M; ++m) sum += losses[m];
  return sum;
}

// What the sum of the losses is divided by: the number given, or how many targets count. Of none the sum is 0.
double divisor_of(std::optional<double> normalizer, Index counted) {
  return normalizer ? *normalizer : static_cast<double>(std::max<Index>(counted, 1));
}

py::tuple softmax_cross_entropy(const py::array& logits, const py::array& targets, std::int64_t ignore_index,
                                std::optional<double> normalizer) {
  const Index M = logits.shape(0), V = logits.shape(1);
  return with_float_type(logits, [&]<class S>() {
    py::array dlogits = new_array<S>({M, V});
    S* const out = writable<S>(dlogits);
    const double loss = with_id_type(targets, [&]<class Id>() {
      const WithoutGil released;
      const Id* const ids = pointer<Id>(targets);
      const Id ignored = static_cast<Id>(ignore_index);
      const double divisor = divisor_of(normalizer, count_targets(ids, M, ignored));
      const Array<double> losses(M);
      loss_kernels<S, Id>().softmax_cross_entropy(pointer<S>(logits), ids, M, V, ignored, static_cast<S>(1 / divisor),
                                                  losses.data(), out);
      return sum_of(losses.data(), M) / divisor;
    });
    return py::make_tuple(loss, dlogits);
  });
}

// The rows of h whose targets count, side by side; the others are never read. Without ignored targets h is used as it
// is.
template <class S>
class CountedRows {
 public:
  CountedRows(const S* h, const std::int64_t* targets, Index M, Index H, std::int64_t ignore_index, bool with_dh)
      : M_(M), H_(H), count_(count_targets(targets, M, ignore_index)), h_(h), targets_(targets) {
    if (count_ == M) return;
    places_ = Array<Index>(count_);
    h_copy_ = Array<S>(count_ * H);
    if (with_dh) dh_copy_ = Array<S>(count_ * H);
    targets_copy_ = Array<std::int64_t>(count_);
    for (Index m = 0, k = 0; m < M; ++m) {
      if (targets[m] == ignore_index) continue;
      places_.data()[k] = m;
      targets_copy_.data()[k] = targets[m];
      std::copy_n(h + m * H, H, h_copy_.data() + k++ * H);
    }
    h_ = h_copy_.data();
    targets_ = targets_copy_.data();
  }

  Index count() const { return count_; }
  const S* h() const { return h_; }
  const std::int64_t* targets() const { return targets_; }

  // Where the kernel writes the gradients of the counted rows, and from there to their places among zeros.
  S* dh_or(S* dh) const { return dh_copy_ ? dh_copy_.data() : dh; }
  void spread_dh(S* dh) const {
    if (!dh_copy_) return;
    std::fill_n(dh, M_ * H_, S{0});
    for (Index k = 0; k < count_; ++k) std::copy_n(dh_copy_.data() + k * H_, H_, dh + places_.data()[k] * H_);
  }

 private:
  Index M_, H_, count_;
  const S* h_;
  const std::int64_t* targets_;
  Array<Index> places_;
  Array<S> h_copy_, dh_copy_;
  Array<std::int64_t> targets_copy_;
};

template <class S>
const LinearLossKernels<S>& linear_loss_kernels(bool bf16) {
  if constexpr (std::is_same_v<S, float>) {
    if (bf16) return *instruction_set().bf16.linear_loss;
  }
  return *kernels<S>().linear_loss;
}

bool is_transposed(const py::array& matrix) { return (matrix.flags() & py::array::c_style) == 0; }

// (rows, columns), or its transpose, so that it lies in memory as a matrix of those sizes does.
template <class S>
py::array new_matrix(Index rows, Index columns, bool transposed) {
  if (!transposed) return new_array<S>({rows, columns});
  return new_array<S>({columns, rows}).attr("T");
}

template <class S>
S* writable_or_null(OptionalArray& array) {
  return array ? writable<S>(*array) : nullptr;
}

// low_memory: a panel of the logits for each thread is held at once; a single one would not be worth reading and
// writing dh for. dh, dW and db go into the arrays given or, where there is none, into new ones; what is not wanted is
// None.
py::tuple linear_cross_entropy(const py::array& h, const py::array& W, const OptionalArray& b, const py::array& targets,
                               std::int64_t ignore_index, bool low_memory, OptionalArray dh, OptionalArray dW,
                               OptionalArray db, bool accumulate, bool with_dh, bool with_dW, bool with_db, bool bf16,
                               std::optional<double> normalizer) {
  const Index M = h.shape(0), H = h.shape(1), V = W.shape(1);
  const bool transposed = is_transposed(W);
  const int threads = num_threads();
  const Index panels = low_memory ? std::max(2, threads) : (V + kLossPanel - 1) / kLossPanel;
  return with_float_type(h, [&]<class S>() {
    const bool add_dW = accumulate && dW, add_db = accumulate && db;
    if (with_dh && !dh) dh = new_array<S>({M, H});
    if (with_dW && !dW) dW = new_matrix<S>(H, V, transposed);
    if (with_db && !db) db = new_array<S>({V});
    S* const dh_data = writable_or_null<S>(dh);
    LinearLoss<S> args{.M = 0,
                       .H = H,
                       .V = V,
                       .transposed = transposed,
                       .dW_transposed = dW && is_transposed(*dW),
                       .add_to_dW = add_dW,
                       .add_to_db = add_db,
                       .h = nullptr,
                       .W = pointer<S>(W),
                       .b = pointer<S>(b),
                       .targets = nullptr,
                       .block = panels * kLossPanel,
                       .threads = threads,
                       .scale = 0,
                       .losses = nullptr,
                       .dh = nullptr,
                       .dW = writable_or_null<S>(dW),
                       .db = writable_or_null<S>(db),
                       .workspace = nullptr};
    double loss = 0;
    {
      const WithoutGil released;
      const CountedRows<S> rows(pointer<S>(h), pointer<std::int64_t>(targets), M, H, ignore_index, with_dh);
      args.M = rows.count();
      args.h = rows.h();
      args.targets = rows.targets();
      args.dh = rows.dh_or(dh_data);
      const double divisor = divisor_of(normalizer, args.M);
      args.scale = static_cast<S>(1 / divisor);
      const Array<double> losses(args.M);
      args.losses = losses.data();
      const LinearLossKernels<S>& chosen = linear_loss_kernels<S>(bf16);
      const Array<S> workspace(chosen.workspace(args));
      args.workspace = workspace.data();
      chosen.run(args);
      rows.spread_dh(dh_data);
      loss = sum_of(losses.data(), args.M) / divisor;
    }
    return py::make_tuple(loss, dh, dW, db);
  });
}

}  // namespace

void bind_losses(py::module_& module) {
  module.def("softmax_cross_entropy", &softmax_cross_entropy, py::arg("logits"), py::arg("targets"),
             py::arg("ignore_index"), py::arg("normalizer"));
  module.def("linear_cross_entropy", &linear_cross_entropy, py::arg("h"), py::arg("W"), py::arg("b"),
             py::arg("targets"), py::arg("ignore_index"), py::arg("low_memory"), py::arg("dh"), py::arg("dW"),
             py::arg("db"), py::arg("accumulate"), py::arg("with_dh"), py::arg("with_dW"), py::arg("with_db"),
             py::arg("bf16"), py::arg("normalizer"));
}

}  // namespace fastlstm
