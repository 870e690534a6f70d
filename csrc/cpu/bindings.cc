// The Python module _cpu.
#include "bindings.h"

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>

#include "arrays.h"
#include "kernels.h"
#include "platform.h"
#include "threads.h"
#include "workspace.h"

namespace py = pybind11;

namespace fastlstm {
namespace {

// Ctrl-C while a region runs, which is without the GIL. Python runs handlers of signals on its main thread alone; in a
// forked child that is the one that forked.
std::atomic<unsigned long> main_thread{0};

bool handler_raised() {
  if (PyThread_get_thread_ident() != main_thread.load(std::memory_order_relaxed)) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;  // the exception stays set until Stopped is translated
  PyGILState_Release(state);
  return raised;
}

void stop_at_signals() {
  main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  at_fork(nullptr, nullptr, [] { main_thread = PyThread_get_thread_ident(); });
  set_should_stop(&handler_raised);
  py::register_local_exception_translator([](std::exception_ptr exception) {
    try {
      if (exception) std::rethrow_exception(exception);
    } catch (const Stopped&) {
      // what the handler has raised
    }
  });
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "Compiled CPU kernels. Private: call fastlstm.ops, which checks what these functions trust.";
  module.def("isa", [] { return std::string(instruction_set().name); });
  module.def("bf16_in_hardware", [] { return instruction_set().bf16.in_hardware; });
  module.def("set_num_threads", &set_num_threads, py::arg("threads"));
  module.def("get_num_threads", &num_threads);
  module.def("team_size", &team_size, py::arg("threads"));
  module.def(
      "run_on_openmp",
      [](std::uintptr_t parallel, std::uintptr_t thread_num, std::uintptr_t num_threads, std::uintptr_t max_threads,
         std::uintptr_t in_parallel) {
        const auto get = [](std::uintptr_t address) { return reinterpret_cast<int (*)()>(address); };
        run_on({reinterpret_cast<decltype(OpenMp::parallel)>(parallel), get(thread_num), get(num_threads),
                get(max_threads), get(in_parallel)});
      },
      py::arg("GOMP_parallel"), py::arg("omp_get_thread_num"), py::arg("omp_get_num_threads"),
      py::arg("omp_get_max_threads"), py::arg("omp_in_parallel"));
  module.def("set_teams_always", &set_teams_always, py::arg("always"));
  module.def("free_unused_buffers", &free_unused_buffers);
  module.def("buffer_bytes_in_use", &buffer_bytes_in_use);
  stop_at_signals();
  const py::class_<ResultMemory> owner(module, "ResultMemory");
  py::module_::import("fastlstm.arrays").attr("OWNERS").attr("append")(owner);
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
