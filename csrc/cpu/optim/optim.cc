// Optimiser kernels of one instruction set: one pass over a parameter, its gradient and its state.
#include "../parallel.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

template <class S>
struct Roots {
  FASTLSTM_INLINE static Vec<S> square_root(const Vec<S>& x) {
    Vec<S> root;
    for (int k = 0; k < kLanes<S>; ++k) root[k] = static_cast<S>(__builtin_sqrt(x[k]));
    return root;
  }
};

template <class S, OptimRule rule>
void update_elements(const OptimUpdate<S>& u, S* param, const S* grad, S* first, S* second, Index count) {
  constexpr bool kFirst = rule != OptimRule::kSgd;
  constexpr bool kSecond = rule == OptimRule::kAdam;
  for (Index k = 0; k < count; k += kLanes<S>) {
    const Index left = count - k;
    Vec<S> p = load_partial(param + k, left), a{}, b{};
    if constexpr (kFirst) a = load_partial(first + k, left);
    if constexpr (kSecond) b = load_partial(second + k, left);
    optim_step<rule, Roots<S>>(u.hyperparameters, p, load_partial(grad + k, left), a, b);
    store_partial(param + k, p, left);
    if constexpr (kFirst) store_partial(first + k, a, left);
    if constexpr (kSecond) store_partial(second + k, b, left);
  }
}

// Rows of one element, as the biases of classes have them.
template <class S, OptimRule rule>
void update_single_elements(const OptimUpdate<S>& u, Range rows) {
  const auto gather = [&](const S* from, Index row, Index count) {
    Vec<S> v{};
    for (Index k = 0; from && k < count; ++k) v[k] = from[u.ids[row + k]];
    return v;
  };
  const auto scatter = [&](S* to, const Vec<S>& v, Index row, Index count) {
    for (Index k = 0; to && k < count; ++k) to[u.ids[row + k]] = v[k];
  };
  for (Index row = rows.begin; row < rows.end; row += kLanes<S>) {
    const Index count = min_of(kLanes<S>, rows.end - row);
    Vec<S> p = gather(u.param, row, count), a = gather(u.first, row, count), b = gather(u.second, row, count);
    optim_step<rule, Roots<S>>(u.hyperparameters, p, load_partial(u.grad + row, count), a, b);
    scatter(u.param, p, row, count);
    scatter(u.first, a, row, count);
    scatter(u.second, b, row, count);
  }
}

template <class S, OptimRule rule>
void update_with(const OptimUpdate<S>& u) {
  const auto moved = [](S* p, Index by) { return p ? p + by : nullptr; };
  if (u.ids == nullptr) {
    parallel_pieces(u.rows * u.width, kLanes<S>, u.rows * u.width, [&](Range own) {
      update_elements<S, rule>(u, u.param + own.begin, u.grad + own.begin, moved(u.first, own.begin),
                               moved(u.second, own.begin), own.end - own.begin);
    });
  } else if (u.width == 1) {
    parallel_pieces(u.rows, kLanes<S>, u.rows, [&](Range own) { update_single_elements<S, rule>(u, own); });
  } else {
    parallel_pieces(u.rows, 1, u.rows * u.width, [&](Range own) {
      for (Index row = own.begin; row < own.end; ++row) {
        const Index place = static_cast<Index>(u.ids[row]) * u.width;
        update_elements<S, rule>(u, u.param + place, u.grad + row * u.width, moved(u.first, place),
                                 moved(u.second, place), u.width);
      }
    });
  }
}

template <class S>
void update(const OptimUpdate<S>& u) {
  switch (u.rule) {
    case OptimRule::kSgd:
      return update_with<S, OptimRule::kSgd>(u);
    case OptimRule::kMomentum:
      return update_with<S, OptimRule::kMomentum>(u);
    case OptimRule::kNesterov:
      return update_with<S, OptimRule::kNesterov>(u);
    case OptimRule::kAdaGrad:
      return update_with<S, OptimRule::kAdaGrad>(u);
    case OptimRule::kRmsProp:
      return update_with<S, OptimRule::kRmsProp>(u);
    case OptimRule::kAdam:
      return update_with<S, OptimRule::kAdam>(u);
  }
}

template <class S>
FASTLSTM_INLINE double squared_norm_of_chunk(const S* values, Index count) {
  constexpr int kHalf = kLanes<double>;
  Vec<double> sums[4] = {};
  Index k = 0;
  for (; k + 4 * kHalf <= count; k += 4 * kHalf) {
    for (int part = 0; part < 4; ++part) {
      Vec<double> wide;
      for (int lane = 0; lane < kHalf; ++lane) wide[lane] = static_cast<double>(values[k + part * kHalf + lane]);
      sums[part] += wide * wide;
    }
  }
  double rest = 0;
  for (; k < count; ++k) rest += static_cast<double>(values[k]) * static_cast<double>(values[k]);
  return sum_lanes<double>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

template <class S>
double squared_norm(const S* values, Index count) {
  // A fixed number of chunks, so that the order of the sum does not depend on the threads.
  constexpr Index kChunks = 64;
  double parts[kChunks];
  parallel_pieces(kChunks, 1, count / 4, [&](Range chunks) {
    for (Index c = chunks.begin; c < chunks.end; ++c) {
      const Range own = piece(count, c, kChunks);
      parts[c] = squared_norm_of_chunk(values + own.begin, own.end - own.begin);
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

template <class S>
void scale(S* values, Index count, S factor) {
  parallel_pieces(count, kLanes<S>, count, [=](Range own) {
    for (Index k = own.begin; k < own.end; k += kLanes<S>) {
      store_partial(values + k, load_partial(values + k, own.end - k) * factor, own.end - k);
    }
  });
}

template <class S>
void clip(S* values, Index count, S limit) {
  parallel_pieces(count, kLanes<S>, count, [=](Range own) {
    for (Index k = own.begin; k < own.end; k += kLanes<S>) {
      store_partial(values + k, clamp<S>(load_partial(values + k, own.end - k), -limit, limit), own.end - k);
    }
  });
}

template <class S>
constexpr OptimKernels<S> table() {
  return {update<S>, squared_norm<S>, scale<S>, clip<S>};
}

}  // namespace

extern const OptimKernels<float> optim_float32 = table<float>();
extern const OptimKernels<double> optim_float64 = table<double>();

}  // namespace fastlstm::FASTLSTM_ISA
