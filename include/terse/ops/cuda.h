// CUDA without a CUDA header: memory of devices, and the steps that the ops in cuda_backend.h are
// made of, on plain pointers. Defined in kernels/launch.cu, the library terse::cuda; every call
// throws Error(device) if the driver, a device or a kernel fails.
//
// A step is a kernel launch, a product by cuBLAS or a copy. Steps are added to a queue and run when
// the queue is flushed, in order; a program of steps that comes again, byte for byte, is replayed
// as one CUDA graph. So nothing that changes from batch to batch may be in a step but through
// memory: counts of rows are those of a bucket, lengths and positions lie in staged arrays, and
// what the rows past the real ones hold is never read by the others.
//
// T is the type of operands: f32, bf16 or f16. Row-major throughout. "rows" are a bucket's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terse/dtype.h"

namespace terse::cuda {

struct DeviceProperties {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  std::size_t memory_bytes = 0;
};

// The devices that this process may use, by number. Throws Error(device): no driver, no device, or
// one older than compute capability 8.0.
std::vector<DeviceProperties> find_devices();

// What of CUDA this program was built with and what the driver offers, 1000 * major + 10 * minor;
// driver 0: there is none.
struct Versions {
  int runtime = 0;
  int driver = 0;
};
Versions versions();

// Memory of a device, or pinned memory of the host if device is kHost.
inline constexpr int kHost = -1;
class Memory {
 public:
  Memory() = default;
  Memory(int device, std::size_t bytes);  // not initialised
  ~Memory();
  Memory(Memory&& other) noexcept
      : device_(other.device_), bytes_(other.bytes_), data_(other.data_) {
    other.data_ = nullptr;
  }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }

  void* data() const { return data_; }
  template <class Element>
  Element* as() const {
    return static_cast<Element*>(data_);
  }
  std::size_t size() const { return bytes_; }

  // Copies to the start of this memory, or a part of it to the host; both wait until it is done.
  void upload(const void* from, std::size_t bytes, std::size_t offset = 0) const;

 private:
  int device_ = 0;
  std::size_t bytes_ = 0;
  void* data_ = nullptr;
};

// --- steps ---------------------------------------------------------------------------------------

enum class StepKind : std::int64_t {
  copy,
  clear,
  product,
  embed,
  add_norm,
  activate,
  gate,
  turn_heads,
  attend,
  mean_rows,
  finish_head,
};

// As NormKind of backend.h, with 0 for none.
struct NormStep {
  const float* weight = nullptr;  // (width)
  const float* bias = nullptr;    // (width), layer norm only
  float eps = 0;
  std::int32_t kind = 0;  // 0 none, 1 layer, 2 rms, 3 rms with 1 + weight
};

// Bytes between the host (pinned) and the device.
struct CopyStep {
  static constexpr StepKind kKind = StepKind::copy;
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
  std::int64_t to_device = 0;  // else to the host
};

struct ClearStep {
  static constexpr StepKind kKind = StepKind::clear;
  void* to = nullptr;
  std::size_t bytes = 0;
};

// y (rows, columns) = activation(x (rows, width) w^T + bias), w (columns, width), x and w of one
// type, y of that or f32, sums in f32.
struct ProductStep {
  static constexpr StepKind kKind = StepKind::product;
  const void* x = nullptr;
  const void* w = nullptr;
  void* y = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t width = 0;
  std::int32_t type = 0;               // DType of x and w
  std::int32_t out_type = 0;           // DType of y
  const float* bias = nullptr;         // (columns), or null
  const void* rounded_bias = nullptr;  // the same in the type of y
  std::int64_t activation = 0;         // Activation of backend.h
};

// A table of rows, gathered by index[row]; index null: row 0 of the table for all.
struct TableRows {
  const void* rows = nullptr;
  const std::int32_t* index = nullptr;
  std::int64_t type = 0;  // DType
};

// residual = norm(scale * (word + type + position)), out = next_norm(residual).
struct EmbedStep {
  static constexpr StepKind kKind = StepKind::embed;
  TableRows word;
  TableRows token_type;  // rows null: none
  TableRows position;
  NormStep norm;
  NormStep next_norm;
  float* residual = nullptr;  // (rows, width)
  void* out = nullptr;        // T (rows, width), or null
  std::int32_t rows = 0;
  std::int32_t width = 0;
  float scale = 1;
  std::int32_t type = 0;  // DType of out
};

// y = product_norm(product + bias); x = sum_norm(residual + factor * y); residual = x if it is to
// be written; out = next_norm(x). Without a product x = residual.
struct AddNormStep {
  static constexpr StepKind kKind = StepKind::add_norm;
  const float* product = nullptr;  // (rows, width), or null
  const float* bias = nullptr;     // (width), or null
  NormStep product_norm;
  NormStep sum_norm;
  NormStep next_norm;
  const float* residual = nullptr;    // (rows, width)
  float* written_residual = nullptr;  // the same or null: not written
  void* out = nullptr;                // T (rows, width), or null
  std::int32_t rows = 0;
  std::int32_t width = 0;
  float factor = 1;
  std::int32_t type = 0;
};

// out = activation(product + bias), all T (rows, columns); out may be product. What a product ends
// with where cuBLAS cannot end it.
struct ActivateStep {
  static constexpr StepKind kKind = StepKind::activate;
  const void* product = nullptr;
  const float* bias = nullptr;  // or null
  void* out = nullptr;
  std::int64_t rows = 0;
  std::int32_t columns = 0;
  std::int32_t activation = 0;  // Activation of backend.h
  std::int64_t type = 0;
};

// out T (rows, columns) = activation(gate + bias) * (up + bias), product T (rows, 2 columns) =
// gate, up.
struct GateStep {
  static constexpr StepKind kKind = StepKind::gate;
  const void* product = nullptr;
  const float* bias = nullptr;  // (2 columns), or null
  void* out = nullptr;
  std::int64_t rows = 0;
  std::int32_t columns = 0;
  std::int32_t activation = 0;
  std::int64_t type = 0;
};

// out T (rows, (heads + 2 kv_heads) * padded_dim), the queries, keys and values that AttendStep
// wants, from product (rows, (heads + 2 kv_heads) * head_dim) with bias, rotary turn of queries and
// keys by position, and query scale; columns of a head past head_dim are zero.
struct TurnHeadsStep {
  static constexpr StepKind kKind = StepKind::turn_heads;
  const float* product = nullptr;
  const float* bias = nullptr;              // or null
  const float* cos = nullptr;               // (length, head_dim / 2), or null: no rotation
  const float* sin = nullptr;               // likewise
  const std::int32_t* positions = nullptr;  // (rows), with cos
  void* out = nullptr;
  std::int32_t rows = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t padded_dim = 0;
  float query_scale = 1;
  std::int64_t type = 0;
};

// Keys of a sequence: rows prefix_begin .. of its prefix, then its own. Blocks of keys end at
// block_end beside their fixed length, whether or not the prefix is a sequence of its own.
struct KeySpan {
  std::int32_t own_begin = 0;
  std::int32_t own_length = 0;
  std::int32_t prefix_begin = 0;
  std::int32_t prefix_length = 0;
  std::int32_t block_end = 0;
  std::int32_t unused[3] = {};
};

// Some query rows of one sequence; count 0: nothing to do.
struct QueryTile {
  std::int32_t sequence = 0;
  std::int32_t first = 0;  // of the rows of out
  std::int32_t count = 0;
  std::int32_t unused = 0;
};

// Attention of tiles of queries: positions times the heads of a group that share them, at most
// tile_rows rows, see below. Row i of the queries begins at query + i * row_step, with padded_dim
// elements a head; keys and values likewise.
struct AttendStep {
  static constexpr StepKind kKind = StepKind::attend;
  const void* query = nullptr;
  const void* key = nullptr;
  const void* value = nullptr;
  void* out = nullptr;               // T (rows of out, heads * head_dim)
  const QueryTile* tiles = nullptr;  // (num_tiles)
  const KeySpan* sequences = nullptr;
  const std::int32_t* query_rows = nullptr;  // row of each row of out; null: the same
  std::int32_t num_tiles = 0;
  std::int32_t row_step = 0;  // elements
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t padded_dim = 0;
  std::int32_t causal = 0;
  std::int32_t window = 0;
  float softcap = 0;
  float score_scale = 1;    // of products of queries and keys
  std::int32_t packed = 1;  // heads of a group that share a tile
  std::int32_t tile_rows = 0;
  std::int32_t type = 0;
  std::int32_t unused = 0;
};

// The head size that kernels run for head_dim, 0 if there is none.
constexpr std::int32_t padded_head_dim(std::int64_t head_dim) {
  for (const std::int32_t size : {32, 64, 128, 256}) {
    if (head_dim <= size) return size;
  }
  return 0;
}
// Rows (positions times packed heads) of a tile where sequences have so many rows on average: tall
// tiles read keys less often, and stand half empty on short sequences. A row's bits are the same.
constexpr std::int32_t tile_rows(DType type, std::int32_t padded_dim, std::int64_t mean_rows) {
  if (type == DType::f32) return padded_dim == 256 ? 16 : 32;
  return padded_dim <= 64 && mean_rows >= 256 ? 128 : 64;
}

// out (rows, width): row i the mean of rows spans[i] of x, summed in rising order.
struct MeanRowsStep {
  static constexpr StepKind kKind = StepKind::mean_rows;
  const float* x = nullptr;
  const std::int32_t* spans = nullptr;  // (rows, 2): begin, end
  float* out = nullptr;
  std::int32_t rows = 0;
  std::int32_t width = 0;
};

// out (rows, kept) = the end of a head on product (rows, columns): bias, activation, the first kept
// columns, soft-cap, L2.
struct FinishHeadStep {
  static constexpr StepKind kKind = StepKind::finish_head;
  const float* product = nullptr;
  const float* bias = nullptr;  // (columns), or null
  float* out = nullptr;
  std::int32_t rows = 0;
  std::int32_t columns = 0;
  std::int32_t kept = 0;
  std::int32_t activation = 0;
  float softcap = 0;
  std::int32_t l2_normalize = 0;
};

// --- a queue -------------------------------------------------------------------------------------

// A stream of one device with its cuBLAS handle and the graphs of programs seen so far. Used by one
// thread at a time.
class Queue {
 public:
  explicit Queue(int device);
  ~Queue();  // waits, and discards what was not flushed
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  int device() const;
  template <class Step>
  void add(const Step& step) {
    append(Step::kKind, &step, sizeof(Step));
  }
  // Runs the steps added since the last flush; returns before they are done.
  void flush();
  // Flushes, and returns when everything is done.
  void wait();
  // Programs that were replayed as a graph so far.
  std::int64_t num_replays() const;

 private:
  struct Implementation;
  void append(StepKind kind, const void* step, std::size_t bytes);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace terse::cuda
