// Compiled without fused multiply-add: every product and sum rounds by itself, as contract.py asks.
#include <algorithm>

#include "../../class_draws.h"
#include "../device/index.h"
#include "../device/reduce.h"
#include "candidates.h"

namespace fastlstm::cuda {
namespace {

using Word = unsigned long long;  // what atomics take

constexpr int kMostThreads = 1024;
constexpr int kThreads = 256;
constexpr int kMostWarps = kMostThreads / kWarp;
constexpr int kMostSharedSlots = 2048;
constexpr Word kNone = ~Word{0};

unsigned blocks_of(std::int64_t threads) { return static_cast<unsigned>(divide_up(threads, kThreads)); }

// ---- Different classes ---------------------------------------------------------------------------------------------

// One block makes a batch of draws at a time, a thread each. A hash table holds every class that came and the number of
// the draw it came with first, so it does not matter which thread was there first: a draw is valid if it is its class's
// first, and valid ones are put down in the order of their numbers.
template <class Draw>
struct UniqueSample {
  Draw draw;
  Seed seed;  // in the place of the draw's own
  Sample sample;
  int slot_bits;
  Word* table;  // null: shared memory
};

int threads_for(std::int64_t num_sampled) {
  constexpr std::int64_t kFewest = 128;
  return static_cast<int>(std::clamp<std::int64_t>(round_up(2 * num_sampled, kWarp), kFewest, kMostThreads));
}

// At most half of the slots are taken: by all classes of a sample but one, and by those of a batch.
int slot_bits_for(std::int64_t num_sampled) {
  int bits = 1;
  while ((std::int64_t{1} << bits) < 2 * (num_sampled + threads_for(num_sampled))) ++bits;
  return bits;
}

template <class Draw>
__global__ void __launch_bounds__(kMostThreads) draw_different(UniqueSample<Draw> call) {
  unsigned* const scratch = shared_memory<unsigned>();
  Word* const classes = call.table ? call.table : reinterpret_cast<Word*>(scratch + kMostWarps);
  const unsigned slots = 1u << call.slot_bits;
  Word* const first_draw = classes + slots;
  for (unsigned slot = threadIdx.x; slot < slots; slot += blockDim.x) classes[slot] = first_draw[slot] = kNone;
  __syncthreads();

  Draw draw = call.draw;
  draw.seed = call.seed.get();
  const std::int64_t num_sampled = call.sample.num_sampled;
  std::int64_t found = 0;
  for (std::uint64_t made = 0; found < num_sampled; made += blockDim.x) {
    const std::uint64_t j = made + threadIdx.x;
    const auto value = static_cast<Word>(draw(j));
    auto slot = static_cast<unsigned>(value * 0x9E3779B97F4A7C15u >> (64 - call.slot_bits));
    for (;;) {
      const Word before = atomicCAS(&classes[slot], kNone, value);
      if (before == kNone || before == value) break;
      slot = (slot + 1) & (slots - 1);
    }
    atomicMin(&first_draw[slot], static_cast<Word>(j));
    __syncthreads();
    const bool is_first = first_draw[slot] == j;
    const Place place = place_in_block(is_first, scratch);
    const std::int64_t at = found + place.before;
    if (is_first && at < num_sampled) {
      call.sample.sampled[at] = static_cast<std::int64_t>(value);
      if (at == num_sampled - 1) *call.sample.num_tries = static_cast<std::int64_t>(j) + 1;
    }
    found += place.all;
  }
}

// ---- With repeats --------------------------------------------------------------------------------------------------

template <class Draw>
struct PlainSample {
  Draw draw;
  Seed seed;  // in the place of the draw's own
  Sample sample;
};

template <class Draw>
__global__ void draw_all(PlainSample<Draw> call) {
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j == 0) *call.sample.num_tries = call.sample.num_sampled;
  if (j >= call.sample.num_sampled) return;
  Draw draw = call.draw;
  draw.seed = call.seed.get();
  call.sample.sampled[j] = draw(static_cast<std::uint64_t>(j));
}

template <class Draw>
void draw(const Draw& draw, Seed seed, const Sample& sample, cudaStream_t stream) {
  if (!sample.unique) {
    launch(draw_all<Draw>, dim3(std::max(1u, blocks_of(sample.num_sampled))), kThreads, 0, stream, false,
           PlainSample<Draw>{draw, seed, sample});
    return;
  }
  const int bits = slot_bits_for(sample.num_sampled);
  const bool in_shared = (1 << bits) <= kMostSharedSlots;
  const std::int64_t bytes =
      kMostWarps * sizeof(unsigned) + (in_shared ? (std::int64_t{2} << bits) * static_cast<int>(sizeof(Word)) : 0);
  launch(draw_different<Draw>, dim3(1), threads_for(sample.num_sampled), bytes, stream, false,
         UniqueSample<Draw>{draw, seed, sample, bits, in_shared ? nullptr : reinterpret_cast<Word*>(sample.workspace)});
}

// ---- Expected counts -----------------------------------------------------------------------------------------------

struct LogUniformLaw {
  double log_range;
  __device__ double operator()(std::int64_t value) const { return log_uniform_probability(value, log_range); }
};

struct UnigramLaw {
  const double* probabilities;
  __device__ double operator()(std::int64_t value) const { return probabilities[value]; }
};

template <class Law>
struct CountCall {
  Law law;
  ExpectedCounts list;
};

template <class Law>
__global__ void count_expected(CountCall<Law> call) {
  const ExpectedCounts& list = call.list;
  std::int64_t m = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (m >= list.size[0] + list.size[1]) return;
  const bool second = m >= list.size[0];
  if (second) m -= list.size[0];
  const std::int64_t value = (second ? list.classes[1] : list.classes[0])[m];
  const std::int64_t num_tries = list.num_tries ? *list.num_tries : list.known_tries;
  (second ? list.counts[1] : list.counts[0])[m] = expected_count(call.law(value), num_tries, list.num_sampled);
}

template <class Law>
void count(const Law& law, const ExpectedCounts& counts, cudaStream_t stream) {
  const unsigned blocks = blocks_of(counts.size[0] + counts.size[1]);
  if (blocks > 0) launch(count_expected<Law>, dim3(blocks), kThreads, 0, stream, false, CountCall<Law>{law, counts});
}

}  // namespace

std::int64_t sample_workspace_bytes(std::int64_t num_sampled, bool unique) {
  if (!unique) return 0;
  const std::int64_t slots = std::int64_t{1} << slot_bits_for(num_sampled);
  return slots <= kMostSharedSlots ? 0 : 2 * slots * static_cast<std::int64_t>(sizeof(Word));
}

void log_uniform_sample(const Sample& sample, std::int64_t range_max, double log_range, Seed seed,
                        cudaStream_t stream) {
  draw(LogUniform{range_max, log_range, 0}, seed, sample, stream);
}

void unigram_sample(const Sample& sample, const double* threshold, const std::int64_t* alias, std::int64_t V, Seed seed,
                    cudaStream_t stream) {
  draw(AliasDraw{threshold, alias, V, 0}, seed, sample, stream);
}

void log_uniform_expected_counts(const ExpectedCounts& counts, double log_range, cudaStream_t stream) {
  count(LogUniformLaw{log_range}, counts, stream);
}

void unigram_expected_counts(const ExpectedCounts& counts, const double* probabilities, cudaStream_t stream) {
  count(UnigramLaw{probabilities}, counts, stream);
}

}  // namespace fastlstm::cuda
