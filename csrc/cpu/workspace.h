// Buffers that outlive a call: what tapes hold and what kernels work in. They are kept when they are released and
// handed out again, because fresh memory costs a page fault every 4 KB.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace fastlstm {

struct ReleaseBuffer {
  void operator()(void* buffer) const;
};

// Aligned to 64 bytes; the contents are undefined. Returns to the pool when it goes out of scope, on any thread.
using Buffer = std::unique_ptr<void, ReleaseBuffer>;

// What tapes and workspaces take comes again in the same size. A result, a gradient for instance, follows what has just
// been released: up to twice as large a block will do for it, whose memory is there already.
enum class Kind { kTapeOrWorkspace, kResult };

// Throws OutOfMemory.
Buffer take_buffer(std::size_t bytes, Kind kind);

// Says how much was asked for, and for what.
class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(std::size_t bytes, Kind kind);
  const char* what() const noexcept override { return message_; }

 private:
  char message_[160];  // there is no room for a string
};

// Gives the memory of all unused buffers back to the system; returns how many bytes that were.
std::size_t free_unused_buffers();

// What buffers that are not released take.
std::size_t buffer_bytes_in_use();

template <class S>
class Array {
 public:
  Array() = default;
  explicit Array(std::ptrdiff_t size)
      : buffer_(take_buffer(static_cast<std::size_t>(size) * sizeof(S), Kind::kTapeOrWorkspace)) {}
  S* data() const { return static_cast<S*>(buffer_.get()); }
  explicit operator bool() const { return buffer_ != nullptr; }

 private:
  Buffer buffer_;
};

}  // namespace fastlstm
