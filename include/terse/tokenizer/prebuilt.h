// The large arrays of a tokenizer (tries, vocabulary, merges), which take most of the time of
// loading a tokenizer.json to build: handed out to be stored, and used again where they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "terse/error.h"

namespace terse {

// An array that does not change any more: its own, or one that lies in a mapped file.
template <class T>
class FlatArray {
 public:
  FlatArray() = default;
  explicit FlatArray(std::vector<T> values)
      : values_(std::move(values)), data_(values_.data()), size_(values_.size()) {}
  FlatArray(const T* data, std::size_t size, std::shared_ptr<const void> owner)
      : owner_(std::move(owner)), data_(data), size_(size) {}
  FlatArray(FlatArray&&) noexcept = default;  // a vector that moves stays where it is
  FlatArray& operator=(FlatArray&&) noexcept = default;
  FlatArray(const FlatArray&) = delete;
  FlatArray& operator=(const FlatArray&) = delete;

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T& operator[](std::size_t index) const { return data_[index]; }
  const T* data() const { return data_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  std::vector<T> values_;
  std::shared_ptr<const void> owner_;
  const T* data_ = nullptr;
  std::size_t size_ = 0;
};

// Arrays by name. Elements are stored as they are in memory, so they have no padding.
class PrebuiltArrays {
 public:
  struct Array {
    std::string name;
    std::size_t element_bytes = 0;
    std::span<const std::byte> bytes;
  };

  PrebuiltArrays() = default;
  // Arrays that lie where owner keeps them; `source` leads every message.
  PrebuiltArrays(std::vector<Array> arrays, std::shared_ptr<const void> owner, std::string source)
      : arrays_(std::move(arrays)), owner_(std::move(owner)), source_(std::move(source)) {}

  const std::vector<Array>& arrays() const { return arrays_; }
  const std::string& source() const { return source_; }

  // Adds a view of values, which the caller keeps alive.
  template <class T>
  void add(std::string name, const T* values, std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    arrays_.push_back({std::move(name),
                       sizeof(T),
                       {reinterpret_cast<const std::byte*>(values), count * sizeof(T)}});
  }
  template <class T>
  void add(std::string name, const FlatArray<T>& values) {
    add(std::move(name), values.data(), values.size());
  }

  // The array called name. Throws Error: missing, schema (elements of another size, or not aligned
  // for T). What its values mean is the reader's to check.
  template <class T>
  FlatArray<T> get(std::string_view name) const {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::span<const std::byte> bytes = find(name, sizeof(T), alignof(T));
    return FlatArray<T>(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T), owner_);
  }

  // Throws Error(tokenizer) unless ok: the array contradicts itself or another.
  void require(bool ok, std::string_view name) const {
    check(ok, ErrorClass::tokenizer, source_, ": tokenizer array ", quote(name),
          " has a value out of range");
  }

 private:
  std::span<const std::byte> find(std::string_view name, std::size_t element_bytes,
                                  std::size_t alignment) const {
    for (const Array& array : arrays_) {
      if (array.name != name) continue;
      check(array.element_bytes == element_bytes && array.bytes.size() % element_bytes == 0 &&
                reinterpret_cast<std::uintptr_t>(array.bytes.data()) % alignment == 0,
            ErrorClass::schema, source_, ": tokenizer array ", quote(name), " has elements of ",
            array.element_bytes, " bytes, expected ", element_bytes, ", aligned");
      return array.bytes;
    }
    fail(ErrorClass::missing, source_, ": tokenizer array ", quote(name), " is missing");
  }

  std::vector<Array> arrays_;
  std::shared_ptr<const void> owner_;
  std::string source_;
};

}  // namespace terse
