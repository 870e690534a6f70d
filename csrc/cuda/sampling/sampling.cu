// A product's tile is 16, 32 or 64 numbers wide and high, by the size of the product; its sums are taken in chunks of
// one depth whatever the tile, so that results do not depend on it.
#include <algorithm>
#include <type_traits>

#include "../device/pack.h"
#include "../device/reduce.h"
#include "sampling.h"

namespace fastlstm::cuda {
namespace {

// What TensorFlow adds to a logit that is to vanish: minus the largest float32, for float64 too.
constexpr double kRemoved = -3.4028234663852886e38;

constexpr int kThreads = 256;
constexpr int kSide = 16;   // threads of a tile stand 16 by 16
constexpr int kDepth = 64;  // of a chunk
constexpr int kWarps = kThreads / kWarp;

// A row in shared memory; one pack more than its numbers, so that a quarter of a warp meets all banks.
template <class S>
constexpr int kStride = kDepth + kInPack<S>;

// Most numbers per thread along each side of a tile. Wider ones of float64 would leave no room for a second block.
template <class S>
constexpr int kWidest = 16 / static_cast<int>(sizeof(S));

// ---- Tiles of products ---------------------------------------------------------------------------------------------

// Where a block's tile stands.
template <int m>
struct Tile {
  Index row, column;
  int rows, columns;  // as far as there are any

  __device__ Tile(Index number, Index all_rows, Index all_columns) {
    constexpr int kTile = m * kSide;
    const Index across = divide_up(all_columns, kTile);
    row = number / across * kTile;
    column = number % across * kTile;
    rows = static_cast<int>(all_rows - row < kTile ? all_rows - row : kTile);
    columns = static_cast<int>(all_columns - column < kTile ? all_columns - column : kTile);
  }
};

// Fills rows of a chunk from memory where the depth lies side by side: row(r) is where row r of the tile begins.
template <class S, int m, class Row>
__device__ void fill_along(S* chunk, int rows, int depth, bool whole_packs, const Row& row) {
  constexpr int kPacks = kDepth / kInPack<S>;
  for (int i = static_cast<int>(threadIdx.x); i < m * kSide * kPacks; i += kThreads) {
    const int r = i / kPacks, k = i % kPacks * kInPack<S>;
    if (k >= depth) continue;
    Pack<S> numbers{};
    if (r < rows) {
      const S* const from = row(r) + k;
      if (whole_packs) {
        numbers = load_pack(from);
      } else {
#pragma unroll
        for (int n = 0; n < kInPack<S>; ++n) {
          if (k + n < depth) numbers.v[n] = from[n];
        }
      }
    }
    store_pack(chunk + r * kStride<S> + k, numbers);
  }
}

// The same from memory where the rows lie side by side: at(k, r) is an element.
template <class S, int m, class At>
__device__ void fill_across(S* chunk, int rows, int depth, const At& at) {
  const int padded = round_up(depth, kInPack<S>);
  for (int i = static_cast<int>(threadIdx.x); i < m * kSide * padded; i += kThreads) {
    const int r = i % (m * kSide), k = i / (m * kSide);
    chunk[r * kStride<S> + k] = r < rows && k < depth ? at(k, r) : S{0};
  }
}

// total[i][j] = sum over the depth of a row and a column, both in chunks that fill_a(chunk, begin, depth) and fill_b
// bring. The thread's rows are kSide apart, and so are its columns.
template <class S, int m, class FillA, class FillB>
__device__ void multiply(Index depth, const FillA& fill_a, const FillB& fill_b, S (&total)[m][m]) {
  S* const a = shared_memory<S>();
  S* const b = a + m * kSide * kStride<S>;
  const S* const a_rows = a + threadIdx.x / kSide * kStride<S>;
  const S* const b_rows = b + threadIdx.x % kSide * kStride<S>;
  for (Index begin = 0; begin < depth; begin += kDepth) {
    const int here = static_cast<int>(depth - begin < kDepth ? depth - begin : kDepth);
    __syncthreads();  // the chunk before has been read
    fill_a(a, begin, here);
    fill_b(b, begin, here);
    __syncthreads();
    S sum[m][m] = {};
    for (int k = 0; k < here; k += kInPack<S>) {
      Pack<S> x[m], y[m];
#pragma unroll
      for (int i = 0; i < m; ++i) {
        x[i] = load_pack(a_rows + i * kSide * kStride<S> + k);
        y[i] = load_pack(b_rows + i * kSide * kStride<S> + k);
      }
#pragma unroll
      for (int n = 0; n < kInPack<S>; ++n) {
#pragma unroll
        for (int i = 0; i < m; ++i) {
#pragma unroll
          for (int j = 0; j < m; ++j) sum[i][j] += x[i].v[n] * y[j].v[n];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < m; ++i) {
#pragma unroll
      for (int j = 0; j < m; ++j) total[i][j] += sum[i][j];
    }
  }
}

// finish(r, c, sum) for every element of the tile that there is.
template <class S, int m, class Finish>
__device__ void finish_tile(const Tile<m>& tile, const S (&total)[m][m], const Finish& finish) {
#pragma unroll
  for (int i = 0; i < m; ++i) {
    const int r = static_cast<int>(threadIdx.x) / kSide + i * kSide;
#pragma unroll
    for (int j = 0; j < m; ++j) {
      const int c = static_cast<int>(threadIdx.x) % kSide + j * kSide;
      if (r < tile.rows && c < tile.columns) finish(r, c, total[i][j]);
    }
  }
}

// A chunk of rows, one of columns, and a number for each column.
template <class S, int m>
constexpr Index kSharedBytes = m * kSide * (2 * kStride<S> + 1) * static_cast<Index>(sizeof(S));

// ---- Forward -------------------------------------------------------------------------------------------------------

template <class S>
struct Pass {
  SampledClasses<S> call;
  bool whole_packs;  // rows of weights and inputs are made of them
  Index tiles;       // how many blocks have one; others come behind
  S* dsampled;       // (sampled_count, E + 1): gradients of the sampled rows, and behind each that of its bias
  S* losses;
};

template <class S>
__device__ S class_offset(const SampledClasses<S>& call, std::int64_t id, const double* expected) {
  S value = call.biases ? call.biases[id] : S{0};
  if (expected) value -= static_cast<S>(log(*expected));
  return value;
}

// The dot product of two rows, in every lane of a warp.
template <class S>
__device__ S dot(const S* a, const S* b, Index E, bool whole_packs) {
  const Index lane = threadIdx.x % kWarp;
  S sum = 0;
  if (whole_packs) {
    for (Index e = lane * kInPack<S>; e < E; e += kWarp * kInPack<S>) {
      const Pack<S> x = load_pack(a + e), y = load_pack(b + e);
#pragma unroll
      for (int n = 0; n < kInPack<S>; ++n) sum += x.v[n] * y.v[n];
    }
  } else {
    for (Index e = lane; e < E; e += kWarp) sum += a[e] * b[e];
  }
  return over_warp(sum, Sum{});
}

// A block has a tile of the sampled classes' logits, or behind those a true one for each of its warps.
template <class S, int m>
__global__ void __launch_bounds__(kThreads, 2) compute_logits(Pass<S> pass) {
  const SampledClasses<S>& call = pass.call;
  const Index columns = call.K + call.sampled_count;
  if (blockIdx.x >= pass.tiles) {
    const Index n = (blockIdx.x - pass.tiles) * kWarps + threadIdx.x / kWarp;
    if (n >= call.B * call.K) return;
    const Index b = n / call.K, at = b * columns + n % call.K;
    const std::int64_t id = call.labels[n];
    const S sum = dot(call.inputs + b * call.E, call.weights + id * call.E, call.E, pass.whole_packs);
    if (threadIdx.x % kWarp == 0) {
      call.logits[at] = sum + class_offset(call, id, call.true_expected ? call.true_expected + n : nullptr);
      if (call.is_true) call.is_true[at] = 1 / static_cast<S>(call.K);
    }
    return;
  }
  const Tile<m> tile(blockIdx.x, call.B, call.sampled_count);
  S* const offset = shared_memory<S>() + 2 * m * kSide * kStride<S>;
  if (static_cast<int>(threadIdx.x) < tile.columns) {
    const Index s = tile.column + threadIdx.x;
    const double* const expected = call.sampled_expected ? call.sampled_expected + s : nullptr;
    offset[threadIdx.x] = class_offset(call, call.sampled[s], expected);
  }
  S total[m][m] = {};
  multiply<S, m>(
      call.E,
      [&](S* chunk, Index begin, int depth) {
        fill_along<S, m>(chunk, tile.rows, depth, pass.whole_packs,
                         [&](int r) { return call.inputs + (tile.row + r) * call.E + begin; });
      },
      [&](S* chunk, Index begin, int depth) {
        fill_along<S, m>(chunk, tile.columns, depth, pass.whole_packs,
                         [&](int c) { return call.weights + call.sampled[tile.column + c] * call.E + begin; });
      },
      total);
  finish_tile<S, m>(tile, total, [&](int r, int c, S sum) {
    const Index b = tile.row + r, s = tile.column + c, at = b * columns + call.K + s;
    S logit = sum + offset[c];
    if (call.remove_accidental_hits) {
      for (Index k = 0; k < call.K; ++k) {
        if (call.labels[b * call.K + k] == call.sampled[s]) logit = static_cast<S>(kRemoved);
      }
    }
    call.logits[at] = logit;
    if (call.is_true) call.is_true[at] = S{0};
  });
}

// ---- Losses --------------------------------------------------------------------------------------------------------

// A warp has a row: its loss, and instead of its logits the gradients of the mean of all losses.
template <class S, SampledLossKind kind>
__global__ void __launch_bounds__(kThreads) compute_losses(Pass<S> pass) {
  const SampledClasses<S>& call = pass.call;
  const Index b = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (b >= call.B) return;
  const Index lane = threadIdx.x % kWarp, columns = call.K + call.sampled_count;
  S* const x = call.logits + b * columns;
  const S share = 1 / static_cast<S>(call.num_true), scale = 1 / static_cast<S>(call.B);
  S loss;
  if constexpr (kind == SampledLossKind::kSigmoid) {
    S sum = 0;
    for (Index k = lane; k < columns; k += kWarp) {
      const S value = x[k], label = k < call.num_true ? share : S{0};
      const S tail = exp(value < 0 ? value : -value), magnitude_sigmoid = 1 / (1 + tail);  // sigmoid(|x|)
      sum += (value < 0 ? S{0} : value) - value * label + log1p(tail);
      x[k] = ((value < 0 ? tail * magnitude_sigmoid : magnitude_sigmoid) - label) * scale;
    }
    loss = over_warp(sum, Sum{});
  } else {
    S top = x[0], true_below_top = 0, total = 0;
    for (Index k = lane; k < columns; k += kWarp) top = Maximum{}(top, x[k]);
    top = over_warp(top, Maximum{});
    for (Index k = lane; k < columns; k += kWarp) {
      total += exp(x[k] - top);
      if (k < call.num_true) true_below_top += (top - x[k]) * share;
    }
    total = over_warp(total, Sum{});
    true_below_top = over_warp(true_below_top, Sum{});
    for (Index k = lane; k < columns; k += kWarp) {
      x[k] = (exp(x[k] - top) / total - (k < call.num_true ? share : S{0})) * scale;
    }
    loss = log(total) + true_below_top;
  }
  if (lane == 0) pass.losses[b] = loss;
}

// ---- Backward ------------------------------------------------------------------------------------------------------

// A block has a tile of dinputs = dtrue logits . true rows + dsampled logits . sampled rows.
template <class S, int m>
__global__ void __launch_bounds__(kThreads, 2) compute_dinputs(Pass<S> pass) {
  const SampledClasses<S>& call = pass.call;
  const Index columns = call.K + call.sampled_count;
  const Tile<m> tile(blockIdx.x, call.B, call.E);
  S total[m][m] = {};
  multiply<S, m>(
      call.sampled_count,
      [&](S* chunk, Index begin, int depth) {
        fill_along<S, m>(chunk, tile.rows, depth, false,
                         [&](int r) { return call.dlogits + (tile.row + r) * columns + call.K + begin; });
      },
      [&](S* chunk, Index begin, int depth) {
        fill_across<S, m>(chunk, tile.columns, depth, [&](int k, int c) {
          return call.weights[call.sampled[begin + k] * call.E + tile.column + c];
        });
      },
      total);
  finish_tile<S, m>(tile, total, [&](int r, int c, S sum) {
    const Index b = tile.row + r, e = tile.column + c;
    S true_share = 0;
    for (Index k = 0; k < call.K; ++k) {
      true_share += call.dlogits[b * columns + k] * call.weights[call.labels[b * call.K + k] * call.E + e];
    }
    call.dinputs[b * call.E + e] = true_share + sum;
  });
}

// A block has a tile of dsampled = dsampled logits^T (inputs, 1).
template <class S, int m>
__global__ void __launch_bounds__(kThreads, 2) compute_dsampled(Pass<S> pass) {
  const SampledClasses<S>& call = pass.call;
  const Index columns = call.K + call.sampled_count;
  const Tile<m> tile(blockIdx.x, call.sampled_count, call.E + 1);
  S total[m][m] = {};
  multiply<S, m>(
      call.B,
      [&](S* chunk, Index begin, int depth) {
        fill_across<S, m>(chunk, tile.rows, depth,
                          [&](int k, int r) { return call.dlogits[(begin + k) * columns + call.K + tile.row + r]; });
      },
      [&](S* chunk, Index begin, int depth) {
        fill_across<S, m>(chunk, tile.columns, depth, [&](int k, int c) {
          const Index e = tile.column + c;
          return e < call.E ? call.inputs[(begin + k) * call.E + e] : S{1};
        });
      },
      total);
  finish_tile<S, m>(tile, total,
                    [&](int r, int c, S sum) { pass.dsampled[(tile.row + r) * (call.E + 1) + tile.column + c] = sum; });
}

// A block has a class that takes part: the sum over its occurrences, in their order.
template <class S>
__global__ void __launch_bounds__(kThreads) sum_classes(Pass<S> pass) {
  const SampledClasses<S>& call = pass.call;
  const Index u = blockIdx.x, columns = call.K + call.sampled_count, true_count = call.B * call.K;
  if (u >= *call.segments.count) return;
  const Index begin = call.segments.starts[u], end = call.segments.starts[u + 1];
  for (Index e = threadIdx.x; e < call.E + (call.dbiases ? 1 : 0); e += blockDim.x) {
    S sum = 0;
    for (Index g = begin; g < end; ++g) {
      const Index n = call.segments.order[g];
      if (n < true_count) {
        const Index b = n / call.K;
        sum += call.dlogits[b * columns + n % call.K] * (e < call.E ? call.inputs[b * call.E + e] : S{1});
      } else {
        sum += pass.dsampled[(n - true_count) * (call.E + 1) + e];
      }
    }
    if (e < call.E) {
      call.dweights[u * call.E + e] = sum;
    } else {
      call.dbiases[u] = sum;
    }
  }
}

// ---- Launches ------------------------------------------------------------------------------------------------------

template <class S>
Pass<S> pass_of(const SampledClasses<S>& call) {
  Pass<S> pass{};
  pass.call = call;
  pass.whole_packs = call.E % kInPack<S> == 0 && begins_with_pack(call.weights) && begins_with_pack(call.inputs);
  return pass;
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "cannot ask for the current device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cannot ask for its properties");
  return count;
}

// Launches kernel(m) for the widest tile that leaves every multiprocessor one, with blocks behind the tiles' ones.
template <class S, class KernelOf>
void launch_tiles(const KernelOf& kernel, Index rows, Index columns, Index blocks_behind, Pass<S> pass,
                  cudaStream_t stream) {
  const Index wanted = multiprocessors();
  const auto tiles = [&](int m) { return divide_up(rows, m * kSide) * divide_up(columns, m * kSide); };
  int m = 1;
  while (m < kWidest<S> && tiles(2 * m) >= wanted) m *= 2;
  pass.tiles = tiles(m);
  const dim3 blocks(static_cast<unsigned>(pass.tiles + blocks_behind));
  if (blocks.x == 0) return;
  const auto run = [&](auto width) {
    launch(kernel(width), blocks, kThreads, kSharedBytes<S, decltype(width)::value>, stream, false, pass);
  };
  if (m == 1) return run(std::integral_constant<int, 1>{});
  if (m == 2) return run(std::integral_constant<int, 2>{});
  if constexpr (kWidest<S> == 4) run(std::integral_constant<int, 4>{});
}

template <class S>
void launch_logits(const Pass<S>& pass, cudaStream_t stream) {
  const SampledClasses<S>& call = pass.call;
  launch_tiles([](auto m) { return &compute_logits<S, decltype(m)::value>; }, call.B, call.sampled_count,
               divide_up(call.B * call.K, kWarps), pass, stream);
}

constexpr Index aligned(Index bytes) { return round_up(bytes, sizeof(Packed16)); }

// The workspace's parts, one after the other.
template <class S>
struct Layout {
  Index dsampled, order, starts, segments, logits, end;

  Layout(Index B, Index K, Index sampled_count, Index E, bool with_logits) {
    const Index M = B * K + sampled_count;
    dsampled = 0;
    order = dsampled + aligned(sampled_count * (E + 1) * static_cast<Index>(sizeof(S)));
    starts = order + aligned(M * static_cast<Index>(sizeof(int)));
    segments = starts + aligned((M + 1) * static_cast<Index>(sizeof(Index)));
    logits = segments + aligned(segment_ids_workspace_bytes(M));
    end = logits + (with_logits ? aligned(B * (K + sampled_count) * static_cast<Index>(sizeof(S))) : 0);
  }
};

// The gradients from dlogits.
template <class S>
void launch_backward(Pass<S> pass, const Layout<S>& layout, cudaStream_t stream) {
  SampledClasses<S>& call = pass.call;
  const Index M = call.B * call.K + call.sampled_count;
  pass.dsampled = reinterpret_cast<S*>(call.workspace + layout.dsampled);
  call.segments.order = reinterpret_cast<int*>(call.workspace + layout.order);
  call.segments.starts = reinterpret_cast<Index*>(call.workspace + layout.starts);
  launch_tiles([](auto m) { return &compute_dinputs<S, decltype(m)::value>; }, call.B, call.E, 0, pass, stream);
  if (M == 0) return;
  launch_tiles([](auto m) { return &compute_dsampled<S, decltype(m)::value>; }, call.sampled_count, call.E + 1, 0, pass,
               stream);
  segment_ids({call.labels, call.B * call.K, call.sampled, M}, call.segments, call.workspace + layout.segments, stream);
  const auto threads = static_cast<int>(std::min<Index>(kThreads, divide_up(call.E + 1, kWarp) * kWarp));
  launch(sum_classes<S>, dim3(static_cast<unsigned>(M)), threads, 0, stream, false, pass);
}

}  // namespace

template <class S>
Index sampled_workspace_bytes(Index B, Index K, Index sampled_count, Index E, bool with_logits) {
  return Layout<S>(B, K, sampled_count, E, with_logits).end;
}

template <class S>
void sampled_logits_forward(const SampledClasses<S>& call, cudaStream_t stream) {
  launch_logits(pass_of(call), stream);
}

template <class S>
void sampled_logits_backward(const SampledClasses<S>& call, cudaStream_t stream) {
  launch_backward(pass_of(call), Layout<S>(call.B, call.K, call.sampled_count, call.E, false), stream);
}

template <class S>
void sampled_loss(const SampledClasses<S>& call, SampledLossKind kind, S* losses, cudaStream_t stream) {
  const Layout<S> layout(call.B, call.K, call.sampled_count, call.E, true);
  Pass<S> pass = pass_of(call);
  pass.losses = losses;
  pass.call.logits = reinterpret_cast<S*>(call.workspace + layout.logits);
  pass.call.dlogits = pass.call.logits;
  launch_logits(pass, stream);
  if (call.B > 0) {
    launch(kind == SampledLossKind::kSigmoid ? compute_losses<S, SampledLossKind::kSigmoid>
                                             : compute_losses<S, SampledLossKind::kSoftmax>,
           dim3(static_cast<unsigned>(divide_up(call.B, kWarps))), kThreads, 0, stream, false, pass);
  }
  launch_backward(pass, layout, stream);
}

template Index sampled_workspace_bytes<float>(Index, Index, Index, Index, bool);
template Index sampled_workspace_bytes<double>(Index, Index, Index, Index, bool);
template void sampled_logits_forward(const SampledClasses<float>&, cudaStream_t);
template void sampled_logits_forward(const SampledClasses<double>&, cudaStream_t);
template void sampled_logits_backward(const SampledClasses<float>&, cudaStream_t);
template void sampled_logits_backward(const SampledClasses<double>&, cudaStream_t);
template void sampled_loss(const SampledClasses<float>&, SampledLossKind, float*, cudaStream_t);
template void sampled_loss(const SampledClasses<double>&, SampledLossKind, double*, cudaStream_t);

}  // namespace fastlstm::cuda
