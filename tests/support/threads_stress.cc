// Several callers at once: regions with barriers and stolen items, buffers from one thread to the next, a lock, while
// the number of threads changes, on the pool's threads and then on a runtime's. No Python, so that sanitizers see all
// of it. Exits with 1 where a number is wrong.
//
//   threads_stress [rounds of each caller, 300]
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "process_lock.h"
#include "threads.h"
#include "workspace.h"

namespace {

using namespace fastlstm;

constexpr int kCallers = 4;
constexpr std::size_t kItems = 1000;
std::atomic<int> wrong{0};

// What the members write is plain memory: barriers alone keep them apart.
struct Work {
  explicit Work(Buffer buffer) : buffer(std::move(buffer)), counts(static_cast<int*>(this->buffer.get())) {}
  Buffer buffer;
  int* counts;
  std::vector<int> sums = std::vector<int>(16);
};

void region(void* context, Team& team) {
  Work& work = *static_cast<Work*>(context);
  for (int round = 1; round <= 3; ++round) {
    team.deal(kItems);
    if (!team.wait()) return;
    for (std::ptrdiff_t item; (item = team.take()) >= 0;) ++work.counts[item];
    if (!team.wait()) return;
    int& sum = work.sums[static_cast<std::size_t>(team.member())];
    sum = std::accumulate(work.counts, work.counts + kItems, 0);
    if (sum != round * static_cast<int>(kItems)) ++wrong;
    if (!team.wait()) return;
    if (work.sums[static_cast<std::size_t>((team.member() + 1) % team.size())] != sum) ++wrong;
  }
}

// A region that leaves only when it is told to.
void endless(void*, Team& team) {
  while (team.wait()) {
  }
}

std::mutex hand_over;
Buffer handed;
ProcessLock lock;
int locked = 0;

void call(int caller, int rounds) {
  for (int k = 0; k < rounds; ++k) {
    Buffer buffer = take_buffer(kItems * sizeof(int), k % 2 ? Kind::kResult : Kind::kTapeOrWorkspace);
    std::fill_n(static_cast<int*>(buffer.get()), kItems, 0);
    Work work(std::move(buffer));
    run_team(1 + (caller + k) % 6, region, &work);
    for (int n = 0; n < 5; ++n) team_size(3);  // one region right after the other, without a lock between them
    {
      const std::lock_guard turn(hand_over);
      std::swap(handed, work.buffer);  // released on another thread
    }
    {
      const std::lock_guard turn(lock);
      ++locked;
    }
    if (k % 50 == 0) free_unused_buffers();
  }
}

// What a runtime of OpenMP does, with threads that sanitizers see. Sometimes it has fewer than it was asked for.
thread_local int number = 0, of = 1;

void parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  static std::atomic<unsigned> teams{0};
  const int size = teams++ % 5 == 0 ? static_cast<int>(threads) - 1 : static_cast<int>(threads);
  std::vector<std::thread> others;
  for (int k = 1; k < size; ++k) {
    others.emplace_back([=] {
      number = k;
      of = size;
      body(data);
    });
  }
  of = size;
  body(data);
  of = 1;
  for (std::thread& other : others) other.join();
}

void call_from_all(int rounds) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) callers.emplace_back(call, caller, rounds);
  for (std::thread& caller : callers) caller.join();
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 300;
  set_teams_always(true);
  std::atomic<bool> done{false};
  std::thread changer([&] {
    for (int n = 0; !done; ++n) {
      set_num_threads(1 + n % 6);
      std::this_thread::yield();
    }
  });
  call_from_all(rounds);
  run_on(
      {parallel, [] { return number; }, [] { return of; }, [] { return 3; }, [] { return static_cast<int>(of > 1); }});
  call_from_all(rounds / 3);
  done = true;
  changer.join();
  if (locked != kCallers * (rounds + rounds / 3)) ++wrong;

  set_num_threads(4);
  set_should_stop([] { return true; });
  try {
    run_team(4, endless, nullptr);
    ++wrong;
  } catch (const Stopped&) {
  }
  handed.reset();
  if (buffer_bytes_in_use() != 0) ++wrong;
  std::printf("%d callers, %d rounds each: %d wrong\n", kCallers, rounds, wrong.load());
  return wrong != 0;
}
