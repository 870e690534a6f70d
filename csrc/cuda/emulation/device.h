// device.h on the CPU: every thread of a block is a fiber, all of them on one processor. A fiber runs until it has to
// wait for others, and who runs next is drawn at random: what depends on a missing barrier changes from seed to seed.
// Shared memory starts as NaN and ends in a margin that nobody may write. Stores into other blocks of a cluster come
// later, in any order. What this cannot show: the order in which a GPU makes writes visible (it is sequentially
// consistent), and time. A launch may wait for room in the GPU's queue, and for callbacks of Python's that are in it:
// so none may keep Python's lock.
#pragma once

#include <Python.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

namespace fastlstm::cuda {
namespace emulation {

// Threads that wait for each other: all of a block, or of a warp.
struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  const void* given[32] = {};
};

struct Block {
  uint3 index;
  std::vector<Packed16> shared;
  std::size_t shared_bytes;
  Barrier barrier;
  std::vector<Warp> warps;
  unsigned left = 0;  // threads that have come to their end
};

// What a GPU keeps in the 64 bits of an mbarrier.
struct MbarrierState {
  std::int32_t missing;    // bytes of the phase, negative while they are not expected yet
  std::uint16_t arrivals;  // that the phase still needs
  std::uint8_t parity;     // of the phase that is not complete
  std::uint8_t mark;       // that it has been initialised
};
static_assert(sizeof(MbarrierState) == sizeof(Mbarrier));
constexpr std::uint8_t kMbarrierMark = 0x5a;

// A store into the shared memory of a block of the cluster, on its way.
struct RemoteStore {
  std::size_t rank, place, barrier;  // bytes from the start of the shared memory
  Packed16 value;
};

class Stack {
 public:
  static constexpr std::size_t kBytes = 128 * 1024;
  Stack() : memory_(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Stack() { munmap(memory_, kBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  void* memory() const { return memory_; }

 private:
  void* memory_;
};

struct Fiber {
  uint3 thread;
  Block* block;
  Stack* stack;
  ucontext_t start;
  jmp_buf here;
  bool started = false, done = false;
  const Barrier* waits_for = nullptr;
  unsigned generation = 0;  // the barrier's when the wait began
  const MbarrierState* waits_for_bytes = nullptr;
  int parity = 0;

  bool waits() const {
    return (waits_for && waits_for->generation == generation) || (waits_for_bytes && waits_for_bytes->parity == parity);
  }
};

class Scheduler {
 public:
  static Scheduler& instance() {
    static Scheduler scheduler;
    return scheduler;
  }

  // Runs all threads of some blocks to their end.
  void run(std::vector<Block>& blocks, unsigned threads, const std::function<void()>& body) {
    body_ = &body;
    blocks_ = &blocks;
    together_ = {static_cast<unsigned>(blocks.size()) * threads, 0, 0};
    stores_.clear();
    std::vector<Fiber> fibers(blocks.size() * threads);
    while (stacks_.size() < fibers.size()) stacks_.push_back(std::make_unique<Stack>());
    std::vector<Fiber*> order;
    for (std::size_t i = 0; i < fibers.size(); ++i) {
      fibers[i].thread = {static_cast<unsigned>(i) % threads, 0, 0};
      fibers[i].block = &blocks[i / threads];
      fibers[i].stack = stacks_[i].get();
      order.push_back(&fibers[i]);
    }
    for (Block& block : blocks) {
      block.barrier.expected = threads;
      block.warps.resize(threads / 32);
      for (Warp& warp : block.warps) warp.barrier.expected = 32;
    }
    std::mt19937_64 draw(settings.seed);
    // Threads that poll a counter make no progress of their own: some rounds without any mean that nobody ever will.
    constexpr int kPatience = 1000;
    // And one block at a time, or one of its warps, is much slower than the others, so that who does not wait for it is
    // seen.
    constexpr int kRoundsOfSlowness = 64, kSlowness = 32;
    const Block* slow = nullptr;
    unsigned slow_warp = 0;  // or all, if there is none with this number
    int round = 0;
    for (int idle = 0; !order.empty(); ++idle, ++round) {
      if (blocks.size() > 1 && round % kRoundsOfSlowness == 0) {
        slow = &blocks[draw() % blocks.size()];
        slow_warp = static_cast<unsigned>(draw() % (2 * threads / 32));
      }
      const auto is_slow = [&](const Fiber& fiber) {
        return fiber.block == slow && (slow_warp >= threads / 32 || fiber.thread.x / 32 == slow_warp);
      };
      if (idle > kPatience) throw std::runtime_error("emulation: every thread waits for another one");
      std::shuffle(order.begin(), order.end(), draw);
      std::size_t number = 0;
      for (Fiber* fiber : order) {
        constexpr std::size_t kFibersBetweenStores = 64;
        if (!stores_.empty() && number++ % kFibersBetweenStores == 0 && deliver_some(draw)) idle = 0;
        if (fiber->waits()) continue;
        if (is_slow(*fiber) && round % kSlowness != kSlowness - 1) continue;  // and it begins late
        fiber->waits_for = nullptr;
        fiber->waits_for_bytes = nullptr;
        progress_ = false;
        resume(*fiber);
        if (progress_) idle = 0;
      }
      std::erase_if(order, [](const Fiber* fiber) { return fiber->done; });
    }
    while (!stores_.empty()) deliver_some(draw);
  }

  Fiber& current() { return *current_; }

  void arrive_and_wait(Barrier& barrier) {
    progress_ = true;
    if (++barrier.arrived == barrier.expected) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    current_->waits_for = &barrier;
    current_->generation = barrier.generation;
    yield();
  }

  // All threads of the blocks that run together.
  void wait_for_all() { arrive_and_wait(together_); }

  void wait_for_bytes(const MbarrierState& barrier, int parity) {
    progress_ = true;
    if (barrier.parity != parity) return;
    current_->waits_for_bytes = &barrier;
    current_->parity = parity;
    yield();
  }

  void send(const RemoteStore& store) { stores_.push_back(store); }

  int rank() const { return static_cast<int>(current_->block - blocks_->data()); }

  // For a thread that polls: others run meanwhile.
  void yield() {
    if (_setjmp(current_->here) == 0) _longjmp(home_, 1);
  }

  void made_progress() { progress_ = true; }

 private:
  // Any of the stores that are on their way arrive, often none. Whether one did.
  template <class Draw>
  bool deliver_some(Draw& draw) {
    constexpr unsigned kSeldom = 4;
    if (draw() % kSeldom != 0) return false;
    const std::size_t count = draw() % (stores_.size() + 1);
    for (std::size_t i = 0; i < count; ++i) {
      std::swap(stores_[draw() % stores_.size()], stores_.back());
      deliver(stores_.back());
      stores_.pop_back();
    }
    return count > 0;
  }

  void deliver(const RemoteStore& store) {
    if (blocks_->size() < 2) throw std::runtime_error("emulation: a remote store in a cluster of one block");
    if (store.rank >= blocks_->size()) throw std::runtime_error("emulation: a store to a block that is not there");
    Block& to = (*blocks_)[store.rank];
    if (to.left == to.barrier.expected) throw std::runtime_error("emulation: a store to a block that has left");
    if (store.place % sizeof(Packed16) != 0 || store.place + sizeof(Packed16) > to.shared_bytes) {
      throw std::runtime_error("emulation: a store beyond the shared memory of another block");
    }
    auto* const memory = reinterpret_cast<unsigned char*>(to.shared.data());
    auto& barrier = *reinterpret_cast<MbarrierState*>(memory + store.barrier);
    if (barrier.mark != kMbarrierMark) throw std::runtime_error("emulation: a store for an mbarrier that is not ready");
    std::memcpy(memory + store.place, &store.value, sizeof(Packed16));
    complete(barrier, sizeof(Packed16), 0);
  }

 public:
  static void complete(MbarrierState& barrier, int bytes, int arrivals) {
    barrier.missing -= bytes;
    barrier.arrivals = static_cast<std::uint16_t>(barrier.arrivals - arrivals);
    if (barrier.missing == 0 && barrier.arrivals == 0) {
      barrier.parity ^= 1;
      barrier.arrivals = 1;
    }
  }

 private:
  void resume(Fiber& fiber) {
    current_ = &fiber;
    threadIdx = fiber.thread;
    blockIdx = fiber.block->index;
    if (_setjmp(home_) != 0) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack->memory();
    fiber.start.uc_stack.ss_size = Stack::kBytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, &Scheduler::enter, 0);
    setcontext(&fiber.start);
  }

  static void enter() {
    Scheduler& scheduler = instance();
    (*scheduler.body_)();
    scheduler.current_->done = true;
    ++scheduler.current_->block->left;
    scheduler.progress_ = true;
    _longjmp(scheduler.home_, 1);
  }

  const std::function<void()>* body_ = nullptr;
  std::vector<Block>* blocks_ = nullptr;  // that run just now
  Barrier together_;
  std::vector<RemoteStore> stores_;
  std::vector<std::unique_ptr<Stack>> stacks_;
  Fiber* current_ = nullptr;
  jmp_buf home_;
  bool progress_ = false;
};

// What each lane of the warp passed, for all of them. Every lane has to come here.
template <class T>
std::vector<T> gather(const T& mine) {
  Scheduler& scheduler = Scheduler::instance();
  Fiber& fiber = scheduler.current();
  Warp& warp = fiber.block->warps[fiber.thread.x / 32];
  warp.given[fiber.thread.x % 32] = &mine;
  scheduler.arrive_and_wait(warp.barrier);
  std::vector<T> all(32);
  for (int lane = 0; lane < 32; ++lane) all[lane] = *static_cast<const T*>(warp.given[lane]);
  scheduler.arrive_and_wait(warp.barrier);  // nobody changes what another still reads
  return all;
}

struct MmaOperands {
  Packed16 a;
  std::uint32_t b[2];
};

// c (16, 8) += a (16, K) b (K, 8), K in words of `per_word` numbers, from the fragments that the PTX ISA describes.
template <int per_word, class Unpack>
void mma(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1, const Unpack& unpack) {
  const std::vector<MmaOperands> lanes = gather(MmaOperands{a, {b0, b1}});
  constexpr int K = 8 * per_word;
  const auto a_at = [&](int row, int k) {
    const int word = k / per_word % 4, upper = k / per_word / 4;
    const Packed16& q = lanes[row % 8 * 4 + word].a;
    const std::uint32_t registers[4] = {q.x, q.y, q.z, q.w};
    return unpack(registers[row / 8 + 2 * upper], k % per_word);
  };
  const auto b_at = [&](int k, int column) {
    const int word = k / per_word % 4, upper = k / per_word / 4;
    return unpack(lanes[column * 4 + word].b[upper], k % per_word);
  };
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < K; ++k) c[i] += a_at(row, k) * b_at(k, column);
  }
}

inline float float_with_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr unsigned char kNaNByte = 0xff;
constexpr std::size_t kMarginPacks = 16;

inline void fill_shared(Block& block, std::size_t bytes) {
  block.shared_bytes = bytes;
  block.shared.resize((bytes + sizeof(Packed16) - 1) / sizeof(Packed16) + kMarginPacks);
  std::memset(block.shared.data(), kNaNByte, block.shared.size() * sizeof(Packed16));
}

inline void check_margin(const Block& block, std::size_t bytes) {
  const auto* const memory = reinterpret_cast<const unsigned char*>(block.shared.data());
  for (std::size_t i = bytes; i < block.shared.size() * sizeof(Packed16); ++i) {
    if (memory[i] != kNaNByte) throw std::runtime_error("emulation: a kernel wrote beyond its shared memory");
  }
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::Scheduler& scheduler = emulation::Scheduler::instance();
  scheduler.arrive_and_wait(scheduler.current().block->barrier);
}
inline void __syncwarp() {
  emulation::Fiber& fiber = emulation::Scheduler::instance().current();
  emulation::Scheduler::instance().arrive_and_wait(fiber.block->warps[fiber.thread.x / 32].barrier);
}

template <class T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::Scheduler::instance().current().block->shared.data());
}

inline Packed16 load_l2(const Packed16* p) { return *p; }

inline void add_release(unsigned* counter) {
  emulation::Scheduler::instance().made_progress();
  ++*counter;
}
inline unsigned load_acquire(const unsigned* counter) {
  emulation::Scheduler::instance().yield();
  return *counter;
}

inline unsigned take_ticket(unsigned* counter) { return (*counter)++; }
inline void atomic_min(long long* p, long long value) { *p = value < *p ? value : *p; }
inline long long atomic_exchange(long long* p, long long value) { return std::exchange(*p, value); }
inline void fence_system() {}

template <class T>
T shuffle_xor(T value, int bits) {
  return emulation::gather(value)[(static_cast<int>(threadIdx.x) % 32) ^ bits];
}

template <class T>
T shuffle(T value, int lane) {
  return emulation::gather(value)[lane];
}

inline unsigned ballot(bool yes) {
  const std::vector<bool> lanes = emulation::gather(yes);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(lanes[lane]) << lane;
  return bits;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

// Other threads run before each of them.
inline unsigned long long atomicCAS(unsigned long long* p, unsigned long long expected, unsigned long long desired) {
  emulation::Scheduler::instance().made_progress();
  emulation::Scheduler::instance().yield();
  const unsigned long long before = *p;
  if (before == expected) *p = desired;
  return before;
}
inline unsigned long long atomicMin(unsigned long long* p, unsigned long long value) {
  emulation::Scheduler::instance().made_progress();
  emulation::Scheduler::instance().yield();
  const unsigned long long before = *p;
  *p = std::min(before, value);
  return before;
}

template <class S, int n>
void sum_over_four_lanes(S (&values)[n]) {
  struct Values {
    S v[n];
  };
  Values mine;
  std::memcpy(mine.v, values, sizeof values);
  const std::vector<Values> all = emulation::gather(mine);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int k = 0; k < n; ++k) {
    values[k] = (all[lane].v[k] + all[lane ^ 1].v[k]) + (all[lane ^ 2].v[k] + all[lane ^ 3].v[k]);
  }
}

// The hardware reads the upper 19 bits.
inline void mma_tf32(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
  emulation::mma<1>(c, a, b0, b1,
                    [](std::uint32_t word, int) { return emulation::float_with_bits(word & 0xffffe000u); });
}
inline void mma_bf16(float (&c)[4], const Packed16& a, std::uint32_t b0, std::uint32_t b1) {
  emulation::mma<2>(c, a, b0, b1, [](std::uint32_t word, int k) {
    return emulation::float_with_bits(k == 0 ? word << 16 : word & 0xffff0000u);
  });
}

#define FASTLSTM_CLUSTERS 1

inline int cluster_rank() { return emulation::Scheduler::instance().rank(); }
inline void cluster_barrier() { emulation::Scheduler::instance().wait_for_all(); }

inline void mbarrier_init(Mbarrier* barrier) {
  *reinterpret_cast<emulation::MbarrierState*>(barrier) = {0, 1, 0, emulation::kMbarrierMark};
}
inline void mbarrier_expect(Mbarrier* barrier, int bytes) {
  emulation::Scheduler::instance().made_progress();
  emulation::Scheduler::complete(*reinterpret_cast<emulation::MbarrierState*>(barrier), -bytes, 1);
}
inline void mbarrier_wait(Mbarrier* barrier, int parity) {
  emulation::Scheduler::instance().wait_for_bytes(*reinterpret_cast<emulation::MbarrierState*>(barrier), parity);
}

inline void store_remote(Packed16* place, Mbarrier* barrier, int rank, const Packed16& value) {
  emulation::Scheduler& scheduler = emulation::Scheduler::instance();
  const auto* const start = reinterpret_cast<const unsigned char*>(scheduler.current().block->shared.data());
  const auto offset = [&](const void* p) {
    return static_cast<std::size_t>(static_cast<const unsigned char*>(p) - start);
  };
  scheduler.send({static_cast<std::size_t>(rank), offset(place), offset(barrier), value});
}

inline void trap() { std::abort(); }

namespace emulation {

// Runs `at_once` blocks together, then the next ones.
template <class Arguments>
void run_blocks(void (*kernel)(Arguments), dim3 grid, int threads, std::int64_t shared_bytes, unsigned at_once,
                const Arguments& arguments) {
  if (PyGILState_Check()) throw std::runtime_error("emulation: a launch that keeps other Python threads waiting");
  static std::mutex mutex;
  const std::lock_guard<std::mutex> one_launch_at_a_time(mutex);
  if (shared_bytes > settings.shared_bytes) throw std::runtime_error("emulation: too much shared memory");
  ++settings.launches;
  gridDim = grid;
  blockDim = dim3(static_cast<unsigned>(threads));
  const std::function<void()> body = [&] { kernel(arguments); };
  const auto bytes = static_cast<std::size_t>(shared_bytes);
  // Neighbours stay together.
  std::vector<unsigned> order(grid.x * grid.y / at_once);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(settings.seed));
  for (const unsigned number : order) {
    std::vector<Block> blocks(at_once);
    for (unsigned i = 0; i < at_once; ++i) {
      const unsigned block = number * at_once + i;
      blocks[i].index = {block % grid.x, block / grid.x, 0};
      fill_shared(blocks[i], bytes);
    }
    Scheduler::instance().run(blocks, static_cast<unsigned>(threads), body);
    for (const Block& block : blocks) check_margin(block, bytes);
  }
}

}  // namespace emulation

template <class Arguments>
int largest_cluster(void (*)(Arguments), int, std::int64_t, int) {
  return emulation::settings.largest_cluster;
}

template <class Arguments>
void launch_clusters(void (*kernel)(Arguments), unsigned clusters, int size, int threads, std::int64_t shared_bytes,
                     cudaStream_t, Arguments arguments) {
  if (size > std::min(emulation::settings.largest_cluster, emulation::settings.multiprocessors)) {
    throw std::runtime_error("emulation: too large a cluster");
  }
  const auto blocks = static_cast<unsigned>(size);
  emulation::run_blocks(kernel, dim3(clusters * blocks), threads, shared_bytes, blocks, arguments);
}

template <class Arguments>
void launch(void (*kernel)(Arguments), dim3 grid, int threads, std::int64_t shared_bytes, cudaStream_t, bool together,
            Arguments arguments) {
  using namespace emulation;
  const unsigned count = grid.x * grid.y;
  if (together && count > static_cast<unsigned>(settings.multiprocessors)) {
    throw std::runtime_error("emulation: too many blocks to run at once");
  }
  // Blocks that need not run at once run one after the other.
  run_blocks(kernel, grid, threads, shared_bytes, together ? count : 1, arguments);
}

}  // namespace fastlstm::cuda
