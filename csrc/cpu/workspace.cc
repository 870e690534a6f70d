#include "workspace.h"

#include <atomic>
#include <bit>
#include <cstdio>
#include <map>
#include <mutex>
#include <new>

#include "platform.h"

namespace fastlstm {
namespace {

constexpr std::size_t kAlignment = 64;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kKeptBytes = 0;  // AddressSanitizer sees a buffer's end only if it is a block of its own
#else
constexpr std::size_t kKeptBytes = std::size_t{1} << 30;  // unused buffers above this go back to the system
#endif

constexpr std::size_t kHugeBytes = std::size_t{4} << 20;

struct Header {
  std::size_t bytes;  // of the whole block
};

// Unused blocks by size. Never destroyed: tapes may be released while the process ends.
struct Unused {
  std::mutex mutex;
  std::multimap<std::size_t, void*> blocks;
  std::size_t bytes = 0;
  std::atomic<std::size_t> bytes_in_use{0};
};

Unused& unused() {
  static Unused* const instance = [] {
    // A fork while another thread holds the lock must not leave it locked in the child.
    at_fork([] { unused().mutex.lock(); }, [] { unused().mutex.unlock(); }, [] { unused().mutex.unlock(); });
    return new Unused;
  }();
  return *instance;
}

// An eighth of a power of two at most is wasted, and sizes that differ little share blocks.
std::size_t rounded(std::size_t bytes) {
  if (kKeptBytes == 0) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t step = bytes <= 4096 ? 512 : std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

OutOfMemory::OutOfMemory(std::size_t bytes, Kind kind) {
  std::snprintf(message_, sizeof message_,
                "%.3g GB could not be had for %s; smaller batches, shorter sequences or a smaller layer need less",
                static_cast<double>(bytes) / 1e9,
                kind == Kind::kResult ? "a result" : "what a call computes in or keeps for its backward pass");
}

Buffer take_buffer(std::size_t bytes, Kind kind) {
  if (bytes > static_cast<std::size_t>(-1) / 4) throw OutOfMemory(bytes, kind);
  std::size_t size = rounded(bytes + kAlignment);
  void* block = nullptr;
  {
    const std::lock_guard lock(unused().mutex);
    const auto found = unused().blocks.lower_bound(size);
    if (found != unused().blocks.end() && found->first <= (kind == Kind::kResult ? 2 * size : size)) {
      size = found->first;
      block = found->second;
      unused().bytes -= size;
      unused().blocks.erase(found);
    }
  }
  if (block == nullptr) {
    const std::size_t alignment = size >= kHugeBytes ? std::size_t{2} << 20 : kAlignment;
    block = allocate_aligned(alignment, size);
    if (block == nullptr) {
      free_unused_buffers();
      block = allocate_aligned(alignment, size);
    }
    if (block == nullptr) throw OutOfMemory(bytes, kind);
    if (size >= kHugeBytes) use_huge_pages(block, size);
    static_cast<Header*>(block)->bytes = size;
  }
  unused().bytes_in_use += size;
  return Buffer(static_cast<char*>(block) + kAlignment);
}

void ReleaseBuffer::operator()(void* buffer) const {
  void* const block = static_cast<char*>(buffer) - kAlignment;
  const std::size_t size = static_cast<Header*>(block)->bytes;
  unused().bytes_in_use -= size;
  {
    const std::lock_guard lock(unused().mutex);
    if (unused().bytes + size <= kKeptBytes) {
      try {
        unused().blocks.emplace(size, block);
        unused().bytes += size;
        return;
      } catch (const std::bad_alloc&) {
        // no room even for the list: free the block below
      }
    }
  }
  free_aligned(block);
}

std::size_t free_unused_buffers() {
  std::multimap<std::size_t, void*> blocks;
  std::size_t bytes = 0;
  {
    const std::lock_guard lock(unused().mutex);
    blocks.swap(unused().blocks);
    bytes = unused().bytes;
    unused().bytes = 0;
  }
  for (const auto& [size, block] : blocks) free_aligned(block);
  return bytes;
}

std::size_t buffer_bytes_in_use() { return unused().bytes_in_use; }

}  // namespace fastlstm
