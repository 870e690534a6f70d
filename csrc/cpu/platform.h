// What operating systems have under different names: aligned memory, and what happens at a fork.
#pragma once

#include <cstddef>
#include <cstdlib>

#if defined(_WIN32)
#include <malloc.h>
#else
#include <pthread.h>
#endif

namespace fastlstm {

// Null where there is none left. `bytes` is a multiple of `alignment`, a power of two; the block goes to free_aligned.
inline void* allocate_aligned(std::size_t alignment, std::size_t bytes) {
#if defined(_WIN32)
  return _aligned_malloc(bytes, alignment);
#else
  return std::aligned_alloc(alignment, bytes);
#endif
}

inline void free_aligned(void* block) {
#if defined(_WIN32)
  _aligned_free(block);
#else
  std::free(block);
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
