// What the matrix products take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

template <class S>
struct Product {
  Index M, K, L;
  bool a_transposed, b_transposed;
  const S* a;         // (M, K), or (K, M) where transposed
  const S* b;         // (K, L), or (L, K) where transposed
  const S* bias;      // (L,) or null
  S* out;             // (M, L) = a b + bias
  int threads;        // at most
  const S* prepared;  // what `prepare` has left, in place of b and bias, or null
  S* workspace;
};

template <class S>
struct ProductKernels {
  Index (*workspace)(const Product<S>&);
  void (*run)(const Product<S>&);
  // Pack b and bias of products with any a, which is not transposed then, and these products.
  Index (*prepared_size)(Index K, Index L);
  void (*prepare)(const Product<S>&, S* prepared);
  Index (*prepared_workspace)(const Product<S>&);
  void (*run_prepared)(const Product<S>&);
};

}  // namespace fastlstm
