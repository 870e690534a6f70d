// The device that launches go to.
#pragma once

#include <cuda_runtime.h>

#include "check.h"

namespace fastlstm::cuda {

// Launches go to this device; the one that was current before comes back.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check(cudaGetDevice(&before_), "cannot ask for the current device");
    check(cudaSetDevice(device), "cannot use the device");
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace fastlstm::cuda
