// A lock that a forked child finds free, whoever held it: that thread is not there to open it.
#pragma once

#include <atomic>
#include <cstdint>

#include "platform.h"

namespace fastlstm {

// What it guards must be fit for use wherever a fork may have cut its holder short.
class ProcessLock {
 public:
  void lock() {
    const std::uint32_t own = process();
    for (std::uint32_t holder = 0; !holder_.compare_exchange_weak(holder, own, std::memory_order_acquire);) {
      if (holder == own) {
        holder_.wait(holder, std::memory_order_relaxed);
        holder = 0;
      }  // else it is free, or a thread's of another process: the next exchange takes it from there
    }
  }
  void unlock() {
    holder_.store(0, std::memory_order_release);
    holder_.notify_one();
  }

 private:
  // A number of this process, other than its parent's.
  static std::uint32_t process() {
    static const int registered = at_fork(nullptr, nullptr, [] { ++generation_; });
    static_cast<void>(registered);
    return generation_.load(std::memory_order_relaxed);
  }

  static inline std::atomic<std::uint32_t> generation_{1};
  std::atomic<std::uint32_t> holder_{0};  // of the process whose thread holds it, 0 if it is free
};

}  // namespace fastlstm
