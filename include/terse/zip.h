// Zip archives whose entries are stored uncompressed, as torch.save writes them: each entry is a
// range of the archive's bytes. Sizes are all checked, checksums are not.
// Source: PKWARE APPNOTE.TXT 6.3 (zip, zip64).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "terse/checked.h"
#include "terse/error.h"

namespace terse::detail {

// Reads little-endian values from a range of bytes; Error(truncated) past its end.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, const std::string& source, std::size_t position = 0)
      : bytes_(bytes), source_(source), position_(position) {}

  std::size_t position() const { return position_; }
  std::size_t rest() const { return bytes_.size() - position_; }

  std::string_view take(std::uint64_t count) {
    check(range_fits(position_, count, bytes_.size()), ErrorClass::truncated, source_,
          ": ends inside a field of ", count, " bytes at byte ", position_);
    const auto taken = bytes_.substr(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }
  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  // The text up to the next newline, which is consumed too.
  std::string_view take_line() {
    const std::size_t end = std::min(bytes_.find('\n', position_), bytes_.size());
    const std::string_view line = take(end - position_);
    take(1);
    return line;
  }

 private:
  std::string_view bytes_;
  const std::string& source_;
  std::size_t position_;
};

// The entries of a zip archive that holds them uncompressed, each a range of the archive's bytes.
class ZipArchive {
 public:
  // Throws Error: truncated, offsets (an entry or the directory lies outside the file), schema (a
  // record without its signature), duplicate, unsupported (compressed, encrypted or split
  // archives).
  ZipArchive(std::string_view bytes, const std::string& source) : bytes_(bytes), source_(source) {
    const Directory directory = find_directory();
    ByteReader reader(bytes_.substr(0, directory.end), source_, directory.begin);
    for (std::uint64_t entry = 0; entry < directory.entries; ++entry) read_entry(reader, directory);
  }

  const std::map<std::string_view, std::string_view>& entries() const { return entries_; }

  // The content of an entry; Error(schema) if there is none of that name.
  std::string_view content(std::string_view name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) {
      fail(ErrorClass::schema, source_, ": the archive has no entry ", quote(name));
    }
    return found->second;
  }

 private:
  struct Directory {
    std::uint64_t entries = 0;
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  void require_signature(ByteReader& reader, std::string_view signature) const {
    const std::size_t position = reader.position();
    check(reader.take(4) == signature, ErrorClass::schema, source_,
          ": no zip record where one should be, at byte ", position);
  }

  // From the end record, or the zip64 one where a locator stands before it (torch writes both).
  Directory find_directory() const {
    constexpr std::size_t kEndBytes = 22, kLocatorBytes = 20;
    const std::size_t end_record = bytes_.rfind("PK\x05\x06");
    check(end_record != std::string_view::npos, ErrorClass::truncated, source_,
          ": the zip directory is missing (is the download complete?)");
    ByteReader reader(bytes_, source_, end_record + 4);
    reader.take(6);  // disk numbers, entries on this disk
    std::uint64_t entries = reader.read<std::uint16_t>();
    std::uint64_t size = reader.read<std::uint32_t>();
    std::uint64_t begin = reader.read<std::uint32_t>();
    const std::size_t comment_bytes = reader.read<std::uint16_t>();
    check(reader.rest() == comment_bytes, ErrorClass::offsets, source_,
          ": bytes after the zip archive");
    std::size_t limit = end_record;
    if (end_record >= kLocatorBytes &&
        bytes_.substr(end_record - kLocatorBytes, 4) == "PK\x06\x07") {
      ByteReader locator(bytes_, source_, end_record - kLocatorBytes + 8);
      const auto record = locator.read<std::uint64_t>();
      check(range_fits(record, kEndBytes, end_record), ErrorClass::offsets, source_,
            ": the zip64 end record lies outside the file");
      limit = static_cast<std::size_t>(record);
      ByteReader zip64(bytes_, source_, limit);
      require_signature(zip64, "PK\x06\x06");
      zip64.take(28);  // size, versions, disk numbers, entries on this disk
      entries = zip64.read<std::uint64_t>();
      size = zip64.read<std::uint64_t>();
      begin = zip64.read<std::uint64_t>();
    }
    check(range_fits(begin, size, limit), ErrorClass::offsets, source_,
          ": the zip directory lies outside the file");
    return {entries, static_cast<std::size_t>(begin), static_cast<std::size_t>(begin + size)};
  }

  void read_entry(ByteReader& reader, const Directory& directory) {
    require_signature(reader, "PK\x01\x02");
    reader.take(4);  // versions
    const auto flags = reader.read<std::uint16_t>();
    const auto method = reader.read<std::uint16_t>();
    reader.take(8);  // time, date, checksum
    std::uint64_t stored_bytes = reader.read<std::uint32_t>();
    std::uint64_t bytes = reader.read<std::uint32_t>();
    const auto name_bytes = reader.read<std::uint16_t>();
    const auto extra_bytes = reader.read<std::uint16_t>();
    const auto comment_bytes = reader.read<std::uint16_t>();
    reader.take(8);  // disk number, attributes
    std::uint64_t header = reader.read<std::uint32_t>();
    const std::string_view name = reader.take(name_bytes);
    read_zip64_extra(reader.take(extra_bytes), &bytes, &stored_bytes, &header);
    reader.take(comment_bytes);
    constexpr unsigned kEncrypted = 1;
    if (method != 0 || (flags & kEncrypted) != 0 || bytes != stored_bytes) {
      fail(ErrorClass::unsupported, source_, ": entry ", quote(name),
           " is compressed or encrypted, expected plain data");
    }
    if (!entries_.emplace(name, entry_data(name, header, bytes, directory.begin)).second) {
      fail(ErrorClass::duplicate, source_, ": entry ", quote(name), " is in the archive twice");
    }
  }

  // Extra field 1 holds those of the three that are all ones in the record, in this order.
  void read_zip64_extra(std::string_view extra, std::uint64_t* bytes, std::uint64_t* stored_bytes,
                        std::uint64_t* header) const {
    ByteReader fields(extra, source_);
    while (fields.rest() >= 4) {
      const auto id = fields.read<std::uint16_t>();
      ByteReader field(fields.take(fields.read<std::uint16_t>()), source_);
      if (id != 1) continue;
      for (std::uint64_t* value : {bytes, stored_bytes, header}) {
        if (*value == UINT32_MAX) *value = field.read<std::uint64_t>();
      }
    }
  }

  // The data follows the local header, whose name must agree; sizes are those of the directory,
  // because torch writes zeros here and the sizes behind the data.
  std::string_view entry_data(std::string_view name, std::uint64_t header, std::uint64_t bytes,
                              std::size_t limit) const {
    check(header < limit, ErrorClass::offsets, source_, ": a zip entry lies outside the file");
    ByteReader reader(bytes_.substr(0, limit), source_, static_cast<std::size_t>(header));
    require_signature(reader, "PK\x03\x04");
    reader.take(22);  // version to sizes
    const auto name_bytes = reader.read<std::uint16_t>();
    const auto extra_bytes = reader.read<std::uint16_t>();
    check(reader.take(name_bytes) == name, ErrorClass::schema, source_,
          ": a zip entry has two different names");
    reader.take(extra_bytes);
    check(bytes <= reader.rest(), ErrorClass::offsets, source_,
          ": the data of a zip entry lies outside the file");
    return reader.take(bytes);
  }

  std::string_view bytes_;
  const std::string& source_;
  std::map<std::string_view, std::string_view> entries_;
};

}  // namespace terse::detail
