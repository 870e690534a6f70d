// The Python module _cuda: whether a GPU answers, and what each family of operators adds.
#include "bindings.h"

#include <cuda_runtime.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "device/check.h"
#include "device/supported.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

// FASTLSTM_MACHINE_CODE and FASTLSTM_PTX are what CMakeLists.txt names to nvcc.
const CompiledFor kCompiledFor{{FASTLSTM_MACHINE_CODE}, FASTLSTM_PTX};

// Why no kernel can run here and what to do about it; none if they can.
std::optional<std::string> why_not() {
  int driver = 0, runtime = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return "no NVIDIA driver is installed (libcuda is missing); install one for CUDA " + version_name(runtime) +
           " or later";
  }
  if (driver / 1000 < runtime / 1000) {
    return "the NVIDIA driver is too old: it supports CUDA " + version_name(driver) +
           ", fastlstm was built with CUDA " + version_name(runtime) +
           "; install a newer driver, or build fastlstm with an older nvcc";
  }
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    return std::string("no GPU answers (") + (error == cudaSuccess ? "none found" : cudaGetErrorString(error)) +
           "); see what nvidia-smi says, and CUDA_VISIBLE_DEVICES";
  }
  std::optional<std::string> reason;
  for (int device = 0; device < devices; ++device) {
    reason = why_no_code_on(device);
    if (!reason) break;  // one that can is enough
  }
  return reason;
}

}  // namespace

std::optional<std::string> why_no_code_on(int device) {
  int major = 0, minor = 0, driver = 0, runtime = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cannot ask for the device");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cannot ask for the device");
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return why_no_code(10 * major + minor, driver, runtime, kCompiledFor);
}

#if defined(FASTLSTM_CUDA_EMULATION)
PYBIND11_MODULE(_cuda_emulation, module) {
  module.def(
      "emulate",
      [](int multiprocessors, int shared_bytes, std::uint64_t seed, int largest_cluster) {
        emulation::settings = {multiprocessors, shared_bytes, seed, largest_cluster, 0};
      },
      py::arg("multiprocessors"), py::arg("shared_bytes"), py::arg("seed"), py::arg("largest_cluster") = 0);
  module.def("launches", [] { return emulation::settings.launches; });
#else
PYBIND11_MODULE(_cuda, module) {
#endif
  module.def("why_not", &why_not);
  module.def(
      "why_no_code",
      [](int capability, int driver, int runtime, const std::vector<int>& machine_code, int ptx) {
        return why_no_code(capability, driver, runtime, {machine_code, ptx});
      },
      py::kw_only(), py::arg("capability"), py::arg("driver"), py::arg("runtime"), py::arg("machine_code"),
      py::arg("ptx"));
  bind_dropout(module);
  bind_embedding(module);
  bind_graph(module);
  bind_ids(module);
  bind_losses(module);
  bind_optim(module);
  bind_recurrent(module);
  bind_sampling(module);
}

}  // namespace fastlstm::cuda
