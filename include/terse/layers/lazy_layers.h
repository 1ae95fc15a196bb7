// Layers that are prepared when a forward pass first reaches them: a model is ready as soon as its
// files are open, and layers past the deepest exit anybody asks for are never read from disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "terse/layers/linear.h"
#include "terse/weights.h"

namespace terse {

// Any number of threads may ask for layers at once; each is prepared once. If preparing one throws,
// so does the access, and the next access tries again.
template <class Layer>
class LazyLayers {
 public:
  using Load = std::function<Layer(const Loader&, const Weights&)>;

  // Layers `scope`.0 .. `scope`.(count - 1), made by load(loader, scope of the layer). All are
  // looked up at once, so that a broken file is refused here; lazy = false: all are prepared at
  // once too.
  LazyLayers(std::int64_t count, const Loader& loader, const Weights& scope, Load load, bool lazy)
      : loader_(loader),
        scope_(scope),
        load_(std::move(load)),
        size_(count),
        slots_(new Slot[static_cast<std::size_t>(count)]) {
    for (std::int64_t index = 0; index < count; ++index) {
      load_layer(loader.checking(), index);
    }
    for (std::int64_t index = 0; !lazy && index < count; ++index) (*this)[index];
  }

  std::int64_t size() const { return size_; }

  const Layer& operator[](std::int64_t index) const {
    Slot& slot = slots_[static_cast<std::size_t>(index)];
    std::call_once(slot.once, [&] { slot.layer = load_layer(loader_, index); });
    return slot.layer;
  }

 private:
  struct Slot {
    std::once_flag once;
    Layer layer;
  };

  Layer load_layer(Loader loader, std::int64_t index) const {
    loader.layer_dtype = layer_dtype(*loader.backend, index, size_);
    return load_(loader, layer_scope(index));
  }

  Weights layer_scope(std::int64_t index) const { return scope_.scope(std::to_string(index)); }

  Loader loader_;
  Weights scope_;
  Load load_;
  std::int64_t size_;
  std::unique_ptr<Slot[]> slots_;
};

}  // namespace terse
