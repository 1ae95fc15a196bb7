// What the op table of CUDA devices (ops/cuda_backend.h) keeps: prepared weights, one copy a
// device, and the memory of a lane, sized once for the largest batch that the lane will see.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "terse/error.h"
#include "terse/ops/backend.h"
#include "terse/ops/cuda.h"
#include "terse/tensor.h"

namespace terse::cuda {

// Tokens of a packed group: enough for the products of a base-sized model to fill a large device.
inline constexpr std::int64_t kDeviceGroupTokens = 16384;
// Groups under way at once on a device: while one is computed the next is staged.
inline constexpr int kLanesPerDevice = 2;
// Widest row that a block of threads holds in its shared memory.
inline constexpr std::int64_t kMaxWidth = 48 * 1024 / sizeof(float) - 32;

// count rounded up to one of eight sizes an octave, multiples of 16.
constexpr std::int64_t bucket(std::int64_t count) {
  const auto octave = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(count)));
  const std::int64_t unit = std::max<std::int64_t>(16, octave / 8);
  return (count + unit - 1) / unit * unit;
}

// Devices as found once. Throws Error(device), and looks again next time.
inline const std::vector<DeviceProperties>& devices() {
  static const std::vector<DeviceProperties> found = find_devices();
  return found;
}

// --- prepared weights ----------------------------------------------------------------------------

// The same bytes on every device.
class Replicas {
 public:
  Replicas() = default;
  explicit Replicas(std::size_t bytes) {
    for (std::size_t device = 0; device < devices().size(); ++device) {
      copies_.emplace_back(static_cast<int>(device), bytes);
    }
  }
  // Writes to all of them at an offset.
  void upload(const void* from, std::size_t bytes, std::size_t offset = 0) const {
    for (const Memory& copy : copies_) copy.upload(from, bytes, offset);
  }
  // A tensor converted to dtype, at an offset; as it lies if it has that type.
  void upload(const TensorView& tensor, DType dtype, std::size_t offset = 0) const {
    const auto count = static_cast<std::size_t>(tensor.size());
    if (tensor.dtype == dtype) return upload(tensor.data, count * dtype_size(dtype), offset);
    AlignedBuffer converted(count * dtype_size(dtype));
    if (dtype == DType::f32) {
      convert_to(converted.as<float>(), tensor.data, tensor.dtype, count);
    } else {
      dispatch_floating(tensor.dtype, [&]<class From>() {
        for (std::size_t i = 0; i < count; ++i) {
          const auto value = to_real<float>(load_unaligned<From>(tensor.data, i));
          if (dtype == DType::bf16) converted.as<bf16>()[i] = to_bf16(value);
          if (dtype == DType::f16) converted.as<f16>()[i] = to_f16(value);
        }
      });
    }
    upload(converted.data(), converted.size(), offset);
  }
  template <class T>
  const T* on(int device) const {
    return copies_.empty() ? nullptr : copies_[static_cast<std::size_t>(device)].as<T>();
  }

 private:
  std::vector<Memory> copies_;
};

struct PreparedLinear {
  Replicas weight;        // (columns, in_features): the parts' rows one after another
  Replicas bias;          // f32 (columns), or none
  Replicas rounded_bias;  // the same in the type of operands, of a plain layer in bf16 or f16
  DType dtype = DType::f32;
  std::int64_t columns = 0;
};

struct PreparedTable {
  Replicas rows;
  DType dtype = DType::f32;
};

struct PreparedRotary {
  Replicas cos;  // f32 (length, head_dim / 2)
  Replicas sin;
};

// --- the state of a lane -------------------------------------------------------------------------

// Arrays that are copied to the device, in two blocks of one size, on the host and on the device.
// An array that is asked for again, as positions are by every layer, is not copied again.
class Staging {
 public:
  // An op stages at most so much for a row: a tile and a span of keys, its number, its ids.
  static constexpr std::size_t kBytesPerRow = sizeof(QueryTile) + sizeof(KeySpan) + 16;
  // Ops of most bytes that there is room for; ops of few bytes, a model's usual ones, by the
  // hundred.
  static constexpr std::size_t kOps = 4;

  Staging(int device, std::int64_t max_rows) : device_number_(device) { resize(max_rows); }

  // Before an op stages anything for that many rows (or sequences, if those are more): makes sure
  // of the room, and where it is used up waits until what was staged before is done with.
  void begin_op(Queue& queue, std::int64_t rows) {
    if (used_ + most_bytes(rows) <= host_.size()) return;
    queue.wait();
    reset();
    if (most_bytes(rows) > host_.size()) resize(rows);
  }

  // Device memory with values, then `fill` up to `count` elements. Valid until the next begin_op.
  template <class T>
  const T* stage(Queue& queue, std::span<const T> values, std::int64_t count, T fill = {}) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    for (const Piece& piece : pieces_) {
      if (piece.bytes == bytes && piece.used == values.size_bytes() &&
          piece.element_bytes == sizeof(T) &&
          (piece.used == 0 ||
           std::memcmp(host_.as<std::byte>() + piece.offset, values.data(), piece.used) == 0)) {
        return device_.as<T>() + piece.offset / sizeof(T);
      }
    }
    check(used_ + bytes <= host_.size(), ErrorClass::limit, "staging: ", bytes, " bytes after ",
          used_, " of ", host_.size());
    const Piece piece{used_, bytes, values.size_bytes(), sizeof(T)};
    T* to = host_.as<T>() + piece.offset / sizeof(T);
    std::copy(values.begin(), values.end(), to);
    std::fill(to + values.size(), to + count, fill);
    const T* on_device = device_.as<T>() + piece.offset / sizeof(T);
    queue.add(CopyStep{device_.as<std::byte>() + piece.offset, to, bytes, 1});
    pieces_.push_back(piece);
    used_ += whole(bytes);
    return on_device;
  }

  // Nothing staged is needed any more, and the queue is at rest.
  void reset() {
    pieces_.clear();
    used_ = 0;
  }

 private:
  struct Piece {
    std::size_t offset;
    std::size_t bytes;
    std::size_t used;  // bytes of values before the fill
    std::size_t element_bytes;
  };

  static constexpr std::size_t kAlignment = 256;
  static constexpr std::size_t kArrays = 4;  // of an op

  static std::size_t whole(std::size_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  static std::size_t most_bytes(std::int64_t rows) {
    return static_cast<std::size_t>(bucket(rows)) * kBytesPerRow + kArrays * kAlignment;
  }

  void resize(std::int64_t rows) {
    const std::size_t bytes = kOps * most_bytes(rows);
    host_ = Memory();
    device_ = Memory();
    host_ = Memory(kHost, bytes);
    device_ = Memory(device_number_, bytes);
  }

  int device_number_;
  Memory host_;
  Memory device_;
  std::vector<Piece> pieces_;
  std::size_t used_ = 0;
};

// What one pass at a time needs on a device. Its memory is made in the first pass, for batches of
// max_rows rows, and serves every later pass; only a longer one, which a single row can be, makes
// it grow.
struct State {
  State(int device, std::int64_t max_rows_)
      : queue(device), max_rows(max_rows_), staging(device, max_rows_) {}

  // Memory for what an op needs only inside itself, kept from op to op: bytes_for(rows) bytes, and
  // as many as max_rows would need.
  template <class BytesFor>
  void* scratch(std::int64_t rows, const BytesFor& bytes_for) {
    return room(scratch_, bytes_for(std::max(rows, max_rows)), queue.device());
  }
  void* results(std::size_t bytes) { return room(results_, bytes, queue.device()); }
  // Pinned memory that results are copied to.
  void* host_results(std::size_t bytes) { return room(host_results_, bytes, kHost); }

  // Keeps what steps point to until they are done.
  template <class T>
  const T& hold(const Handle& handle) {
    held_.push_back(handle);
    return *static_cast<const T*>(handle.get());
  }

  void wait() {
    queue.wait();
    held_.clear();
  }

  Queue queue;
  std::int64_t max_rows;
  Staging staging;
  // What scores of the last projection's queries still lack.
  float score_scale = 1;

 private:
  void* room(Memory& memory, std::size_t bytes, int device) {
    if (memory.size() < bytes) {
      queue.wait();       // steps that use the old one
      memory = Memory();  // released first: the peak is one block, not two
      memory = Memory(device, bytes);
    }
    return memory.data();
  }

  std::vector<Handle> held_;
  Memory scratch_;
  Memory results_;
  Memory host_results_;
};

}  // namespace terse::cuda
