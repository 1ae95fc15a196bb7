// Tensors as the loader hands them out (TensorView: dtype, shape, data somewhere else) and as this
// library owns them (Tensor: an aligned buffer with a view of it).
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"

namespace terse {

using Shape = std::vector<std::int64_t>;

// "(3, 4)", for messages.
inline std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i == 8) return text + ", ...)";
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + ")";
}

// Number of elements; Error(overflow) if it does not fit 64 bits.
inline std::uint64_t element_count(const Shape& shape) {
  std::uint64_t count = 1;
  for (const std::int64_t dimension : shape) {
    count = mul_sizes(count, narrow<std::uint64_t>(dimension, "dimension"), "element count");
  }
  return count;
}

// Row-major data that somebody else keeps alive, at any byte address.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  std::int64_t rows() const { return shape.empty() ? 1 : shape.front(); }
  std::uint64_t size() const { return element_count(shape); }
  std::uint64_t size_bytes() const { return mul_sizes(size(), dtype_size(dtype), "tensor bytes"); }

  // The data as T if that is its type and its address is aligned for T, else nullptr.
  template <class T>
  const T* aligned() const {
    constexpr DType kWanted = std::is_same_v<T, double>  ? DType::f64
                              : std::is_same_v<T, float> ? DType::f32
                              : std::is_same_v<T, bf16>  ? DType::bf16
                                                         : DType::f16;
    const bool fits = dtype == kWanted && reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0;
    return fits ? static_cast<const T*>(data) : nullptr;
  }
};

// A buffer of bytes aligned to 64 (a cache line, the widest vector, a tile row). Throws
// Error(memory) if it cannot be had; never std::bad_alloc.
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;
  // Buffers of at least two of these ask the system for pages of this size: rows of a matrix lie
  // on as many small pages, more than a core translates at once.
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t bytes) : bytes_(bytes) {
    const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
    // A size that aligned_alloc takes: whole multiples, of which the rest is never touched.
    const std::size_t rounded = static_cast<std::size_t>(
        add_sizes(bytes, alignment, "buffer size") / alignment * alignment);
    data_.reset(std::aligned_alloc(alignment, rounded));
    check(data_ != nullptr, ErrorClass::memory, "could not allocate ", bytes, " bytes");
#if defined(__linux__)
    // Advice: where it isn't taken, pages are small.
    if (alignment == kHugePage)
      ::madvise(data_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  }

  void* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_ = 0;
};

// A tensor that owns its data.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape) : view_{nullptr, dtype, std::move(shape)} {
    buffer_ = AlignedBuffer(narrow<std::size_t>(view_.size_bytes(), "tensor bytes"));
    view_.data = buffer_.data();
  }

  const TensorView& view() const { return view_; }
  const Shape& shape() const { return view_.shape; }
  DType dtype() const { return view_.dtype; }
  template <class T>
  T* data() const {
    return buffer_.as<T>();
  }

 private:
  AlignedBuffer buffer_;
  TensorView view_;
};

}  // namespace terse
