// Dropout's masks: draw j of splitmix.h decides about element j.
#include "../../splitmix.h"
#include "../parallel.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_ISA {
namespace {

// Draws first, so that nothing branches on them: nobody can predict which elements stay.
constexpr Index kBlock = 64;

template <class S>
void fill(S* mask, Range range, double ratio, double kept, std::uint64_t seed) {
  for (Index first = range.begin; first < range.end; first += kBlock) {
    double draws[kBlock];
    for (Index k = 0; k < kBlock; ++k) draws[k] = uniform(seed, static_cast<std::uint64_t>(first + k));
    const Index count = min_of(kBlock, range.end - first);
    for (Index k = 0; k < count; ++k) mask[first + k] = static_cast<S>(draws[k] >= ratio ? kept : 0);
  }
}

template <class S>
void dropout_mask(S* mask, Index count, double ratio, double kept, std::uint64_t seed) {
  parallel_pieces(count, kBlock, count, [&](Range own) { fill(mask, own, ratio, kept, seed); });
}

}  // namespace

extern const DropoutKernels<float> dropout_float32 = {dropout_mask<float>};
extern const DropoutKernels<double> dropout_float64 = {dropout_mask<double>};

}  // namespace fastlstm::FASTLSTM_ISA
