// Lines that hold a query and its passages, for score and similarity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fields.h"
#include "json_lines.h"
#include "line_reader.h"
#include "terse/error.h"

namespace terse_tools {

enum class PairFormat { jsonl, tsv };
inline constexpr Choice<PairFormat> kPairFormats[] = {{"jsonl", PairFormat::jsonl},
                                                      {"tsv", PairFormat::tsv}};

// A chunk that is scored together holds at most so much: enough to fill every core, little enough
// that memory stays flat and a signal does not wait.
inline constexpr std::size_t kChunkItems = 1024;
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 19;

// One pair, or what is wrong with a line in its place.
template <class Options>
struct PairItem {
  std::string id;                     // JSON
  std::optional<std::int64_t> index;  // among the passages of its line
  std::string query = {};
  std::string passage = {};
  const Options* options = nullptr;  // of its line; null: those of the call
  std::optional<terse::Error> error = {};

  // What its result starts with.
  Record record() const {
    Record record;
    record.add("id", id);
    if (index) record.add_integer("index", *index);
    return record;
  }
};

// Consecutive lines of input as pairs, in order.
template <class Options>
class PairChunk {
 public:
  using Item = PairItem<Options>;

  // name: of the input, for messages.
  PairChunk(PairFormat format, const Options& defaults, std::string name)
      : format_(format), defaults_(&defaults), name_(std::move(name)) {}

  // Appends the pairs of a line, or its error. A blank line of JSON Lines is skipped.
  void add(const Line& line) {
    if (format_ == PairFormat::tsv) return add_tsv(line);
    if (is_blank(line.text) && !line.too_long) return;
    LineObject object = read_object(line, name_);
    bytes_ += line.text.size();
    if (!object.error) {
      const std::size_t before = items_.size();
      try {
        add_object(object);
      } catch (const terse::Error& error) {
        items_.resize(before);
        object.error = error;
      }
    }
    if (object.error) items_.push_back({.id = object.id, .index = {}, .error = object.error});
  }

  bool full() const { return items_.size() >= kChunkItems || bytes_ >= kChunkBytes; }
  bool empty() const { return items_.empty(); }
  std::vector<Item>& items() { return items_; }

 private:
  void add_tsv(const Line& line) {
    Item item{.id = std::to_string(line.number), .index = {}};
    bytes_ += line.text.size();
    try {
      const std::string text = plain_text(line, name_);
      const std::size_t tab = text.find('\t');
      terse::check(tab != std::string::npos && text.find('\t', tab + 1) == std::string::npos,
                   terse::ErrorClass::schema, line_source(name_, line),
                   ": expected query, one tab, passage");
      item.query = text.substr(0, tab);
      item.passage = text.substr(tab + 1);
    } catch (const terse::Error& error) {
      item.error = error;
    }
    items_.push_back(std::move(item));
  }

  void add_object(const LineObject& object) {
    const terse::JsonValue root = object.document->root();
    const std::string query = required_text(root, "query");
    const Options* options = nullptr;
    if (const auto own = optional_member(root, "options")) {
      options = &options_.emplace_back(line_options(*defaults_, *own));
    }
    const auto passages = root.find("passages");
    if (!passages) {
      items_.push_back({object.id, {}, query, required_text(root, "passage"), options});
      return;
    }
    terse::check(!root.find("passage").found, terse::ErrorClass::schema, root.source(),
                 ": both passage and passages");
    std::int64_t index = 0;
    for (const terse::JsonValue passage : passages->as_array("passages")) {
      items_.push_back(
          {object.id, index++, query, std::string(passage.as_string("a passage")), options});
    }
  }

  PairFormat format_;
  const Options* defaults_;
  std::string name_;
  std::vector<Item> items_;
  std::deque<Options> options_;  // a deque: items point into it
  std::size_t bytes_ = 0;
};

}  // namespace terse_tools
