// What each family of operators adds to the Python module, in a file of its own. Only these files see Python: they take
// apart what fastlstm.backends.cpp passes (checked before by fastlstm.ops), make the result arrays and tapes, and call
// the kernels without the GIL.
//
// Arguments come by position: for one that comes by name pybind11 makes and looks up strings in every call, which takes
// longer than the smallest kernels.
#pragma once

#include <pybind11/pybind11.h>

namespace fastlstm {

void bind_dense(pybind11::module_& module);
void bind_dropout(pybind11::module_& module);
void bind_embedding(pybind11::module_& module);
void bind_losses(pybind11::module_& module);
void bind_optim(pybind11::module_& module);
void bind_recurrent(pybind11::module_& module);
void bind_sampling(pybind11::module_& module);
void bind_skipgram(pybind11::module_& module);

}  // namespace fastlstm
