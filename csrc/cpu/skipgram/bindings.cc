// Word vectors: skip-gram pairs, and negative sampling pair by pair or, of CBOW, word by word.
#include "../bindings.h"

#include <algorithm>
#include <numeric>

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

constexpr Index kBlock = 256;  // pairs, or words of CBOW, whose negatives are drawn at once

// Runs `update` block by block, with the negatives of each; next(m) moves on to the block that begins at m. Returns the
// sum of the losses.
template <class S, class Update, class Next>
double in_blocks(Update& update, double (*run)(const Update&), Index M, const py::array& threshold,
                 const py::array& alias, std::uint64_t seed, Next&& next) {
  const WithoutGil released;
  const Array<S> workspace(kernels<S>().skipgram->workspace(update.K, update.E));
  const Array<std::int64_t> negatives(kBlock * update.K);
  update.workspace = workspace.data();
  update.negatives = negatives.data();
  double loss = 0;
  for (Index m = 0; m < M; m += kBlock) {
    update.M = std::min(kBlock, M - m);
    next(m);
    unigram_draws(pointer<double>(threshold), pointer<std::int64_t>(alias), threshold.size(),
                  static_cast<std::uint64_t>(m * update.K), update.M * update.K, seed, negatives.data());
    loss += run(update);
  }
  return loss;
}

// Returns the sum of the pairs' losses.
double negative_sampling_update(py::array vectors, py::array weights, const py::array& centers,
                                const py::array& contexts, const py::array& threshold, const py::array& alias,
                                Index num_sampled, double lr, std::uint64_t seed) {
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
    const auto next = [&](Index m) {
      update.centers = pointer<std::int64_t>(centers) + m;
      update.contexts = pointer<std::int64_t>(contexts) + m;
    };
    return in_blocks<S>(update, kernels<S>().skipgram->update, centers.size(), threshold, alias, seed, next);
  });
}

// Returns the sum of the words' losses.
double cbow_update(py::array vectors, py::array weights, const py::array& centers, const py::array& contexts,
                   const py::array& counts, const py::array& threshold, const py::array& alias, Index num_sampled,
                   double lr, bool divide_step, std::uint64_t seed) {
  return with_float_type(vectors, [&]<class S>() {
    CbowUpdate<S> update{.M = 0,
                         .K = num_sampled,
                         .E = vectors.shape(1),
                         .vectors = writable<S>(vectors),
                         .weights = writable<S>(weights),
                         .centers = nullptr,
                         .contexts = pointer<std::int64_t>(contexts),
                         .counts = nullptr,
                         .negatives = nullptr,
                         .lr = static_cast<S>(lr),
                         .divide_step = divide_step,
                         .workspace = nullptr};
    const auto next = [&](Index m) {
      const std::int64_t* const before = update.counts;
      update.centers = pointer<std::int64_t>(centers) + m;
      update.counts = pointer<std::int64_t>(counts) + m;
      if (before != nullptr) update.contexts += std::accumulate(before, update.counts, std::int64_t{0});
    };
    return in_blocks<S>(update, kernels<S>().skipgram->cbow_update, centers.size(), threshold, alias, seed, next);
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
  module.def("cbow_update", &cbow_update, py::arg("vectors"), py::arg("weights"), py::arg("centers"),
             py::arg("contexts"), py::arg("counts"), py::arg("threshold"), py::arg("alias"), py::arg("num_sampled"),
             py::arg("lr"), py::arg("divide_step"), py::arg("seed"));
}

}  // namespace fastlstm
