#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#include "platform.h"

namespace fastlstm {
namespace {

inline void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Duration = std::chrono::nanoseconds;

// About 0.2 ms: longer than Python's part between two regions of a training step, shorter than anyone notices. Waking a
// sleeping thread takes as long as a small region.
constexpr int kSpins = 16000;
constexpr int kSpinsOfShortWait = 256;  // too short to be worth a look at the clock

// How long this thread has waited in the region at hand, short waits apart.
thread_local Duration waited{};

std::uint32_t spin_while(const std::atomic<std::uint32_t>& value, std::uint32_t old, int spins) {
  for (int k = 0; k < spins; ++k) {
    const std::uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_cpu();
  }
  return old;
}

// Waits until value differs from old: spins briefly, then sleeps in the kernel.
std::uint32_t wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  std::uint32_t now = spin_while(value, old, kSpinsOfShortWait);
  if (now != old) return now;
  const Time begin = Clock::now();
  now = spin_while(value, old, kSpins);
  if (now == old) {
    value.wait(old, std::memory_order_acquire);
    now = value.load(std::memory_order_acquire);
  }
  waited += Clock::now() - begin;
  return now;
}

#if defined(__linux__)
// Cores the process may run on, as they were when the module was loaded. A thread inherits those of the thread that
// makes it, and OpenMP's binding (OMP_PROC_BIND, GOMP_CPU_AFFINITY) leaves the main thread a single one.
struct ProcessCores {
  cpu_set_t set;
  bool known = sched_getaffinity(getpid(), sizeof set, &set) == 0;
};
const ProcessCores process_cores{};

void run_on_process_cores() {
  if (process_cores.known) sched_setaffinity(0, sizeof process_cores.set, &process_cores.set);
}

// How many cores the calling thread may run on.
int own_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : std::numeric_limits<int>::max();
}
#else
void run_on_process_cores() {}
int own_cores() { return std::numeric_limits<int>::max(); }
#endif

}  // namespace

// Whether the region of a caller is to stop.
class StopRequest {
 public:
  bool made() const { return made_.load(std::memory_order_relaxed); }

  // On the caller's thread. Looks at the clock the more rarely the more often it is called.
  void look() {
    if (--calls_left_ > 0) return;
    const Time now = Clock::now();
    calls_ = now - looked_ < kShort ? std::min(2 * calls_, kMostCalls) : 1;
    calls_left_ = calls_;
    if (looked_ == Time{}) asked_ = now;
    looked_ = now;
    if (now - asked_ < kPatience) return;
    asked_ = now;
    const auto should_stop = should_stop_.load(std::memory_order_relaxed);
    if (should_stop && should_stop()) made_.store(true, std::memory_order_relaxed);
  }

  static inline std::atomic<bool (*)()> should_stop_{nullptr};

 private:
  static constexpr int kMostCalls = 64;
  static constexpr Duration kShort = std::chrono::milliseconds(1), kPatience = std::chrono::milliseconds(100);
  std::atomic<bool> made_{false};
  int calls_ = 1, calls_left_ = 1;
  Time looked_{}, asked_{};
};

// Items of one member that nobody has taken: begin in the upper half, end in the lower.
class Share {
 public:
  void set(std::uint64_t begin, std::uint64_t end) { range_.store(begin << 32 | end, std::memory_order_relaxed); }

  // The first item, or the last; -1 if none is left.
  std::ptrdiff_t take(bool first) {
    std::uint64_t range = range_.load(std::memory_order_relaxed);
    for (;;) {
      const std::uint64_t begin = range >> 32, end = range & 0xFFFFFFFF;
      if (begin >= end) return -1;
      const std::uint64_t rest = first ? range + (std::uint64_t{1} << 32) : range - 1;
      if (range_.compare_exchange_weak(range, rest, std::memory_order_relaxed)) {
        return static_cast<std::ptrdiff_t>(first ? begin : end - 1);
      }
    }
  }

 private:
  alignas(64) std::atomic<std::uint64_t> range_{0};
};

// What the members of a team share: a barrier, and items to do.
class TeamState {
 public:
  explicit TeamState(Share* shares) : shares_(shares) {}

  // Whether to go on, the same for all members: as the last one to come has found it.
  bool wait(int size, const StopRequest& request) {
    const std::uint32_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      go_on_ = !request.made();
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
    } else {
      wait_while(round_, round);
    }
    return go_on_;
  }

  void deal(int member, int size, std::ptrdiff_t count) {
    const auto begin_of = [&](int k) { return static_cast<std::uint64_t>(count * k / size); };
    shares_[member].set(begin_of(member), begin_of(member + 1));
  }

  // The owner takes from the front, where the next item is near the last one; others from the back.
  std::ptrdiff_t take(int member, int size) {
    for (int k = 0; k < size; ++k) {
      const std::ptrdiff_t item = shares_[(member + k) % size].take(k == 0);
      if (item >= 0) return item;
    }
    return -1;
  }

 private:
  Share* const shares_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> round_{0};
  bool go_on_ = true;  // written before round_ is
};

bool Team::stopped() const {
  if (member_ == 0) request_->look();
  return request_->made();
}

bool Team::wait() {
  const bool stop = stopped();
  return state_ ? state_->wait(size_, *request_) : !stop;
}

void Team::deal(std::ptrdiff_t count) {
  next_ = 0;
  end_ = count;
  if (state_) state_->deal(member_, size_, count);
}

std::ptrdiff_t Team::take() {
  if (stopped()) return -1;
  if (state_) return state_->take(member_, size_);
  return next_ < end_ ? next_++ : -1;
}

namespace {

// Denormal numbers are zero inside regions: arithmetic on them takes a hundred times longer, and decaying states and
// gradients of padding are full of them. The caller's own setting is restored.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (std::uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  std::uint64_t saved_;
#endif
};

void run_member(Region region, void* context, int member, int size, TeamState* state, StopRequest* request) {
  const FlushDenormals flush;
  Team team(member, size, state, request);
  region(context, team);
}

// Whether teams pay: not where other processes keep the cores so busy that members wait for each other more than they
// work. What a team did in less time than its caller alone would have taken is credited, what it wasted is charged. In
// debt regions run on their callers alone, and a small part of that time pays for another attempt, the smaller the more
// attempts have failed. So a team never costs much more than no team, and a hiccup of a quiet machine is paid from what
// teams have gained.
class Credit {
 public:
  bool suffices(Time now) {
    if (credit_ < Duration::zero()) {
      credit_ += (now - last_) / time_per_attempt_;
      last_ = now;
    }
    return credit_ >= Duration::zero();
  }

  void settle(Duration worked, Duration taken, Time now) {
    credit_ = std::clamp<Duration>(credit_ + worked - taken, -kMost, kMost);
    last_ = now;
    if (credit_ < Duration::zero()) time_per_attempt_ = std::min(2 * time_per_attempt_, kLongest);
    if (credit_ > kEarned) time_per_attempt_ = kShortest;
  }

 private:
  static constexpr int kShortest = 8, kLongest = 64;  // in multiples of what the last attempt wasted
  static constexpr Duration kEarned = std::chrono::milliseconds(20), kMost = std::chrono::milliseconds(200);
  Duration credit_ = kEarned;
  int time_per_attempt_ = kShortest;
  Time last_{};
};

std::atomic<bool> always_teams{false};

bool teams_always() { return always_teams.load(std::memory_order_relaxed); }

std::atomic<const OpenMp*> given_runtime{nullptr};

// The OpenMP runtime that has threads for the calling one; null if there is none.
const OpenMp* runtime_at_hand() {
  const OpenMp* runtime = given_runtime.load(std::memory_order_acquire);
  return runtime && !runtime->in_parallel() && runtime->max_threads() > 1 ? runtime : nullptr;
}

// Workers 1 .. n - 1 of teams. One region at a time.
class Pool {
 public:
  // Runs the region on a team; false if another one is running, or a team would not pay now.
  bool try_run(int threads, Region region, void* context, StopRequest* request) {
    const Turn turn(busy_);
    if (!turn.granted) return false;
    const Time begin = Clock::now();
    if (!credit_.suffices(begin) && !teams_always()) return false;
    const OpenMp* runtime = runtime_at_hand();
    const int most = runtime ? runtime->max_threads() : threads;
    const int size = runtime ? share_among(std::min(threads, most)) : grow_to(threads);
    if (size == 1) return false;
    TeamState state(shares_.data());
    job_ = {region, context, size, &state, request, runtime};
    worked_.store(0, std::memory_order_relaxed);
    if (runtime) {
      // As many threads as its other regions have: a team of another size would make it start or end some.
      const auto work = [](void* pool) { static_cast<Pool*>(pool)->work_for_runtime(); };
      runtime->parallel(work, this, static_cast<unsigned>(most), 0);
    } else {
      pending_.store(static_cast<std::uint32_t>(size - 1), std::memory_order_relaxed);
      for (int member = 1; member < size; ++member) {
        std::atomic<std::uint32_t>& calls = workers_[static_cast<std::size_t>(member) - 1]->calls;
        calls.fetch_add(1, std::memory_order_release);
        calls.notify_one();
      }
      do_part(0, size);
      for (std::uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;) wait_while(pending_, left);
    }
    const Time end = Clock::now();
    credit_.settle(Duration(worked_.load(std::memory_order_relaxed)), end - begin, end);
    return true;
  }

 private:
  struct Worker {
    alignas(64) std::atomic<std::uint32_t> calls{0};
    std::thread thread;
  };

  struct Job {
    Region region;
    void* context;
    int size;
    TeamState* state;
    StopRequest* request;
    const OpenMp* runtime;
  };

  // The turn to run a region, if nobody has it. Not a mutex, which its own thread must not try: what a signal's handler
  // computes while a region looks whether to stop is run on the caller alone.
  struct Turn {
    explicit Turn(std::atomic_flag& busy) : busy(busy), granted(!busy.test_and_set(std::memory_order_acquire)) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      if (granted) busy.clear(std::memory_order_release);
    }
    std::atomic_flag& busy;
    const bool granted;
  };

  int grow_to(int threads) {
    const auto wanted = static_cast<std::size_t>(share_among(threads)) - 1;
    try {
      workers_.reserve(wanted);  // a worker whose thread runs must find its place
      while (workers_.size() < wanted) {
        const int member = static_cast<int>(workers_.size()) + 1;
        auto worker = std::make_unique<Worker>();
        worker->thread = std::thread([this, member, calls = &worker->calls] { work(member, *calls); });
        workers_.push_back(std::move(worker));
      }
    } catch (const std::system_error&) {
      // no more threads to be had: the team is smaller
    } catch (const std::bad_alloc&) {
      // no more memory to be had, likewise
    }
    return static_cast<int>(std::min(wanted, workers_.size()) + 1);
  }

  // Shares for so many members, or for as many as there is memory for.
  int share_among(int threads) {
    const auto wanted = static_cast<std::size_t>(threads);
    try {
      if (shares_.size() < wanted) shares_ = std::vector<Share>(wanted);
    } catch (const std::bad_alloc&) {
    }
    return static_cast<int>(std::min(wanted, shares_.size()));
  }

  void do_part(int member, int size) {
    waited = {};
    const Time begin = Clock::now();
    run_member(job_.region, job_.context, member, size, job_.state, job_.request);
    worked_.fetch_add((Clock::now() - begin - waited).count(), std::memory_order_relaxed);
  }

  // On every thread of an OpenMP team, which may be smaller than asked for.
  void work_for_runtime() {
    const int member = job_.runtime->thread_num(), size = std::min(job_.size, job_.runtime->num_threads());
    if (member < size) do_part(member, size);
  }

  [[noreturn]] void work(int member, const std::atomic<std::uint32_t>& calls) {
    run_on_process_cores();
    for (std::uint32_t seen = 0;;) {
      seen = wait_while(calls, seen);
      do_part(member, job_.size);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
    }
  }

  std::atomic_flag busy_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Share> shares_ = std::vector<Share>(1);  // of the caller and the workers
  Job job_{};
  Credit credit_;
  std::atomic<Duration::rep> worked_{0};  // by all members, in the region at hand
  alignas(64) std::atomic<std::uint32_t> pending_{0};
};

// Never destroyed: its sleeping threads end with the process. A forked child has none of them and starts a new pool.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const int registered = at_fork(nullptr, nullptr, [] {
    current_pool.store(nullptr);
    given_runtime.store(nullptr);  // its threads are not in the child, which it does not notice
  });
  (void)registered;
  Pool* found = current_pool.load(std::memory_order_acquire);
  if (found == nullptr) {
    auto made = std::make_unique<Pool>();
    if (current_pool.compare_exchange_strong(found, made.get(), std::memory_order_acq_rel)) found = made.release();
  }
  return *found;
}

std::atomic<int> configured_threads{1};

}  // namespace

void set_num_threads(int threads) { configured_threads.store(threads, std::memory_order_relaxed); }

int num_threads() { return configured_threads.load(std::memory_order_relaxed); }

void run_on(const OpenMp& runtime) {
  static const OpenMp kept = runtime;
  pool();  // knows of forks
  given_runtime.store(&kept, std::memory_order_release);
}

void set_teams_always(bool always) { always_teams.store(always, std::memory_order_relaxed); }

void run_team(int threads, Region region, void* context) {
  int wanted = std::min(threads, num_threads());
  if (wanted > 1 && !teams_always()) wanted = std::min(wanted, own_cores());
  StopRequest request;
  if (wanted <= 1 || !pool().try_run(wanted, region, context, &request)) {
    run_member(region, context, 0, 1, nullptr, &request);
  }
  if (request.made()) throw Stopped{};
}

void set_should_stop(bool (*should_stop)()) { StopRequest::should_stop_.store(should_stop, std::memory_order_relaxed); }

int team_size(int threads) {
  int size = 0;
  run_team(
      threads,
      [](void* result, Team& team) {
        if (team.member() == 0) *static_cast<int*>(result) = team.size();
      },
      &size);
  return size;
}

}  // namespace fastlstm
