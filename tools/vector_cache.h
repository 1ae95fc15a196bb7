// Dense vectors of texts that an embedder has seen, kept on disk: each distinct text is embedded
// once, however many documents have it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "scratch_file.h"

namespace terse_tools {

class VectorCache {
 public:
  // Throws Error(io).
  std::optional<std::vector<float>> find(std::string_view text) const {
    const auto [first, last] = places_.equal_range(std::hash<std::string_view>{}(text));
    for (auto at = first; at != last; ++at) {
      const Place& place = at->second;
      if (place.text_bytes != text.size()) continue;
      const std::string bytes = read_range(file_.descriptor(), place.offset,
                                           text.size() + place.width * sizeof(float), "vectors");
      if (std::string_view(bytes).substr(0, text.size()) != text) continue;
      std::vector<float> vector(place.width);
      std::memcpy(vector.data(), bytes.data() + text.size(), place.width * sizeof(float));
      return vector;
    }
    return std::nullopt;
  }

  // Of a text that find() does not know. Throws Error(io).
  void add(std::string_view text, std::span<const float> vector) {
    std::string bytes(text);
    bytes.append(reinterpret_cast<const char*>(vector.data()), vector.size_bytes());
    places_.emplace(std::hash<std::string_view>{}(text),
                    Place{file_.append(bytes), text.size(), vector.size()});
  }

 private:
  // The text, then its vector.
  struct Place {
    std::uint64_t offset = 0;
    std::size_t text_bytes = 0;
    std::size_t width = 0;
  };

  ScratchFile file_;
  std::unordered_multimap<std::size_t, Place> places_;  // by the text's hash
};

}  // namespace terse_tools
