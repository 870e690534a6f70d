// What each family of operators adds to the Python module, in a file of its own. Python passes addresses and sizes,
// which are trusted: fastlstm.backends.cuda owns the memory.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>

namespace fastlstm::cuda {

// An array, 0 where there is none, or a stream.
using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

inline cudaStream_t stream_at(Address address) { return reinterpret_cast<cudaStream_t>(address); }

// Why the kernels have no code that a device can run; none if they have.
std::optional<std::string> why_no_code_on(int device);

void bind_dropout(pybind11::module_& module);
void bind_embedding(pybind11::module_& module);
void bind_graph(pybind11::module_& module);
void bind_ids(pybind11::module_& module);
void bind_losses(pybind11::module_& module);
void bind_optim(pybind11::module_& module);
void bind_recurrent(pybind11::module_& module);
void bind_sampling(pybind11::module_& module);

}  // namespace fastlstm::cuda
