#include <algorithm>

#include "../device/device.h"
#include "../device/index.h"
#include "check_ids.h"

namespace fastlstm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 1024;

// Negative ids before those that are too large, the farthest off first.
__device__ long long rank_of(std::int64_t id) { return id < 0 ? id : Shared::kNothing - id; }
__device__ std::int64_t id_of(long long rank) { return rank < 0 ? rank : Shared::kNothing - rank; }

// Only if the host has read what was there before.
__device__ void tell_the_host(const IdCheck& check, std::int64_t value) {
  volatile Fault* const fault = check.fault;
  if (fault->full != 0) return;
  fault->source = check.source;
  fault->value = value;
  fence_system();
  fault->full = 1;
}

template <class Id>
__global__ void __launch_bounds__(kThreads) check_ids_kernel(IdCheck check) {
  const Id* const ids = static_cast<const Id*>(check.ids);
  Id* const checked = static_cast<Id*>(check.checked);
  long long worst = Shared::kNothing;
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < check.count; i += stride) {
    const std::int64_t id = ids[i];
    const bool right = (id >= 0 && id < check.upper) || (check.has_ignore_index && id == check.ignore_index);
    checked[i] = right ? static_cast<Id>(id) : Id{0};
    if (!right) {
      const long long rank = rank_of(id);
      worst = rank < worst ? rank : worst;
    }
  }
  if (worst != Shared::kNothing) atomic_min(&check.shared->worst, worst);
  __syncthreads();
  // The block that ends last has seen what all others found.
  if (threadIdx.x != 0 || take_ticket(&check.shared->finished) != gridDim.x - 1) return;
  check.shared->finished = 0;
  worst = atomic_exchange(&check.shared->worst, Shared::kNothing);
  if (worst != Shared::kNothing) tell_the_host(check, id_of(worst));
}

}  // namespace

void check_ids(const IdCheck& check, cudaStream_t stream) {
  if (check.count == 0) return;
  const auto blocks = static_cast<unsigned>(std::min(divide_up(check.count, kThreads), kMostBlocks));
  launch(check.wide ? check_ids_kernel<std::int64_t> : check_ids_kernel<std::int32_t>, dim3(blocks), kThreads, 0,
         stream, false, check);
}

}  // namespace fastlstm::cuda
