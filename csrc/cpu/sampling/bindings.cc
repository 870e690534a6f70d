// Sampled classes.
#include "../bindings.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "../ids/segment_arrays.h"
#include "candidates.h"
#include "kernels.h"

namespace fastlstm {
namespace {

py::array log_uniform_expected_count(const py::array& classes, double log_range, std::int64_t num_tries,
                                     std::int64_t num_sampled) {
  py::array counts = new_array<double>({classes.size()});
  log_uniform_expected_counts(log_range, pointer<std::int64_t>(classes), classes.size(), num_tries, num_sampled,
                              writable<double>(counts));
  return counts;
}

py::array classes_of(const Sample& sample) {
  py::array classes = new_array<std::int64_t>({static_cast<Index>(sample.classes.size())});
  std::copy(sample.classes.begin(), sample.classes.end(), writable<std::int64_t>(classes));
  return classes;
}

py::tuple log_uniform_candidates(std::int64_t num_sampled, std::int64_t range_max, const py::array& true_classes,
                                 bool unique, double log_range, std::uint64_t seed) {
  const Sample sample = [&] {
    const WithoutGil released;
    return log_uniform_sample(num_sampled, range_max, unique, log_range, seed);
  }();
  const py::array sampled = classes_of(sample);
  return py::make_tuple(sampled, log_uniform_expected_count(true_classes, log_range, sample.num_tries, num_sampled),
                        log_uniform_expected_count(sampled, log_range, sample.num_tries, num_sampled),
                        sample.num_tries);
}

py::tuple unigram_candidates(const py::array& probabilities, const py::array& threshold, const py::array& alias,
                             std::int64_t num_sampled, const py::array& true_classes, bool unique, std::uint64_t seed) {
  const Sample sample = [&] {
    const WithoutGil released;
    return unigram_sample(pointer<double>(threshold), pointer<std::int64_t>(alias), threshold.shape(0), num_sampled,
                          unique, seed);
  }();
  const auto expected_count = [&](const py::array& classes) {
    py::array counts = new_array<double>({classes.size()});
    unigram_expected_counts(pointer<double>(probabilities), pointer<std::int64_t>(classes), classes.size(),
                            sample.num_tries, num_sampled, writable<double>(counts));
    return counts;
  };
  const py::array sampled = classes_of(sample);
  return py::make_tuple(sampled, expected_count(true_classes), expected_count(sampled), sample.num_tries);
}

py::tuple alias_table_of(const py::array& scaled) {
  const Index V = scaled.shape(0);
  py::array threshold = new_array<double>({V});
  py::array alias = new_array<std::int64_t>({V});
  std::copy_n(pointer<double>(scaled), V, writable<double>(threshold));
  alias_table(writable<double>(threshold), writable<std::int64_t>(alias), V);
  return py::make_tuple(threshold, alias);
}

// The arguments of a forward call and the rows gathered for it.
template <class S>
class SampledTape {
 public:
  SampledTape(const py::array& weights, const OptionalArray& biases, const py::array& labels, const py::array& inputs,
              const py::array& sampled, const OptionalArray& true_expected, const OptionalArray& sampled_expected,
              bool remove_accidental_hits, Index num_true)
      : arrays_(py::make_tuple(weights, biases, labels, inputs, sampled, true_expected, sampled_expected)) {
    args_.B = labels.shape(0);
    args_.K = labels.shape(1);
    args_.sampled_count = sampled.shape(0);
    args_.E = inputs.shape(1);
    args_.num_true = num_true;
    args_.weights = pointer<S>(weights);
    args_.biases = pointer<S>(biases);
    args_.labels = pointer<std::int64_t>(labels);
    args_.inputs = pointer<S>(inputs);
    args_.sampled = pointer<std::int64_t>(sampled);
    args_.true_expected = pointer<double>(true_expected);
    args_.sampled_expected = pointer<double>(sampled_expected);
    args_.remove_accidental_hits = remove_accidental_hits;
    workspace_ = Array<S>(kernels<S>().sampled->workspace(args_));
    args_.workspace = workspace_.data();
  }

  py::array forward() {
    py::array logits = new_array<S>({args_.B, args_.K + args_.sampled_count});
    args_.logits = writable<S>(logits);
    const WithoutGil released;
    kernels<S>().sampled->forward(args_);
    return logits;
  }

  py::tuple backward(const py::array& dlogits) {
    return with_gradients([&](SampledLogits<S> args) {
      args.dlogits = pointer<S>(dlogits);
      const WithoutGil released;
      const std::lock_guard lock(mutex_);
      kernels<S>().sampled->backward(args);
    });
  }

  py::tuple loss(SampledLossKind kind) {
    py::array losses = new_array<S>({args_.B});
    S* const out = writable<S>(losses);
    const py::tuple grads = with_gradients([&](const SampledLogits<S>& args) {
      const WithoutGil released;
      kernels<S>().sampled->loss(args, kind, out);
    });
    return py::make_tuple(losses) + grads;
  }

 private:
  // (dinputs, indices, dweights, dbiases or None), filled by compute.
  template <class Compute>
  py::tuple with_gradients(const Compute& compute) const {
    SampledLogits<S> args = args_;
    const Index labels = args.B * args.K, M = labels + args.sampled_count;
    const Array<std::int64_t> ids(M);
    std::copy_n(args.labels, labels, ids.data());
    std::copy_n(args.sampled, args.sampled_count, ids.data() + labels);
    const Segments segments(ids.data(), M);
    args.order = segments.order();
    args.starts = segments.starts();
    args.U = segments.count();
    py::array indices = segments.unique(ids.data());
    py::array dinputs = new_array<S>({args.B, args.E});
    py::array dweights = new_array<S>({args.U, args.E});
    OptionalArray dbiases;
    if (args.biases) dbiases = new_array<S>({args.U});
    args.dinputs = writable<S>(dinputs);
    args.dweights = writable<S>(dweights);
    args.dbiases = dbiases ? writable<S>(*dbiases) : nullptr;
    compute(args);
    return py::make_tuple(dinputs, indices, dweights, dbiases);
  }

  py::tuple arrays_;  // keeps them alive
  SampledLogits<S> args_{};
  Array<S> workspace_;
  std::mutex mutex_;
};

py::tuple sampled_logits_forward(const py::array& weights, const OptionalArray& biases, const py::array& labels,
                                 const py::array& inputs, const py::array& sampled, const OptionalArray& true_expected,
                                 const OptionalArray& sampled_expected, bool remove_accidental_hits) {
  return with_float_type(weights, [&]<class S>() {
    auto tape = std::make_unique<SampledTape<S>>(weights, biases, labels, inputs, sampled, true_expected,
                                                 sampled_expected, remove_accidental_hits, labels.shape(1));
    const py::array logits = tape->forward();
    return py::tuple(py::make_tuple(logits, std::move(tape)));
  });
}

py::tuple sampled_loss(const py::array& weights, const OptionalArray& biases, const py::array& labels,
                       const py::array& inputs, const py::array& sampled, const OptionalArray& true_expected,
                       const OptionalArray& sampled_expected, bool remove_accidental_hits, Index num_true,
                       bool softmax) {
  return with_float_type(weights, [&]<class S>() {
    SampledTape<S> tape(weights, biases, labels, inputs, sampled, true_expected, sampled_expected,
                        remove_accidental_hits, num_true);
    return tape.loss(softmax ? SampledLossKind::kSoftmax : SampledLossKind::kSigmoid);
  });
}

}  // namespace

void bind_sampling(py::module_& module) {
  py::class_<SampledTape<float>>(module, "SampledTapeFloat32")
      .def("backward", &SampledTape<float>::backward, py::arg("dlogits"));
  py::class_<SampledTape<double>>(module, "SampledTapeFloat64")
      .def("backward", &SampledTape<double>::backward, py::arg("dlogits"));
  module.def("log_uniform_candidates", &log_uniform_candidates, py::arg("num_sampled"), py::arg("range_max"),
             py::arg("true_classes"), py::arg("unique"), py::arg("log_range"), py::arg("seed"));
  module.def("log_uniform_expected_count", &log_uniform_expected_count, py::arg("classes"), py::arg("log_range"),
             py::arg("num_tries"), py::arg("num_sampled"));
  module.def("alias_table", &alias_table_of, py::arg("scaled"));
  module.def("unigram_candidates", &unigram_candidates, py::arg("probabilities"), py::arg("threshold"),
             py::arg("alias"), py::arg("num_sampled"), py::arg("true_classes"), py::arg("unique"), py::arg("seed"));
  module.def("sampled_logits_forward", &sampled_logits_forward, py::arg("weights"), py::arg("biases"),
             py::arg("labels"), py::arg("inputs"), py::arg("sampled"), py::arg("true_expected_count"),
             py::arg("sampled_expected_count"), py::arg("remove_accidental_hits"));
  module.def("sampled_loss", &sampled_loss, py::arg("weights"), py::arg("biases"), py::arg("labels"), py::arg("inputs"),
             py::arg("sampled"), py::arg("true_expected_count"), py::arg("sampled_expected_count"),
             py::arg("remove_accidental_hits"), py::arg("num_true"), py::arg("softmax"));
}

}  // namespace fastlstm
