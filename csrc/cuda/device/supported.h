// Which GPUs have code in the module: plain C++, tested without a GPU.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace fastlstm::cuda {

// Architectures that code was compiled for, as 10 major + minor: for these GPUs, and as PTX, from which a driver makes
// code for all later ones.
struct CompiledFor {
  std::vector<int> machine_code;
  int ptx;
};

// As cudaDriverGetVersion and cudaRuntimeGetVersion have it.
inline std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why the kernels have no code that a GPU can run; none if they have.
inline std::optional<std::string> why_no_code(int capability, int driver, int runtime, const CompiledFor& compiled) {
  std::string names;
  for (const int architecture : compiled.machine_code) {
    // Machine code runs on GPUs of the same major version and a minor one that is not lower.
    if (capability / 10 == architecture / 10 && capability >= architecture) return std::nullopt;
    names += (names.empty() ? "" : ", ") + std::to_string(architecture / 10) + "." + std::to_string(architecture % 10);
  }
  const std::string gpu = "the GPU has compute capability " + std::to_string(capability / 10) + "." +
                          std::to_string(capability % 10) + ", ";
  if (capability < compiled.ptx) {
    return gpu + "but this build has code for " + names + " only; build fastlstm for it, if it is 8.0 or later, with " +
           "-Ccmake.define.FASTLSTM_CUDA_ARCHITECTURES=native";
  }
  // PTX is younger than some drivers of its own major version, unlike machine code.
  if (driver < runtime) {
    return gpu + "for which the driver has to compile PTX of CUDA " + version_name(runtime) +
           ", but it supports CUDA " + version_name(driver) + "; install a newer driver, or build fastlstm with " +
           "an older nvcc or for this GPU, with -Ccmake.define.FASTLSTM_CUDA_ARCHITECTURES=native";
  }
  return std::nullopt;
}

}  // namespace fastlstm::cuda
