// What the kernels of word vectors take; see ../kernels.h.
#pragma once

#include "../kernels.h"

namespace fastlstm {

// Negative sampling, one step of gradient descent a pair.
template <class S>
struct SkipgramUpdate {
  Index M, K, E;                  // pairs, negatives a pair
  S* vectors;                     // (V, E), changed in place
  S* weights;                     // (V, E), changed in place
  const std::int64_t* centers;    // (M,)
  const std::int64_t* contexts;   // (M,)
  const std::int64_t* negatives;  // (M, K)
  S lr;
  S* workspace;
};

// The same, of a word's neighbours together: what tells the word is the mean of their vectors.
template <class S>
struct CbowUpdate {
  Index M, K, E;                  // words, negatives a word
  S* vectors;                     // (V, E), changed in place
  S* weights;                     // (V, E), changed in place
  const std::int64_t* centers;    // (M,)
  const std::int64_t* contexts;   // the neighbours of one word after those of the other
  const std::int64_t* counts;     // (M,), how many each word has, at least 1
  const std::int64_t* negatives;  // (M, K)
  S lr;
  bool divide_step;  // a neighbour takes its share of the mean's step, not all of it
  S* workspace;
};

// The updates return the sum of the losses.
template <class S>
struct SkipgramKernels {
  Index (*workspace)(Index K, Index E);
  double (*update)(const SkipgramUpdate<S>&);
  double (*cbow_update)(const CbowUpdate<S>&);
};

}  // namespace fastlstm
