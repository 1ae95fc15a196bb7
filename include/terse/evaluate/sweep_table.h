// The CSV of a sweep: one row for each exit of each cell. The last columns are measured times,
// work and memory, which differ from run to run; everything before them is always the same.
#pragma once

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/sweep.h"
#include "terse/evaluate/sweep_cost.h"
#include "terse/evaluate/sweep_grid.h"

namespace terse {

inline constexpr std::string_view kTimingColumns[] = {"latency_median_ms",  "latency_p95_ms",
                                                      "flops_run_per_pair", "probe_before_gflops",
                                                      "probe_after_gflops", "peak_rss_mb"};

// Measured while a row was made; NaN: not measured. Latency is of one query with all its
// candidates; operations are those that the ops were asked for meanwhile, after all savings, causal
// attention counted causally; the probe is a fixed loop of multiply-adds, to see whether the
// machine was busy.
struct RowTiming {
  double latency_median_ms = std::nan("");
  double latency_p95_ms = std::nan("");
  double flops_run_per_pair = std::nan("");
  double probe_before_gflops = std::nan("");
  double probe_after_gflops = std::nan("");
  double peak_rss_mb = std::nan("");
};

namespace detail {

// 9 significant digits; nothing for a NaN.
inline std::string csv_number(double value) {
  if (std::isnan(value)) return "";
  char digits[32];
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::general, 9);
  return {digits, end.ptr};
}

inline std::string join_fields(std::span<const std::string> fields) {
  std::string line;
  for (std::size_t i = 0; i < fields.size(); ++i) line += (i == 0 ? "" : ",") + fields[i];
  return line + "\n";
}

}  // namespace detail

// A field of CSV, quoted if it has to be. Source: RFC 4180.
inline std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// The fields of a line of CSV without line ends inside. Throws Error(schema) for a quote that is
// not closed.
inline std::vector<std::string> split_csv(std::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted) {
      const bool doubled = c == '"' && i + 1 < line.size() && line[i + 1] == '"';
      if (c != '"' || doubled) fields.back() += c;
      if (doubled) ++i;
      if (c == '"' && !doubled) quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  check(!quoted, ErrorClass::schema, "a field of CSV is not closed: ", quote(line));
  return fields;
}

inline std::string sweep_heading(std::span<const Metric> metrics) {
  std::vector<std::string> names = {"ratio",
                                    "compress_layers",
                                    "cutoff_layer",
                                    "queries",
                                    "pairs",
                                    "tokens_in",
                                    "tokens_after",
                                    "token_layers_saved",
                                    "token_layers_saved_real",
                                    "flops_dense_per_pair",
                                    "flops_causal_per_pair"};
  for (const Metric& metric : metrics) {
    for (const char* suffix : {"", "_low", "_high"}) names.push_back(metric.name + suffix);
  }
  for (const char* name : {"kendall_tau", "top10_overlap"}) names.emplace_back(name);
  for (const char* slice : {"short_passages", "medium_passages", "long_passages", "low_query_share",
                            "middle_query_share", "high_query_share"}) {
    names.push_back(metrics.front().name + "_" + slice);
  }
  for (const char* name : {"cascade_exact_saved", "cascade_exact_overlap", "cascade_risk_saved",
                           "cascade_risk_overlap"}) {
    names.emplace_back(name);
  }
  for (const std::string_view name : kTimingColumns) names.emplace_back(name);
  return detail::join_fields(names);
}

// What the row of a cell and exit starts with.
inline std::string sweep_row_key(const SweepCell& cell, std::int64_t exit) {
  return std::to_string(cell.ratio) + "," + cell.layers_text() + "," + std::to_string(exit) + ",";
}

inline std::string sweep_row(const SweepCell& cell, std::int64_t exit, std::size_t queries,
                             std::size_t pairs, const CostSummary& cost, const RowMeasures& row,
                             const RowTiming& timing) {
  std::vector<double> numbers = {static_cast<double>(queries),
                                 static_cast<double>(pairs),
                                 cost.tokens_in,
                                 cost.tokens_after,
                                 cost.nominal_saving,
                                 cost.saving,
                                 cost.dense_flops,
                                 cost.causal_flops};
  for (const MetricSummary& metric : row.metrics) {
    numbers.insert(numbers.end(), {metric.mean, metric.interval.low, metric.interval.high});
  }
  numbers.insert(numbers.end(), {row.kendall_tau, row.overlap});
  numbers.insert(numbers.end(), row.slices.begin(), row.slices.end());
  numbers.insert(numbers.end(), {row.exact_cascade.saving, row.exact_cascade.overlap,
                                 row.risky_cascade.saving, row.risky_cascade.overlap});
  numbers.insert(numbers.end(),
                 {timing.latency_median_ms, timing.latency_p95_ms, timing.flops_run_per_pair,
                  timing.probe_before_gflops, timing.probe_after_gflops, timing.peak_rss_mb});
  std::vector<std::string> fields;
  for (const double number : numbers) fields.push_back(detail::csv_number(number));
  return sweep_row_key(cell, exit) + detail::join_fields(fields);
}

// A finished CSV, for pictures.
class SweepTable {
 public:
  // Throws Error(schema) if rows differ in their number of fields.
  explicit SweepTable(std::string_view csv) {
    while (!csv.empty()) {
      const std::size_t end = std::min(csv.find('\n'), csv.size());
      rows_.push_back(split_csv(csv.substr(0, end)));
      check(rows_.back().size() == rows_.front().size(), ErrorClass::schema, "a row of ",
            rows_.back().size(), " fields under a heading of ", rows_.front().size());
      csv.remove_prefix(std::min(end + 1, csv.size()));
    }
    check(rows_.size() > 1, ErrorClass::missing, "a sweep without rows");
  }

  std::size_t size() const { return rows_.size() - 1; }
  const std::vector<std::string>& heading() const { return rows_.front(); }
  const std::vector<std::string>& row(std::size_t index) const { return rows_[index + 1]; }

  // Throws Error(missing) for a column that is not there.
  const std::string& text(std::size_t index, std::string_view column) const {
    for (std::size_t i = 0; i < heading().size(); ++i) {
      if (heading()[i] == column) return row(index)[i];
    }
    fail(ErrorClass::missing, "a sweep has no column ", quote(column));
  }
  // NaN for an empty field. Throws also Error(schema) for one that is no number.
  double number(std::size_t index, std::string_view column) const {
    const std::string& field = text(index, column);
    if (field.empty()) return std::nan("");
    double value = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    check(error == std::errc() && end == field.data() + field.size(), ErrorClass::schema, "column ",
          quote(column), " is ", quote(field), ", expected a number");
    return value;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace terse
