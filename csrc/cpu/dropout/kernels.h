// What dropout takes; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

template <class S>
struct DropoutKernels {
  // mask[j] = kept if draw j of splitmix.h is at least ratio, else 0.
  void (*mask)(S* mask, Index count, double ratio, double kept, std::uint64_t seed);
};

}  // namespace fastlstm
