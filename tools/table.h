// Text for people: columns of a fixed width in a terminal, and the forms results can be printed in.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json_lines.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse_tools {

enum class Format { automatic, table, jsonl, tsv, trec };

// automatic: a table for a terminal, else JSON Lines.
inline Format resolve_format(Format format, const std::string& output_path) {
  if (format != Format::automatic) return format;
  const bool terminal = (output_path.empty() || output_path == "-") && ::isatty(STDOUT_FILENO) == 1;
  return terminal ? Format::table : Format::jsonl;
}

// Columns of the terminal that standard output is; 100 if it is none.
inline std::size_t terminal_width() {
  winsize size = {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 100;
  return size.ws_col;
}

// Columns a character takes: 2 for East Asian wide ones and emoji, 0 for marks that combine with
// the character before. An approximation of Unicode Standard Annex 11 by blocks.
inline std::size_t display_width(char32_t code) {
  static constexpr std::pair<char32_t, char32_t> kWide[] = {
      {0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},  {0xfe30, 0xfe6f},
      {0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
  if (terse::is_bert_mark(code)) return 0;
  const bool wide = std::any_of(std::begin(kWide), std::end(kWide), [&](const auto& range) {
    return code >= range.first && code <= range.second;
  });
  return wide ? 2 : 1;
}

// Valid UTF-8 in at most `width` columns: white space and control characters (which could steer a
// terminal) become blanks, and an ellipsis stands for what was cut.
inline std::string fit(std::string_view text, std::size_t width) {
  std::string out;
  std::size_t used = 0;
  std::size_t cut = 0;  // bytes of out that leave a column for the ellipsis
  for (std::size_t i = 0; i < text.size();) {
    char32_t code = terse::utf8_next(text, &i);
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) code = ' ';
    used += display_width(code);
    if (used > width) return out.substr(0, cut) + "…";
    terse::utf8_append(out, code);
    if (used < width) cut = out.size();
  }
  return out;
}

// text in exactly `width` columns.
inline std::string pad(std::string_view text, std::size_t width, bool right_aligned) {
  std::string out = fit(text, width);
  std::size_t used = 0;
  for (std::size_t i = 0; i < out.size();) used += display_width(terse::utf8_next(out, &i));
  const std::string blanks(width - std::min(used, width), ' ');
  return right_aligned ? blanks + out : out + blanks;
}

// A bar of up to `width` columns for a share of 0 to 1, in eighths of a column.
inline std::string bar(double share, std::size_t width) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double clamped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
  const auto eighths = static_cast<std::size_t>(clamped * static_cast<double>(8 * width) + 0.5);
  std::string out;
  for (std::size_t i = 0; i < eighths / 8; ++i) out += "█";
  out += kEighths[eighths % 8];
  return out + std::string(width - (eighths + 7) / 8, ' ');
}

// A value of a record as plain text: strings without quotes, objects as "name: value" pairs.
inline std::string plain_value(const std::string& json) {
  const auto value = nlohmann::ordered_json::parse(json, nullptr, false);
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return json;
  std::string out;
  for (const auto& [name, member] : value.items()) {
    out += (out.empty() ? "" : ", ") + name + ": " + plain_value(member.dump());
  }
  return out;
}

// How a member of a record is shown; `width` counts in tables only, 0 being what is left.
struct Column {
  const char* name;
  std::size_t width;
  bool right_aligned;
};

// Forms records as JSON Lines, or some of their members as a table or as tab-separated values under
// a line of names.
class RecordWriter {
 public:
  RecordWriter(Format format, std::vector<Column> columns)
      : format_(format), columns_(std::move(columns)) {}

  // The lines to print for a record; the first time, the line of names before it.
  std::string text(const Record& record) {
    if (format_ == Format::jsonl) return record.json() + "\n";
    std::string lines;
    if (!std::exchange(has_heading_, true)) {
      lines = row([](const Column& column) { return std::string(column.name); });
    }
    return lines + row([&](const Column& column) {
             for (const auto& [name, json] : record.members()) {
               if (name == column.name) return plain_value(json);
             }
             return std::string();
           });
  }

 private:
  template <class Cell>
  std::string row(const Cell& cell) const {
    std::string line;
    for (const Column& column : columns_) {
      if (&column != &columns_.front()) line += format_ == Format::tsv ? "\t" : "  ";
      std::string value = cell(column);
      if (format_ == Format::tsv) {
        // Tabs and line ends would break the row apart.
        std::replace_if(
            value.begin(), value.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; },
            ' ');
        line += value;
      } else if (column.width == 0) {
        line += fit(value, terminal_width());
      } else {
        line += pad(value, column.width, column.right_aligned);
      }
    }
    if (format_ == Format::table) line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  }

  Format format_;
  std::vector<Column> columns_;
  bool has_heading_ = false;
};

}  // namespace terse_tools
