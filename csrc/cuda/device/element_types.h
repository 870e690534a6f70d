// Which types the numbers and ids of an array have, for bindings: Python tells by how many bytes one takes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastlstm::cuda {

// Calls body<S, Id>() with float or double, and std::int32_t or std::int64_t.
template <class Body>
void with_types(int float_bytes, int id_bytes, const Body& body) {
  if ((float_bytes != 4 && float_bytes != 8) || (id_bytes != 4 && id_bytes != 8)) {
    throw std::invalid_argument("float_bytes is " + std::to_string(float_bytes) + ", id_bytes is " +
                                std::to_string(id_bytes) + "; expected 4 or 8");
  }
  if (float_bytes == 4) {
    if (id_bytes == 4) return body.template operator()<float, std::int32_t>();
    return body.template operator()<float, std::int64_t>();
  }
  if (id_bytes == 4) return body.template operator()<double, std::int32_t>();
  return body.template operator()<double, std::int64_t>();
}

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline cudaStream_t stream_at(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

}  // namespace fastlstm::cuda
