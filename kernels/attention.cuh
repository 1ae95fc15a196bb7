// Attention over packed sequences, blocks of keys at a time with a running softmax (Dao et al.
// 2022, arXiv:2205.14135; Milakov and Gimelshein 2018, arXiv:1805.02867).
//
// A block of threads takes a tile of queries of one key head: positions times the heads that share
// it, so that keys and values are read once for a whole group. Blocks of keys start at the
// sequence's first row (its prefix counted), have a fixed length and end at KeySpan::block_end too;
// a block that no query of the tile sees is passed over, which changes no bit. So what a query
// gives depends neither on the batch nor on where in its tile it stands.
//
// A tile of R rows over L keys with heads of D elements of t bytes: reads t R D of queries and
// 2 t L D of keys and values (each tile of a sequence reads them again, from the L2 cache: a tile
// holds its queries' accumulators, and only those fit on chip), writes t R D; 4 R L D FLOPs and R L
// exponentials. Bound by the multipliers from about 64 keys on: 2 R / t FLOPs a byte of keys.
#pragma once

#include "common.cuh"
#include "terse/ops/cuda.h"

namespace terse::cuda {

// The blocks of keys that some query of a tile sees, in rising order.
class KeyBlocks {
 public:
  // Positions of the tile's first and last query, which rise.
  __device__ KeyBlocks(const AttendStep& step, const KeySpan& keys, int first_position,
                       int last_position)
      : causal_(step.causal != 0),
        window_(step.window),
        first_(first_position),
        last_(last_position),
        cut_(keys.block_end),
        keys_(keys.prefix_length + keys.own_length) {}

  // Goes to the next block of at most `length` keys, begin() .. end() - 1; false: there is none.
  template <int LENGTH>
  __device__ bool next() {
    while (true) {
      begin_ = end_;
      if (begin_ >= keys_ || (causal_ && begin_ > last_)) return false;
      if (window_ > 0 && !causal_ && begin_ - last_ >= window_) return false;
      end_ = min(begin_ + LENGTH, begin_ < cut_ ? min(cut_, keys_) : keys_);
      if (window_ == 0 || first_ - (end_ - 1) < window_) return true;
    }
  }
  // Whether every query of the tile sees all LENGTH keys of the block.
  template <int LENGTH>
  __device__ bool all_seen() const {
    if (end_ - begin_ != LENGTH || (causal_ && end_ - 1 > first_)) return false;
    return window_ == 0 || (last_ - begin_ < window_ && (causal_ || end_ - 1 - first_ < window_));
  }
  __device__ int begin() const { return begin_; }
  __device__ int end() const { return end_; }

 private:
  bool causal_;
  int window_;
  int first_;
  int last_;
  int cut_;
  int keys_;
  int begin_ = 0;
  int end_ = 0;
};

// The keys that a query sees, first .. first + count - 1; see reference::sees.
struct SeenKeys {
  int first = 0;
  unsigned count = 0;

  SeenKeys() = default;
  __device__ SeenKeys(const AttendStep& step, int query) {
    constexpr int kAll = 0x3fffffff;
    int end = kAll;
    if (step.window > 0) {
      first = max(0, query - step.window + 1);
      end = query + step.window;
    }
    if (step.causal != 0) end = query + 1;
    count = static_cast<unsigned>(end - first);
  }
  __device__ bool has(int key) const { return static_cast<unsigned>(key - first) < count; }
};

// Row of the packed batch that holds key `index` of a sequence.
__device__ __forceinline__ int key_row(const KeySpan& keys, int index) {
  return index < keys.prefix_length ? keys.prefix_begin + index
                                    : keys.own_begin + index - keys.prefix_length;
}

// What a block of threads works on.
struct TileOfQueries {
  QueryTile tile;
  KeySpan keys;
  int kv_head;
  int first_head;  // of the group
  int rows;        // positions times packed heads

  __device__ TileOfQueries(const AttendStep& step)
      : tile(step.tiles[blockIdx.x]), keys(step.sequences[tile.sequence]) {
    const int parts = step.heads / step.kv_heads / step.packed;
    kv_head = static_cast<int>(blockIdx.y) / parts;
    first_head = static_cast<int>(blockIdx.y) % parts * step.packed;
    rows = tile.count * step.packed;
  }
  // A row of the tile is a position and one of the packed heads. Without a division where one head
  // is packed: kernels ask for every row.
  __device__ int position_of(const AttendStep& step, int row) const {
    return step.packed == 1 ? row : row / step.packed;
  }
  __device__ int head(const AttendStep& step, int row) const {
    const int packed = step.packed == 1 ? 0 : row % step.packed;
    return kv_head * (step.heads / step.kv_heads) + first_head + packed;
  }
  // Row of out, row of the batch and position in the sequence of a row of the tile.
  __device__ int out_row(const AttendStep& step, int row) const {
    return tile.first + position_of(step, row);
  }
  __device__ int query_row(const AttendStep& step, int row) const {
    const int out = out_row(step, row);
    return step.query_rows == nullptr ? out : step.query_rows[out];
  }
  __device__ int position(const AttendStep& step, int row) const {
    return query_row(step, row) - keys.own_begin + keys.prefix_length;
  }
  // Offset of a row of the tile in the queries, in out, and of a key in the keys and the values.
  __device__ std::int64_t query_offset(const AttendStep& step, int row) const {
    return query_row(step, row) * static_cast<std::int64_t>(step.row_step) +
           head(step, row) * step.padded_dim;
  }
  __device__ std::int64_t out_offset(const AttendStep& step, int row) const {
    return (static_cast<std::int64_t>(out_row(step, row)) * step.heads + head(step, row)) *
           step.head_dim;
  }
  __device__ std::int64_t key_offset(const AttendStep& step, int index) const {
    return key_row(keys, index) * static_cast<std::int64_t>(step.row_step) +
           kv_head * step.padded_dim;
  }
};

// f32 throughout, by plain multiply-adds: four threads a row, each with every fourth key of a block
// and every fourth vector of the result. M rows a tile, N keys a block.
template <int D, int M, int N>
__global__ void __launch_bounds__(4 * M) attention_f32_kernel(const AttendStep step) {
  constexpr int kStride = D + 4;  // rows of shared memory start in different banks
  KSHARED(float, queries, M* kStride);
  KSHARED(float, block, N* kStride);
  KSHARED(float, weights, M* N);
  const TileOfQueries at(step);
  if (at.tile.count == 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / 4;
  const int part = thread % 4;
  const auto load_row = [](float* to, const float* from, int i) {
    *reinterpret_cast<Pack<float, 4>*>(to + 4 * i) =
        from == nullptr ? Pack<float, 4>{} : *reinterpret_cast<const Pack<float, 4>*>(from + 4 * i);
  };
  for (int i = thread; i < M * (D / 4); i += 4 * M) {
    const int r = i / (D / 4);
    const float* from =
        r < at.rows ? static_cast<const float*>(step.query) + at.query_offset(step, r) : nullptr;
    load_row(queries + r * kStride, from, i % (D / 4));
  }
  const auto load_block = [&](const void* all, const KeyBlocks& keys) {
    for (int i = thread; i < N * (D / 4); i += 4 * M) {
      const int index = keys.begin() + i / (D / 4);
      const float* from = index < keys.end()
                              ? static_cast<const float*>(all) + at.key_offset(step, index)
                              : nullptr;
      load_row(block + i / (D / 4) * kStride, from, i % (D / 4));
    }
  };

  float result[D / 4] = {};
  float most = -INFINITY;
  float sum = 0;
  const SeenKeys seen(step, row < at.rows ? at.position(step, row) : 0);
  KeyBlocks keys(step, at.keys, at.position(step, 0), at.position(step, at.rows - 1));
  while (keys.template next<N>()) {
    __syncthreads();  // the block before has been read
    load_block(step.key, keys);
    __syncthreads();
    float score[N / 4];
    float block_most = -INFINITY;
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
      const int key = part + 4 * i;
      float dot = 0;
#pragma unroll 8
      for (int d = 0; d < D; d += 4) {
        float q[4], k[4];
        load_floats<4>(queries + row * kStride + d, q);
        load_floats<4>(block + key * kStride + d, k);
#pragma unroll
        for (int j = 0; j < 4; ++j) dot += q[j] * k[j];
      }
      dot *= step.score_scale;
      if (step.softcap > 0) dot = step.softcap * tanh_f32(dot / step.softcap);
      const int index = keys.begin() + key;
      score[i] = index < keys.end() && seen.has(index) ? dot : -INFINITY;
      block_most = fmaxf(block_most, score[i]);
    }
    block_most = fmaxf(block_most, __shfl_xor_sync(0xffffffffU, block_most, 1));
    block_most = fmaxf(block_most, __shfl_xor_sync(0xffffffffU, block_most, 2));
    const float new_most = fmaxf(most, block_most);
    const float base = new_most == -INFINITY ? 0.0F : new_most;
    const float faded = exp_f32(most - base);
    float block_sum = 0;
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
      const float weight = exp_f32(score[i] - base);
      weights[row * N + part + 4 * i] = weight;
      block_sum += weight;
    }
    block_sum += __shfl_xor_sync(0xffffffffU, block_sum, 1);
    block_sum += __shfl_xor_sync(0xffffffffU, block_sum, 2);
    sum = sum * faded + block_sum;
    most = new_most;
    __syncthreads();  // keys have been read, weights are written
    load_block(step.value, keys);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < D / 4; ++i) result[i] *= faded;
    for (int key = 0; key < N; ++key) {
      const float weight = weights[row * N + key];
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        float v[4];
        load_floats<4>(block + key * kStride + 4 * (part + 4 * i), v);
#pragma unroll
        for (int j = 0; j < 4; ++j) result[4 * i + j] += weight * v[j];
      }
    }
  }
  if (row >= at.rows) return;
  const float inverse = sum > 0 ? 1.0F / sum : sum;  // a row that sees nothing gives zeros
  float* out = static_cast<float*>(step.out) + at.out_offset(step, row);
#pragma unroll
  for (int i = 0; i < D / 4; ++i) {
    const int column = 4 * (part + i / 4 * 4) + i % 4;
    if (column < step.head_dim) out[column] = result[i] * inverse;
  }
}

// Where 16-byte chunk `chunk` of row `row` lies in a tile of rows of D 16-bit elements: chunks of
// neighbouring rows change places, so that eight rows read at the same column meet eight different
// groups of banks.
template <int D>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  const int key = D >= 64 ? row & 7 : row >> 1 & 3;
  return row * D + (chunk ^ key) * 8;
}

// Within 2^-21 of tanh(x): small enough for what is rounded to 16 bits, and a tenth of its code.
__device__ __forceinline__ float tanh_by_exp2(float x) {
  return 1 - 2 * rcp_approx(1 + exp2_approx(x * 2.8853900817779268F));
}

template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, bf16>) {
    mma_m16n8k16_bf16(d, a, b);
  } else {
    mma_m16n8k16_f16(d, a, b);
  }
}

inline constexpr int kTensorThreads = 128;

// Rows of a tile of warps with M times 16 rows each.
template <int M>
inline constexpr int kTensorTileRows = kTensorThreads / 32 * 16 * M;

// Elements of shared memory: queries, keys, values.
template <int D, int N, int M>
inline constexpr int kTensorElements = (kTensorTileRows<M> + 2 * N) * D;

// Blocks that a multiprocessor has room for at least, by the registers that their sums need.
template <int D, int M>
inline constexpr int kTensorBlocks = M == 1 && D <= 64 ? 4 : 2;

// Tensor cores: 16-bit queries, keys, values and weights, scores and sums in f32. A warp has M
// times 16 rows of the tile and all N keys of a block: what it reads of keys and values from shared
// memory serves M products, and with one the reads take longer than the products. Values are copied
// while scores are computed, the next keys during the softmax and the products with values.
template <class T, int D, int N, int M>
__global__ void __launch_bounds__(kTensorThreads, kTensorBlocks<D, M>)
    attention_mma_kernel(const AttendStep step) {
  constexpr int kChunks = D / 8;
  constexpr int kRows = kTensorTileRows<M>;
  // Where no more than two blocks fit anyway; else they are read again for each block of keys.
  constexpr bool kQueriesInRegisters = kTensorBlocks<D, M> == 2 && D * M <= 128;
  KSHARED_DYN(T, shared);
  T* queries = shared;
  T* keys = queries + kRows * D;
  T* values = keys + N * D;
  const TileOfQueries at(step);
  if (at.tile.count == 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp_row = thread / 32 * 16 * M;
  // A warp without rows still copies. By a vote, so that the compiler knows a warp to be of one
  // mind.
  const bool has_rows = __any_sync(0xffffffffU, warp_row < at.rows);

  // A thread copies one chunk of every kCopyRows-th row.
  constexpr int kCopyRows = kTensorThreads / kChunks;
  const int copy_row = thread / kChunks;
  const int copy_chunk = thread % kChunks;
#pragma unroll
  for (int i = 0; i < kRows / kCopyRows; ++i) {
    const int row = copy_row + i * kCopyRows;
    const bool valid = row < at.rows;
    cp_async16_zfill(
        queries + swizzled<D>(row, copy_chunk),
        static_cast<const T*>(step.query) + at.query_offset(step, valid ? row : 0) + copy_chunk * 8,
        valid);
  }
  cp_async_commit();
  const auto copy_block = [&](T* to, const void* all, const KeyBlocks& blocks) {
    const T* from = static_cast<const T*>(all) + copy_chunk * 8;
#pragma unroll
    for (int i = 0; i < N / kCopyRows; ++i) {
      const int row = copy_row + i * kCopyRows;
      const int index = min(blocks.begin() + row, blocks.end() - 1);
      cp_async16_zfill(to + swizzled<D>(row, copy_chunk), from + at.key_offset(step, index),
                       blocks.begin() + row < blocks.end());
    }
    cp_async_commit();
  };

  KeyBlocks blocks(step, at.keys, at.position(step, 0), at.position(step, at.rows - 1));
  bool more = blocks.template next<N>();
  if (more) copy_block(keys, step.key, blocks);

  // ldmatrix: addresses of the 16 x 16 pieces of queries (as a) and values, and of keys.
  const int a_row = lane & 15;
  const int a_chunk = lane >> 4;
  const int b_row = (lane & 7) + (lane >> 4) * 8;
  const int b_chunk = lane >> 3 & 1;

  // f(m, r) for this thread's rows, g and g + 8 of each 16 of its warp.
  const auto each_row = [](const auto& f) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) f(m, r);
    }
  };
  std::uint32_t query_fragments[kQueriesInRegisters ? D / 16 : 1][M][4];
  const auto load_queries = [&](std::uint32_t(&to)[M][4], int k) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      ldmatrix_x4(to[m], queries + swizzled<D>(warp_row + 16 * m + a_row, 2 * k + a_chunk));
    }
  };
  // Weights are powers of 2 of factor times a score.
  constexpr float kLog2E = 1.4426950408889634F;
  const float factor = step.softcap > 0 ? kLog2E : step.score_scale * kLog2E;
  const float cap_scale = step.softcap > 0 ? step.score_scale / step.softcap : 0.0F;
  float result[M][D / 8][4] = {};
  float most[M][2];
  float sum[M][2] = {};  // of this thread's keys
#pragma unroll
  for (int m = 0; m < M; ++m) most[m][0] = most[m][1] = -INFINITY;
  bool first = true;
  while (more) {
    cp_async_wait<0>();
    __syncthreads();  // keys are there, and queries; the values before them have been read
    copy_block(values, step.value, blocks);
    float score[M][N / 8][4] = {};
    if (has_rows) {
      if (kQueriesInRegisters && first) {
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
          load_queries(query_fragments[kQueriesInRegisters ? k : 0], k);
        }
      }
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
        if constexpr (!kQueriesInRegisters) load_queries(query_fragments[0], k);
        const std::uint32_t(&a)[M][4] = query_fragments[kQueriesInRegisters ? k : 0];
#pragma unroll
        for (int n = 0; n < N / 16; ++n) {
          std::uint32_t pair[4];
          ldmatrix_x4(pair, keys + swizzled<D>(16 * n + b_row, 2 * k + b_chunk));
          const std::uint32_t low[2] = {pair[0], pair[1]};
          const std::uint32_t high[2] = {pair[2], pair[3]};
#pragma unroll
          for (int m = 0; m < M; ++m) {
            mma<T>(score[m][2 * n], a[m], low);
            mma<T>(score[m][2 * n + 1], a[m], high);
          }
        }
      }
    }
    first = false;
    const int begin = blocks.begin();
    const int end = blocks.end();
    const bool all_seen = blocks.template all_seen<N>();
    cp_async_wait<0>();
    __syncthreads();  // values are there, keys have been read
    more = blocks.template next<N>();
    if (more) copy_block(keys, step.key, blocks);
    if (!has_rows) continue;

    if (step.softcap > 0) {
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < N / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            score[m][n][i] = step.softcap * tanh_by_exp2(score[m][n][i] * cap_scale);
          }
        }
      }
    }
    if (!all_seen) {
      each_row([&](int m, int r) {
        const int row = warp_row + 16 * m + lane / 4 + 8 * r;
        const SeenKeys seen(step, row < at.rows ? at.position(step, row) : 0);
#pragma unroll
        for (int n = 0; n < N / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int index = begin + 8 * n + lane % 4 * 2 + i;
            if (index >= end || !seen.has(index)) score[m][n][2 * r + i] = -INFINITY;
          }
        }
      });
    }
    // Scores to weights 2^((score - most) factor), in place. The rows' chains of maxima, sums and
    // shuffles stand side by side: a warp waits for each link, and few warps fit.
    float block_most[M][2];
    float base[M][2];
    float faded[M][2];
    each_row([&](int m, int r) {
      block_most[m][r] = fmaxf(score[m][0][2 * r], score[m][0][2 * r + 1]);
    });
#pragma unroll
    for (int n = 1; n < N / 8; ++n) {
      each_row([&](int m, int r) {
        block_most[m][r] =
            fmaxf(block_most[m][r], fmaxf(score[m][n][2 * r], score[m][n][2 * r + 1]));
      });
    }
#pragma unroll
    for (int other = 1; other <= 2; ++other) {
      each_row([&](int m, int r) {
        block_most[m][r] =
            fmaxf(block_most[m][r], __shfl_xor_sync(0xffffffffU, block_most[m][r], other));
      });
    }
    bool fades = false;
    each_row([&](int m, int r) {
      const float new_most = fmaxf(most[m][r], block_most[m][r]);
      base[m][r] = new_most == -INFINITY ? 0.0F : new_most * factor;
      faded[m][r] = exp2_approx(most[m][r] * factor - base[m][r]);
      fades = fades || faded[m][r] != 1;
      most[m][r] = new_most;
      sum[m][r] *= faded[m][r];
    });
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
      each_row([&](int m, int r) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          score[m][n][i] = exp2_approx(score[m][n][i] * factor - base[m][r]);
        }
        sum[m][r] += score[m][n][2 * r] + score[m][n][2 * r + 1];
      });
    }
    if (__any_sync(0xffffffffU, fades)) {
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        each_row([&](int m, int r) {
          result[m][n][2 * r] *= faded[m][r];
          result[m][n][2 * r + 1] *= faded[m][r];
        });
      }
    }
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      std::uint32_t a[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m) {
        a[m][0] = pack2<T>(score[m][2 * k][0], score[m][2 * k][1]);
        a[m][1] = pack2<T>(score[m][2 * k][2], score[m][2 * k][3]);
        a[m][2] = pack2<T>(score[m][2 * k + 1][0], score[m][2 * k + 1][1]);
        a[m][3] = pack2<T>(score[m][2 * k + 1][2], score[m][2 * k + 1][3]);
      }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        std::uint32_t pair[4];
        ldmatrix_x4_trans(pair, values + swizzled<D>(16 * k + a_row, 2 * n + a_chunk));
        const std::uint32_t low[2] = {pair[0], pair[1]};
        const std::uint32_t high[2] = {pair[2], pair[3]};
#pragma unroll
        for (int m = 0; m < M; ++m) {
          mma<T>(result[m][2 * n], a[m], low);
          mma<T>(result[m][2 * n + 1], a[m], high);
        }
      }
    }
  }

  // Through shared memory, each warp its own rows of the queries' place, so that rows leave in
  // whole chunks.
  cp_async_wait<0>();
  __syncthreads();
  if (!has_rows) return;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float whole = sum[m][r];
      whole += __shfl_xor_sync(0xffffffffU, whole, 1);
      whole += __shfl_xor_sync(0xffffffffU, whole, 2);
      const float inverse = whole > 0 ? 1.0F / whole : whole;
      const int row = warp_row + 16 * m + lane / 4 + 8 * r;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        T* to = queries + swizzled<D>(row, n) + lane % 4 * 2;
        *reinterpret_cast<std::uint32_t*>(to) =
            pack2<T>(result[m][n][2 * r] * inverse, result[m][n][2 * r + 1] * inverse);
      }
    }
  }
  __syncwarp();
  const TileOfQueries left(step);         // read again: through the loop it would take registers
  constexpr int kOutRows = 32 / kChunks;  // that a warp writes at once
  const int chunk = lane % kChunks;
  T* out = static_cast<T*>(step.out) + 8 * chunk;
#pragma unroll
  for (int i = 0; i < 16 * M / kOutRows; ++i) {
    const int row = warp_row + lane / kChunks + i * kOutRows;
    if (row >= left.rows || 8 * chunk >= step.head_dim) continue;
    const T* from = queries + swizzled<D>(row, chunk);
    T* to = out + left.out_offset(step, row);
    if (step.head_dim % 8 == 0) {
      *reinterpret_cast<Pack<T, 8>*>(to) = *reinterpret_cast<const Pack<T, 8>*>(from);
    } else {
#pragma unroll 1
      for (int j = 0; j < min(8, step.head_dim - 8 * chunk); ++j) to[j] = from[j];
    }
  }
}

}  // namespace terse::cuda
