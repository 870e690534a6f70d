// Word vectors: skip-gram pairs, and negative sampling pair by pair.
#include "../bindings.h"

#include <algorithm>

#include "../arrays.h"
#include "../sampling/candidates.h"
#include "kernels.h"
#include "pairs.h"

namespace fastlstm {
namespace {

py::array subsample_of(const py::array& ids, const py::array& keep, std::uint64_t seed) {
  const Array<std::int64_t> room(ids.size());
  Index count = 0;
  {
    const WithoutGil released;
    count = subsample(pointer<std::int64_t>(ids), ids.size(), pointer<double>(keep), seed, room.data());
  }
  py::array kept = new_array<std::int64_t>({count});
  std::copy_n(room.data(), count, writable<std::int64_t>(kept));
  return kept;
}

py::array skipgram_counts_of(const py::array& ids, Index window, Index start, Index stop, std::uint64_t seed) {
  py::array counts = new_array<std::int64_t>({stop - start});
  std::int64_t* const out = writable<std::int64_t>(counts);
  const WithoutGil released;
  skipgram_counts({pointer<std::int64_t>(ids), ids.size(), window, seed}, start, stop, out);
  return counts;
}

py::tuple skipgram_pairs_of(const py::array& ids, Index window, Index start, Index stop, std::uint64_t seed) {
  const Windows text{pointer<std::int64_t>(ids), ids.size(), window, seed};
  Index pairs = 0;
  {
    const WithoutGil released;
    const Array<std::int64_t> counts(stop - start);
    pairs = skipgram_counts(text, start, stop, counts.data());
  }
  py::array centers = new_array<std::int64_t>({pairs}), contexts = new_array<std::int64_t>({pairs});
  std::int64_t* const centers_out = writable<std::int64_t>(centers);
  std::int64_t* const contexts_out = writable<std::int64_t>(contexts);
  {
    const WithoutGil released;
    skipgram_pairs(text, start, stop, centers_out, contexts_out);
  }
  return py::make_tuple(centers, contexts);
}

// Returns the sum of the pairs' losses.
double negative_sampling_update(py::array vectors, py::array weights, const py::array& centers,
                                const py::array& contexts, const py::array& threshold, const py::array& alias,
                                Index num_sampled, double lr, std::uint64_t seed) {
  constexpr Index kBlock = 256;  // pairs whose negatives are drawn at once
  const Index M = centers.size(), V = threshold.size();
  return with_float_type(vectors, [&]<class S>() {
    SkipgramUpdate<S> update{.M = 0,
                             .K = num_sampled,
                             .E = vectors.shape(1),
                             .vectors = writable<S>(vectors),
                             .weights = writable<S>(weights),
                             .centers = nullptr,
                             .contexts = nullptr,
                             .negatives = nullptr,
                             .lr = static_cast<S>(lr),
                             .workspace = nullptr};
    const WithoutGil released;
    const Array<S> workspace(kernels<S>().skipgram->workspace(update));
    const Array<std::int64_t> negatives(kBlock * num_sampled);
    update.workspace = workspace.data();
    update.negatives = negatives.data();
    double loss = 0;
    for (Index m = 0; m < M; m += kBlock) {
      update.M = std::min(kBlock, M - m);
      update.centers = pointer<std::int64_t>(centers) + m;
      update.contexts = pointer<std::int64_t>(contexts) + m;
      unigram_draws(pointer<double>(threshold), pointer<std::int64_t>(alias), V,
                    static_cast<std::uint64_t>(m * num_sampled), update.M * num_sampled, seed, negatives.data());
      loss += kernels<S>().skipgram->update(update);
    }
    return loss;
  });
}

}  // namespace

void bind_skipgram(py::module_& module) {
  module.def("subsample", &subsample_of, py::arg("ids"), py::arg("keep"), py::arg("seed"));
  module.def("skipgram_counts", &skipgram_counts_of, py::arg("ids"), py::arg("window"), py::arg("start"),
             py::arg("stop"), py::arg("seed"));
  module.def("skipgram_pairs", &skipgram_pairs_of, py::arg("ids"), py::arg("window"), py::arg("start"), py::arg("stop"),
             py::arg("seed"));
  module.def("negative_sampling_update", &negative_sampling_update, py::arg("vectors"), py::arg("weights"),
             py::arg("centers"), py::arg("contexts"), py::arg("threshold"), py::arg("alias"), py::arg("num_sampled"),
             py::arg("lr"), py::arg("seed"));
}

}  // namespace fastlstm
