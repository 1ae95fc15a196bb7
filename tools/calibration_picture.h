// The reliability diagram of a calibration as SVG.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "svg.h"
#include "terse/evaluate/calibrate.h"

namespace terse_tools {

// What was predicted against what was observed, one marker a bin over the diagonal on which both
// agree; below, how many examples each bin holds.
inline std::string reliability_picture(const terse::Calibration& calibration) {
  constexpr int kWidth = 560;
  Svg svg(kWidth, 600, "Reliability of the calibrated scores",
          "Share of relevant examples by predicted probability; on the diagonal both agree.");
  const Axis x{0, 1, 76, kWidth - 24, 0.2, 1};
  const Axis y{0, 1, 420, 44, 0.2, 1};
  draw_axes(svg, x, y, "", "observed share of relevant");
  svg.path({{x.begin, y.begin}, {x.end, y.end}}, "s5 faint", 2);
  std::size_t most = 0;
  std::vector<Svg::Point> path;
  for (const terse::ReliabilityBin& bin : calibration.bins) {
    most = std::max(most, bin.count);
    if (bin.count > 0) path.push_back({x.place(bin.predicted), y.place(bin.observed)});
  }
  Axis counts = Axis::around(0, static_cast<double>(most), 540, 460, 2);
  counts.low = 0;
  draw_axes(svg, x, counts, "predicted probability", "examples");
  svg.path(path, "s0", 2);
  for (const terse::ReliabilityBin& bin : calibration.bins) {
    if (bin.count == 0) continue;
    const auto count = static_cast<double>(bin.count);
    const std::string tip = fixed_number(bin.low, 2) + " to " + fixed_number(bin.high, 2) + ": " +
                            std::to_string(bin.count) + " examples, predicted " +
                            fixed_number(bin.predicted, 3) + ", observed " +
                            fixed_number(bin.observed, 3);
    svg.marker({x.place(bin.predicted), y.place(bin.observed)}, 0, 5, tip);
    svg.box(x.place(bin.low) + 1, counts.place(count), x.place(bin.high) - x.place(bin.low) - 2,
            counts.place(0) - counts.place(count), "bar", 1, tip);
  }
  return svg.finish();
}

}  // namespace terse_tools
