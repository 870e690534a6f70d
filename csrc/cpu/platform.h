// What operating systems have under different names: aligned memory, and what happens at a fork.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(_WIN32)
#include <malloc.h>
#else
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastlstm {

// Null where there is none left. `alignment` is a power of two, and no smaller than a pointer; the block goes to
// free_aligned.
inline void* allocate_aligned(std::size_t alignment, std::size_t bytes) {
#if defined(_WIN32)
  return _aligned_malloc(bytes, alignment);
#else
  void* block = nullptr;
  return posix_memalign(&block, alignment, bytes) == 0 ? block : nullptr;
#endif
}

inline void free_aligned(void* block) {
#if defined(_WIN32)
  _aligned_free(block);
#else
  std::free(block);
#endif
}

// Asks for pages of 2 MB, as far as the block is made of such: fewer misses of the processor's table of pages. Linux
// gives them to who asks, others as they please.
inline void use_huge_pages([[maybe_unused]] void* block, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<std::uintptr_t>(block) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(block) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Called before a fork, and after it in the parent and in the child; null for nothing. Windows has no fork. Returns 0,
// or an error's number.
inline int at_fork([[maybe_unused]] void (*before)(), [[maybe_unused]] void (*in_parent)(),
                   [[maybe_unused]] void (*in_child)()) {
#if defined(_WIN32)
  return 0;
#else
  return pthread_atfork(before, in_parent, in_child);
#endif
}

}  // namespace fastlstm
