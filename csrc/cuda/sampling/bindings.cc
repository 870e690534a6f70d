// Sampled classes, for Python: samples, expected counts, logits, losses and their gradients.
#include "../bindings.h"

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "../device/element_types.h"
#include "candidates.h"
#include "sampling.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

// The sample first, then the expected counts of the true classes (M,) and of the sampled ones.
struct CandidateArrays {
  Sample sample;
  ExpectedCounts counts;

  CandidateArrays(Index num_sampled, bool unique, Address true_classes, Index M, Address sampled,
                  Address true_expected_count, Address sampled_expected_count, Address num_tries, Address workspace)
      : sample{num_sampled, unique, pointer<Index>(sampled), pointer<Index>(num_tries), pointer<char>(workspace)},
        counts{{pointer<const Index>(true_classes), pointer<const Index>(sampled)},
               {M, num_sampled},
               {pointer<double>(true_expected_count), pointer<double>(sampled_expected_count)},
               pointer<const Index>(num_tries),
               0,
               num_sampled} {}
};

void log_uniform_candidates(Index num_sampled, Index range_max, Address true_classes, Index M, bool unique,
                            double log_range, std::uint64_t seed, Address seed_at, Address sampled,
                            Address true_expected_count, Address sampled_expected_count, Address num_tries,
                            Address workspace, int device, Address stream) {
  const CandidateArrays arrays(num_sampled, unique, true_classes, M, sampled, true_expected_count,
                               sampled_expected_count, num_tries, workspace);
  const WithoutGil released;
  const CurrentDevice current(device);
  log_uniform_sample(arrays.sample, range_max, log_range, {seed, pointer<const std::uint64_t>(seed_at)},
                     stream_at(stream));
  log_uniform_expected_counts(arrays.counts, log_range, stream_at(stream));
}

void unigram_candidates(Address probabilities, Address threshold, Address alias, Index V, Index num_sampled,
                        Address true_classes, Index M, bool unique, std::uint64_t seed, Address seed_at,
                        Address sampled, Address true_expected_count, Address sampled_expected_count, Address num_tries,
                        Address workspace, int device, Address stream) {
  const CandidateArrays arrays(num_sampled, unique, true_classes, M, sampled, true_expected_count,
                               sampled_expected_count, num_tries, workspace);
  const WithoutGil released;
  const CurrentDevice current(device);
  unigram_sample(arrays.sample, pointer<const double>(threshold), pointer<const Index>(alias), V,
                 {seed, pointer<const std::uint64_t>(seed_at)}, stream_at(stream));
  unigram_expected_counts(arrays.counts, pointer<const double>(probabilities), stream_at(stream));
}

void log_uniform_expected_count(Address classes, Index M, double log_range, Address num_tries, Index known_tries,
                                Index num_sampled, Address counts, int device, Address stream) {
  const ExpectedCounts list{{pointer<const Index>(classes), nullptr}, {M, 0},      {pointer<double>(counts), nullptr},
                            pointer<const Index>(num_tries),          known_tries, num_sampled};
  const WithoutGil released;
  const CurrentDevice current(device);
  log_uniform_expected_counts(list, log_range, stream_at(stream));
}

Index workspace_bytes(int float_bytes, Index B, Index K, Index S, Index E, bool with_logits) {
  return with_float(float_bytes,
                    [&]<class Float>() { return sampled_workspace_bytes<Float>(B, K, S, E, with_logits); });
}

template <class S>
SampledClasses<S> sampled_classes(Index B, Index K, Index sampled_count, Index E, Address weights, Address labels,
                                  Address inputs, Address sampled) {
  SampledClasses<S> call{};
  call.B = B;
  call.K = K;
  call.sampled_count = sampled_count;
  call.E = E;
  call.weights = pointer<const S>(weights);
  call.labels = pointer<const Index>(labels);
  call.inputs = pointer<const S>(inputs);
  call.sampled = pointer<const Index>(sampled);
  return call;
}

template <class S>
void set_offsets(SampledClasses<S>& call, Address biases, Address true_expected_count, Address sampled_expected_count,
                 bool remove_accidental_hits) {
  call.biases = pointer<const S>(biases);
  call.true_expected = pointer<const double>(true_expected_count);
  call.sampled_expected = pointer<const double>(sampled_expected_count);
  call.remove_accidental_hits = remove_accidental_hits;
}

template <class S>
void set_gradients(SampledClasses<S>& call, Address dinputs, Address indices, Address dweights, Address dbiases,
                   Address num_rows, Address workspace) {
  call.dinputs = pointer<S>(dinputs);
  call.segments.unique = pointer<Index>(indices);
  call.segments.count = pointer<int>(num_rows);
  call.dweights = pointer<S>(dweights);
  call.dbiases = pointer<S>(dbiases);
  call.workspace = pointer<char>(workspace);
}

void logits_forward(int float_bytes, Index B, Index K, Index S, Index E, Address weights, Address biases,
                    Address labels, Address inputs, Address sampled, Address true_expected_count,
                    Address sampled_expected_count, bool remove_accidental_hits, Address logits, Address is_true,
                    int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  with_float(float_bytes, [&]<class Float>() {
    auto call = sampled_classes<Float>(B, K, S, E, weights, labels, inputs, sampled);
    set_offsets(call, biases, true_expected_count, sampled_expected_count, remove_accidental_hits);
    call.logits = pointer<Float>(logits);
    call.is_true = pointer<Float>(is_true);
    sampled_logits_forward(call, stream_at(stream));
  });
}

void logits_backward(int float_bytes, Index B, Index K, Index S, Index E, Address weights, Address labels,
                     Address inputs, Address sampled, Address dlogits, Address dinputs, Address indices,
                     Address dweights, Address dbiases, Address num_rows, Address workspace, int device,
                     Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  with_float(float_bytes, [&]<class Float>() {
    auto call = sampled_classes<Float>(B, K, S, E, weights, labels, inputs, sampled);
    call.dlogits = pointer<const Float>(dlogits);
    set_gradients(call, dinputs, indices, dweights, dbiases, num_rows, workspace);
    sampled_logits_backward(call, stream_at(stream));
  });
}

void loss_and_gradients(int float_bytes, Index B, Index K, Index S, Index E, Address weights, Address biases,
                        Address labels, Address inputs, Address sampled, Address true_expected_count,
                        Address sampled_expected_count, bool remove_accidental_hits, Index num_true, bool softmax,
                        Address losses, Address dinputs, Address indices, Address dweights, Address dbiases,
                        Address num_rows, Address workspace, int device, Address stream) {
  const WithoutGil released;
  const CurrentDevice current(device);
  with_float(float_bytes, [&]<class Float>() {
    auto call = sampled_classes<Float>(B, K, S, E, weights, labels, inputs, sampled);
    set_offsets(call, biases, true_expected_count, sampled_expected_count, remove_accidental_hits);
    set_gradients(call, dinputs, indices, dweights, dbiases, num_rows, workspace);
    call.num_true = num_true;
    sampled_loss(call, softmax ? SampledLossKind::kSoftmax : SampledLossKind::kSigmoid, pointer<Float>(losses),
                 stream_at(stream));
  });
}

}  // namespace

void bind_sampling(py::module_& module) {
  module.def("sample_workspace_bytes", &sample_workspace_bytes, py::kw_only(), py::arg("num_sampled"),
             py::arg("unique"));
  module.def("log_uniform_candidates", &log_uniform_candidates, py::kw_only(), py::arg("num_sampled"),
             py::arg("range_max"), py::arg("true_classes"), py::arg("M"), py::arg("unique"), py::arg("log_range"),
             py::arg("seed"), py::arg("seed_at"), py::arg("sampled"), py::arg("true_expected_count"),
             py::arg("sampled_expected_count"), py::arg("num_tries"), py::arg("workspace"), py::arg("device"),
             py::arg("stream"));
  module.def("log_uniform_expected_count", &log_uniform_expected_count, py::kw_only(), py::arg("classes"), py::arg("M"),
             py::arg("log_range"), py::arg("num_tries"), py::arg("known_tries"), py::arg("num_sampled"),
             py::arg("counts"), py::arg("device"), py::arg("stream"));
  module.def("unigram_candidates", &unigram_candidates, py::kw_only(), py::arg("probabilities"), py::arg("threshold"),
             py::arg("alias"), py::arg("V"), py::arg("num_sampled"), py::arg("true_classes"), py::arg("M"),
             py::arg("unique"), py::arg("seed"), py::arg("seed_at"), py::arg("sampled"), py::arg("true_expected_count"),
             py::arg("sampled_expected_count"), py::arg("num_tries"), py::arg("workspace"), py::arg("device"),
             py::arg("stream"));
  module.def("sampled_workspace_bytes", &workspace_bytes, py::kw_only(), py::arg("float_bytes"), py::arg("B"),
             py::arg("K"), py::arg("S"), py::arg("E"), py::arg("with_logits"));
  module.def("sampled_logits_forward", &logits_forward, py::kw_only(), py::arg("float_bytes"), py::arg("B"),
             py::arg("K"), py::arg("S"), py::arg("E"), py::arg("weights"), py::arg("biases"), py::arg("labels"),
             py::arg("inputs"), py::arg("sampled"), py::arg("true_expected_count"), py::arg("sampled_expected_count"),
             py::arg("remove_accidental_hits"), py::arg("logits"), py::arg("is_true"), py::arg("device"),
             py::arg("stream"));
  module.def("sampled_logits_backward", &logits_backward, py::kw_only(), py::arg("float_bytes"), py::arg("B"),
             py::arg("K"), py::arg("S"), py::arg("E"), py::arg("weights"), py::arg("labels"), py::arg("inputs"),
             py::arg("sampled"), py::arg("dlogits"), py::arg("dinputs"), py::arg("indices"), py::arg("dweights"),
             py::arg("dbiases"), py::arg("num_rows"), py::arg("workspace"), py::arg("device"), py::arg("stream"));
  module.def("sampled_loss", &loss_and_gradients, py::kw_only(), py::arg("float_bytes"), py::arg("B"), py::arg("K"),
             py::arg("S"), py::arg("E"), py::arg("weights"), py::arg("biases"), py::arg("labels"), py::arg("inputs"),
             py::arg("sampled"), py::arg("true_expected_count"), py::arg("sampled_expected_count"),
             py::arg("remove_accidental_hits"), py::arg("num_true"), py::arg("softmax"), py::arg("losses"),
             py::arg("dinputs"), py::arg("indices"), py::arg("dweights"), py::arg("dbiases"), py::arg("num_rows"),
             py::arg("workspace"), py::arg("device"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
