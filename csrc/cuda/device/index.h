// Sizes, and places in arrays and workspaces.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../host_device.h"

namespace fastlstm::cuda {

using Index = std::int64_t;

template <class T>
FASTLSTM_HOST_DEVICE constexpr T divide_up(T a, std::type_identity_t<T> b) {
  return (a + b - 1) / b;
}
template <class T>
FASTLSTM_HOST_DEVICE constexpr T round_up(T a, std::type_identity_t<T> b) {
  return divide_up(a, b) * b;
}

// Parts of a workspace begin at multiples of so many bytes.
inline constexpr Index kAlignment = 256;

}  // namespace fastlstm::cuda
