// Documents of a corpus by id, without the corpus in memory: one pass notes where in the file each
// wanted document lies. What cannot be read twice (a compressed file, a pipe) is kept in a scratch
// file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "evaluation_files.h"
#include "interrupt.h"
#include "scratch_file.h"
#include "terse/error.h"
#include "terse/evaluate/corpus.h"
#include "terse/evaluate/text_map.h"
#include "terse/file.h"

namespace terse_tools {

class CorpusStore {
 public:
  // Announces a document that text() may be asked for.
  void want(std::string_view id) {
    if (places_.find(id) == places_.end()) places_.emplace(std::string(id), Place{});
  }

  // Reads the corpus, all of which must be well-formed. Throws Error: io, json, schema, duplicate
  // (a wanted id given twice), cancelled.
  void read(const std::string& path) {
    auto source = std::make_unique<terse::GzipSource>(
        std::make_unique<terse::FileSource>(path == "-" ? "/dev/stdin" : path));
    std::error_code ignored;
    if (!source->is_compressed() && std::filesystem::is_regular_file(path, ignored)) {
      file_ = terse::RegularFile::open(path);
    } else {
      scratch_.emplace();
    }
    name_ = source->name();
    terse::TextLines lines(std::move(source));
    while (lines.next()) note(lines);
  }

  // Whether a wanted document is in the corpus.
  bool has(std::string_view id) const {
    const auto at = places_.find(id);
    return at != places_.end() && at->second.size > 0;
  }

  // Nothing for a document that was not wanted or is not in the corpus. Throws Error(io).
  std::optional<std::string> text(std::string_view id) const {
    const auto at = places_.find(id);
    if (at == places_.end() || at->second.size == 0) return std::nullopt;
    const int descriptor = scratch_ ? scratch_->descriptor() : file_.descriptor.get();
    const std::string line = read_range(descriptor, at->second.offset, at->second.size, name_);
    return terse::parse_text_record(line, name_).text;
  }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t size = 0;  // of the line, in bytes; 0: not seen
  };

  void note(const terse::TextLines& lines) {
    const terse::TextRecord record = terse::parse_text_record(lines.text(), lines.where());
    const auto at = places_.find(record.id);
    if (at == places_.end()) return;
    terse::check(at->second.size == 0, terse::ErrorClass::duplicate, lines.where(), ": id ",
                 terse::quote(record.id), " given again");
    const std::uint64_t offset = scratch_ ? scratch_->append(lines.text()) : lines.offset();
    at->second = {offset, static_cast<std::uint32_t>(lines.text().size())};
    check_interrupted();
  }

  terse::TextMap<Place> places_;
  terse::RegularFile file_;
  std::optional<ScratchFile> scratch_;
  std::string name_;
};

}  // namespace terse_tools
