// The Python module _cpu.
#include "bindings.h"

#include <string>

#include "kernels.h"
#include "threads.h"
#include "workspace.h"

namespace py = pybind11;

namespace fastlstm {

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "Compiled CPU kernels. Private: call fastlstm.ops, which checks what these functions trust.";
  module.def("isa", [] { return std::string(instruction_set().name); });
  module.def("bf16_in_hardware", [] { return instruction_set().bf16.in_hardware; });
  module.def("set_num_threads", &set_num_threads, py::arg("threads"));
  module.def("get_num_threads", &num_threads);
  module.def("team_size", &team_size, py::arg("threads"));
  module.def("set_teams_always", &set_teams_always, py::arg("always"));
  module.def("free_unused_buffers", &free_unused_buffers);
  module.def("buffer_bytes_in_use", &buffer_bytes_in_use);
  bind_dense(module);
  bind_dropout(module);
  bind_embedding(module);
  bind_losses(module);
  bind_optim(module);
  bind_recurrent(module);
  bind_sampling(module);
  bind_skipgram(module);
}

}  // namespace fastlstm
