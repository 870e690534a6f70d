// Numbers of a row that a thread moves at once, and how the threads of a block share rows.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "device.h"
#include "index.h"

namespace fastlstm::cuda {

template <class S>
inline constexpr int kInPack = sizeof(Packed16) / sizeof(S);

// Up to 16 bytes, in one load or store.
template <class S, int n = kInPack<S>>
struct alignas(n * sizeof(S)) Pack {
  S v[n];

  __device__ Pack& operator+=(const Pack& other) {
#pragma unroll
    for (int k = 0; k < n; ++k) v[k] += other.v[k];
    return *this;
  }
};

template <class S, int n = kInPack<S>>
__device__ inline Pack<S, n> load_pack(const S* from) {
  return *reinterpret_cast<const Pack<S, n>*>(from);
}
template <class S, int n>
__device__ inline void store_pack(S* to, const Pack<S, n>& pack) {
  *reinterpret_cast<Pack<S, n>*>(to) = pack;
}

// Whether packs of 16 bytes may begin there.
FASTLSTM_HOST_DEVICE inline bool begins_with_pack(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % sizeof(Packed16) == 0;
}

// The largest packs that rows of E numbers at these addresses consist of.
template <class S>
int pack_size(Index E, std::initializer_list<const void*> addresses) {
  int n = kInPack<S>;
  const auto fits = [&] {
    if (E % n != 0) return false;
    for (const void* address : addresses) {
      if (reinterpret_cast<std::uintptr_t>(address) % (static_cast<std::size_t>(n) * sizeof(S)) != 0) return false;
    }
    return true;
  };
  while (n > 1 && !fits()) n /= 2;
  return n;
}

// Calls body<n>() for a size that pack_size returned.
template <class S, class Body>
void with_pack_size(int n, const Body& body) {
  if constexpr (sizeof(S) == 4) {
    if (n == 4) return body.template operator()<4>();
  }
  if (n == 2) return body.template operator()<2>();
  body.template operator()<1>();
}

// A block of kRowThreads threads works on several rows, or on a part of a long one: 2^bits threads a row, a pack each.
inline constexpr int kRowThreads = 128;

struct RowThreads {
  int bits;
  Index parts;  // blocks along a row, where each thread has one pack

  explicit RowThreads(Index packs) : bits(0) {
    while ((1 << bits) < kRowThreads && (1 << bits) < packs) ++bits;
    parts = divide_up(packs, 1 << bits);
  }
  Index blocks(Index rows) const { return divide_up(rows, kRowThreads >> bits); }
};

// The row of this thread, and its place among the row's threads.
__device__ inline Index row_of_thread(int bits) {
  return static_cast<Index>(blockIdx.x) * (kRowThreads >> bits) + (threadIdx.x >> bits);
}
__device__ inline Index place_in_row(int bits) { return threadIdx.x & ((1u << bits) - 1u); }

}  // namespace fastlstm::cuda
