// A TREC run that grows query by query and may be continued after the program was killed: what is
// in the file is kept, but for a last query that is not complete.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/evaluate/lines.h"
#include "terse/evaluate/text_map.h"
#include "terse/file.h"

namespace terse_tools {

class ResumableRun {
 public:
  // Opens or makes the file, and keeps other processes from continuing it too. Throws Error: path,
  // io, busy.
  explicit ResumableRun(const std::string& path) : path_(path) {
    terse::check(path.find('\0') == std::string::npos, terse::ErrorClass::path,
                 terse::path_text(path), ": a NUL in a file name");
    descriptor_ = terse::FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (descriptor_.get() < 0) terse::detail::fail_io(path, "open", errno);
    terse::check(::flock(descriptor_.get(), LOCK_EX | LOCK_NB) == 0, terse::ErrorClass::busy,
                 terse::path_text(path), ": another process is writing it");
  }

  // Finds the finished queries. Queries are written one after the other, each in one piece, so that
  // only the last one can be incomplete: it is cut off unless is_complete(query, lines) says that
  // so many lines are all it has. belongs(query, document) tells lines of this run from those of
  // another. Throws Error: io, schema (not lines of this run), duplicate.
  template <class Belongs, class IsComplete>
  void read(const Belongs& belongs, const IsComplete& is_complete) {
    terse::TextLines lines(path_);
    std::string query;
    std::size_t count = 0;
    std::uint64_t query_begin = 0;
    while (lines.next()) {
      std::string_view columns[6];
      const bool six = terse::split_columns(lines.text(), columns) == 6;
      if (!six || !ends_in_newline(lines)) {
        check_is_last(lines);
        break;
      }
      if (columns[0] != query) {
        if (count > 0) finish(query, lines);
        query = columns[0];
        query_begin = lines.offset();
        count = 0;
      }
      terse::check(belongs(columns[0], columns[2]), terse::ErrorClass::schema, lines.where(),
                   ": document ", terse::quote(columns[2]), " of query ", terse::quote(columns[0]),
                   " is not in the run to rerank; is this file the result of another one?");
      ++count;
      size_ = lines.end_offset();
    }
    if (count > 0 && is_complete(std::string_view(query), count)) {
      finish(query, lines);
    } else {
      size_ = query_begin;
    }
    cut();
  }

  bool has(std::string_view query) const { return finished_.find(query) != finished_.end(); }

  // Adds all lines of a query, or, if the disk is full, none. Throws Error(io).
  void append(std::string_view lines) {
    std::string_view rest = lines;
    std::uint64_t end = size_;
    while (!rest.empty()) {
      const ssize_t written = terse::detail::retry_interrupted([&] {
        return ::pwrite(descriptor_.get(), rest.data(), rest.size(), static_cast<off_t>(end));
      });
      if (written < 0) {
        const int error = errno;
        cut();
        terse::detail::fail_io(path_, "write", error);
      }
      rest.remove_prefix(static_cast<std::size_t>(written));
      end += static_cast<std::uint64_t>(written);
    }
    size_ = end;
  }

  // Throws Error(io) if what was written cannot reach the disk.
  void finish() {
    if (::fsync(descriptor_.get()) != 0) terse::detail::fail_io(path_, "write to disk", errno);
  }

 private:
  void finish(const std::string& query, const terse::TextLines& lines) {
    terse::check(finished_.insert(query).second, terse::ErrorClass::duplicate, lines.where(),
                 ": query ", terse::quote(query), " stands in two places");
  }

  static bool ends_in_newline(const terse::TextLines& lines) {
    return lines.end_offset() > lines.offset() + lines.text().size();
  }

  // Only the end of the file can have been cut by a killed program.
  static void check_is_last(terse::TextLines& lines) {
    const std::string where = lines.where();
    terse::check(!lines.next(), terse::ErrorClass::schema, where,
                 ": expected six columns: qid Q0 docid rank score tag");
  }

  void cut() {
    if (::ftruncate(descriptor_.get(), static_cast<off_t>(size_)) != 0) {
      terse::detail::fail_io(path_, "shorten", errno);
    }
  }

  std::string path_;
  terse::FileDescriptor descriptor_;
  terse::TextSet finished_;
  std::uint64_t size_ = 0;  // of what is kept
};

}  // namespace terse_tools
