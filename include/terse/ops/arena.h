// Memory of a forward pass: one block for activations, one per worker for the temporaries of an op.
// Both only ever grow, between forward passes; inside one nothing is allocated.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "terse/checked.h"
#include "terse/error.h"
#include "terse/tensor.h"

namespace terse {

// Hands out consecutive 64-byte aligned pieces of one block. A forward pass first takes its buffers
// from a measuring arena, reserves what that counted, and takes them again for real.
class Arena {
 public:
  // Where blocks come from that are not the heap's, 64-byte aligned; state is passed on.
  using Allocate = std::shared_ptr<void> (*)(void* state, std::size_t bytes);
  void allocate_by(Allocate allocate, void* state) {
    allocate_ = allocate;
    state_ = state;
  }

  // Until the next reserve(), take() only counts and returns nullptr.
  void measure() {
    measuring_ = true;
    used_ = most_used_ = 0;
  }

  // Makes room for what was counted since measure() and starts handing it out.
  void reserve() {
    measuring_ = false;
    if (capacity_ < most_used_) {
      block_ = nullptr;  // released first: the peak is one block, not two
      capacity_ = 0;
      block_ =
          allocate_ != nullptr ? allocate_(state_, most_used_) : heap_block(nullptr, most_used_);
      capacity_ = most_used_;
    }
    used_ = 0;
  }

  void* take(std::size_t bytes) {
    const std::size_t offset = used_;
    used_ = static_cast<std::size_t>(add_sizes(used_, round_up(bytes), "arena"));
    most_used_ = std::max(most_used_, used_);
    if (measuring_) return nullptr;
    check(used_ <= capacity_, ErrorClass::limit, "arena: ", used_, " bytes taken of ", capacity_,
          " reserved");
    return static_cast<std::byte*>(block_.get()) + offset;
  }

  std::size_t used() const { return used_; }
  std::size_t capacity() const { return capacity_; }

  // Goes back to where used() was `used`: what is taken next lies over what was taken since, for
  // buffers that are never needed at one time.
  void rewind(std::size_t used) { used_ = used; }

  static std::shared_ptr<void> heap_block(void*, std::size_t bytes) {
    const auto buffer = std::make_shared<AlignedBuffer>(bytes);
    return {buffer, buffer->data()};
  }

 private:
  static std::size_t round_up(std::size_t bytes) {
    return static_cast<std::size_t>(add_sizes(bytes, 63, "arena")) / 64 * 64;
  }

  Allocate allocate_ = nullptr;
  void* state_ = nullptr;
  std::shared_ptr<void> block_;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
  std::size_t most_used_ = 0;  // since measure()
  bool measuring_ = true;
};

// Temporaries of an op, one block per worker, kept from call to call.
class Scratch {
 public:
  // Called by an op before it starts its workers.
  void reserve(int workers, std::size_t bytes_per_worker) {
    if (blocks_.size() < static_cast<std::size_t>(workers)) {
      blocks_.resize(static_cast<std::size_t>(workers));
    }
    for (int worker = 0; worker < workers; ++worker) {
      AlignedBuffer& block = blocks_[static_cast<std::size_t>(worker)];
      if (block.size() < bytes_per_worker) block = AlignedBuffer(bytes_per_worker);
    }
  }

  template <class T>
  T* of(int worker) const {
    return blocks_[static_cast<std::size_t>(worker)].as<T>();
  }

 private:
  std::vector<AlignedBuffer> blocks_;
};

}  // namespace terse
