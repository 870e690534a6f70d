// Lets other Python threads run while a kernel computes.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>

namespace fastlstm {

// In place of pybind11's gil_scoped_release, which ends the process ("terminate called without an active exception")
// where a daemon thread is inside a kernel when the program ends: until 3.13, Python then ends the thread that asks for
// the GIL, by an exception that may not leave a destructor. Here the thread waits for the end of the process, as it
// does in later versions of Python.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace fastlstm
