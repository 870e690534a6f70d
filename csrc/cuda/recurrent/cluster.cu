// The cluster kernel, of one precision: FASTLSTM_PRECISION.
#include <iterator>
#include <stdexcept>
#include <utility>

#include "cluster.h"
#include "run.h"

namespace fastlstm::cuda {
namespace {

template <class P, const auto& Js, std::size_t... i>
auto* find_cluster_kernel(Direction direction, int J, std::index_sequence<i...>) {
  void (*found)(ClusterArguments<P>) = nullptr;
  const auto consider = [&]<int compiled>() {
    if (compiled != J) return;
    found = direction == Direction::kForward ? run_cluster_forward<P, compiled> : run_cluster_backward<P, compiled>;
  };
  (consider.template operator()<Js[i]>(), ...);
  if (found == nullptr) throw std::logic_error("no kernel was compiled for the planned rows");
  return found;
}

}  // namespace

template <Precision p>
void run_clusters(const Plan& plan, const SequenceOf<p>& sequence, cudaStream_t stream) {
  using P = Arithmetic<p>;
  constexpr auto& Js = compiled_cluster_Js<p>();
  const PlannedPart& part = plan.parts[0];
  const ClusterArguments<P> a{sequence,   static_cast<int>(plan.unit_blocks), static_cast<int>(plan.units),
                              part.M,     static_cast<int>(part.chunks),      plan.k_parts,
                              plan.memory};
  auto* const kernel =
      find_cluster_kernel<P, Js>(sequence.direction, plan.tile.J, std::make_index_sequence<std::size(Js)>());
  launch_clusters(kernel, static_cast<unsigned>(plan.row_blocks), a.blocks, plan.threads, plan.shared_bytes, stream, a);
}

template <Precision p>
int largest_cluster_of(int device, Index shared_bytes) {
  return largest_cluster(run_cluster_forward<Arithmetic<p>, 1>, kTileThreads, shared_bytes, device);
}

template void run_clusters<Precision::FASTLSTM_PRECISION>(const Plan&, const SequenceOf<Precision::FASTLSTM_PRECISION>&,
                                                          cudaStream_t);
template int largest_cluster_of<Precision::FASTLSTM_PRECISION>(int, Index);

}  // namespace fastlstm::cuda
