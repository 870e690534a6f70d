// What the matrix products take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

template <class S>
struct Product {
  Index M, K, L;
  bool a_transposed, b_transposed;
  const S* a;     // (M, K), or (K, M) where transposed
  const S* b;     // (K, L), or (L, K) where transposed
  const S* bias;  // (L,) or null
  S* out;         // (M, L) = a b + bias
  int threads;    // at most
  S* workspace;
};

template <class S>
struct ProductKernels {
  Index (*workspace)(const Product<S>&);
  void (*run)(const Product<S>&);
};

}  // namespace fastlstm
