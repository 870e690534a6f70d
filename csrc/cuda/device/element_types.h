// Which types the numbers and ids of an array have, for bindings: Python tells by how many bytes one takes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastlstm::cuda {

// Calls body<S>() with float or double.
template <class Body>
auto with_float(int float_bytes, const Body& body) {
  if (float_bytes == 4) return body.template operator()<float>();
  if (float_bytes == 8) return body.template operator()<double>();
  throw std::invalid_argument("float_bytes is " + std::to_string(float_bytes) + ", expected 4 or 8");
}

// Calls body<Id>() with std::int32_t or std::int64_t.
template <class Body>
void with_id(int id_bytes, const Body& body) {
  if (id_bytes == 4) return body.template operator()<std::int32_t>();
  if (id_bytes == 8) return body.template operator()<std::int64_t>();
  throw std::invalid_argument("id_bytes is " + std::to_string(id_bytes) + ", expected 4 or 8");
}

// Calls body<S, Id>().
template <class Body>
void with_types(int float_bytes, int id_bytes, const Body& body) {
  with_float(float_bytes,
             [&]<class S>() { with_id(id_bytes, [&]<class Id>() { body.template operator()<S, Id>(); }); });
}

}  // namespace fastlstm::cuda
