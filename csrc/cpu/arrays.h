// Arrays as the binding files see them: fastlstm.ops has checked shapes, dtypes and contiguity before.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "../without_gil.h"
#include "kernels.h"
#include "workspace.h"

namespace fastlstm {

namespace py = pybind11;

using OptionalArray = std::optional<py::array>;

template <class S>
const S* pointer(const py::array& array) {
  return static_cast<const S*>(array.data());
}
template <class S>
const S* pointer(const OptionalArray& array) {
  return array ? pointer<S>(*array) : nullptr;
}
template <class S>
S* writable(py::array& array) {
  return static_cast<S*>(array.mutable_data());
}

// What the memory of a large result belongs to: checks of what overlaps know that no two of these share any.
struct ResultMemory {
  Buffer buffer;
};

// A result array, C-contiguous or with these strides in bytes. Large ones come from the workspace pool and return to it
// when Python lets go of them: fresh memory costs a page fault every 4 KB.
template <class S>
py::array new_array(const std::vector<Index>& shape, const std::vector<Index>& strides = {}) {
  constexpr Index kLarge = 64 * 1024;
  Index bytes = sizeof(S);
  for (const Index length : shape) bytes *= length;
  if (bytes < kLarge) return py::array_t<S>(shape, strides);
  Buffer buffer = take_buffer(static_cast<std::size_t>(bytes), Kind::kResult);
  const S* const memory = static_cast<const S*>(buffer.get());
  return py::array_t<S>(shape, strides, memory, py::cast(ResultMemory{std::move(buffer)}));
}

// Calls body<float>() or body<double>(), as the array's elements are.
template <class Body>
auto with_float_type(const py::array& array, const Body& body) {
  return array.itemsize() == sizeof(float) ? body.template operator()<float>() : body.template operator()<double>();
}

template <class Body>
auto with_id_type(const py::array& ids, const Body& body) {
  return ids.itemsize() == sizeof(std::int32_t) ? body.template operator()<std::int32_t>()
                                                : body.template operator()<std::int64_t>();
}

}  // namespace fastlstm
