// A sweep as one HTML page that needs nothing else: its pictures, its table, its manifest.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "svg.h"
#include "terse/evaluate/sweep_table.h"

namespace terse_tools {

inline constexpr std::string_view kReportStyle = R"(
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;margin:0 auto;
max-width:1200px;padding:24px;background:#ffffff;color:#1f2328}
svg{max-width:100%;height:auto;display:block;margin:16px 0}
.scroll{overflow-x:auto;border:1px solid #d8dee4;border-radius:6px}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid #d8dee4}
th{position:sticky;top:0;background:#f6f8fa}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid #0969b5}
th[aria-sort=ascending] button::after{content:" \25B2"}
th[aria-sort=descending] button::after{content:" \25BC"}
pre{overflow-x:auto;padding:12px;border:1px solid #d8dee4;border-radius:6px;font-size:12px}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}
th{background:#161b22}th,td,.scroll,pre{border-color:#2a313a}}
)";

// Sorts by a column at a click, numbers as numbers, rows without a value last.
inline constexpr std::string_view kReportScript = R"(
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}
)";

// A number of a table as people read it: at most six significant digits.
inline std::string shown_number(const std::string& field) {
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) return field;
  char digits[32];
  const auto shown =
      std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::general, 6);
  return {digits, shown.ptr};
}

inline std::string table_html(const terse::SweepTable& table) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  for (const std::string& name : table.heading()) {
    html += "<th><button>" + xml_text(name) + "</button></th>";
  }
  html += "</tr></thead>\n<tbody>\n";
  for (std::size_t row = 0; row < table.size(); ++row) {
    html += "<tr>";
    for (const std::string& field : table.row(row)) {
      html += "<td>" + xml_text(shown_number(field)) + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// pictures: SVG texts.
inline std::string report_html(std::string_view title, const terse::SweepTable& table,
                               const std::vector<std::string>& pictures,
                               std::string_view manifest) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>" +
      xml_text(title) + "</title>\n<style>" + std::string(kReportStyle) +
      "</style>\n</head>\n<body>\n<h1>" + xml_text(title) + "</h1>\n";
  for (const std::string& picture : pictures) html += picture;
  html +=
      "<h2>Table</h2>\n<p>One row a compression setting and cut-off layer; click a heading to "
      "sort.</p>\n" +
      table_html(table);
  std::string escaped;
  for (const char c : manifest) escaped += c == '\n' ? std::string("\n") : xml_text({&c, 1});
  return html + "<h2>Manifest</h2>\n<pre>" + escaped + "</pre>\n<script>" +
         std::string(kReportScript) + "</script>\n</body>\n</html>\n";
}

}  // namespace terse_tools
