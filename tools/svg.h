// Pictures as SVG text: shapes by class, and one style sheet that fits light and dark pages.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace terse_tools {

// text for element content and attributes.
inline std::string xml_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// value with so many decimals.
inline std::string fixed_number(double value, int decimals) {
  char digits[64];
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::fixed, decimals);
  return {digits, end.ptr};
}

// Colours: s0 .. s5 for series (told apart by people with any colour vision; each series has a
// marker of its own as well), grid and ink for the rest.
inline constexpr std::string_view kSvgStyle = R"(
.page{fill:#ffffff}.ink{fill:#1f2328}.soft{fill:#59636e}.line{stroke:#59636e}.grid{stroke:#d8dee4}
.s0{--c:#0969b5}.s1{--c:#c2570c}.s2{--c:#0a8f6b}.s3{--c:#a23b8f}.s4{--c:#8a6d00}.s5{--c:#59636e}
.dot{fill:var(--c)}.open{fill:none;stroke:var(--c)}.path{fill:none;stroke:var(--c)}
.faint{opacity:.35}.bar{fill:#0969b5}.ramp{fill:#0969b5}
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
text.title{font-size:16px;font-weight:600}text.small{font-size:12px}
.halo{paint-order:stroke;stroke:#ffffff;stroke-width:3px}
@media (prefers-color-scheme:dark){
.page{fill:#0d1117}.ink{fill:#e6edf3}.soft{fill:#9198a1}.line{stroke:#9198a1}.grid{stroke:#2a313a}
.s0{--c:#58a6ff}.s1{--c:#ff9550}.s2{--c:#3ecf9b}.s3{--c:#e58ad6}.s4{--c:#e3c04a}.s5{--c:#9198a1}
.bar{fill:#58a6ff}.ramp{fill:#58a6ff}.halo{stroke:#0d1117}}
)";
inline constexpr std::size_t kNumSeries = 6;

class Svg {
 public:
  Svg(int width, int height, std::string_view title, std::string_view description)
      : text_("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(width) +
              " " + std::to_string(height) + "\" width=\"" + std::to_string(width) +
              "\" height=\"" + std::to_string(height) + "\" role=\"img\">\n<title>" +
              xml_text(title) + "</title>\n<desc>" + xml_text(description) + "</desc>\n<style>" +
              std::string(kSvgStyle) + "</style>\n<rect class=\"page\" width=\"100%\" " +
              "height=\"100%\"/>\n") {
    label(16, 26, title, "ink title", "start");
  }

  void line(double x1, double y1, double x2, double y2, std::string_view style, double width = 1) {
    text_ += "<line class=\"" + std::string(style) + "\" stroke-width=\"" + at(width) + "\" x1=\"" +
             at(x1) + "\" y1=\"" + at(y1) + "\" x2=\"" + at(x2) + "\" y2=\"" + at(y2) + "\"/>\n";
  }

  // anchor: start, middle or end.
  void label(double x, double y, std::string_view text, std::string_view style,
             std::string_view anchor) {
    text_ += "<text class=\"" + std::string(style) + "\" text-anchor=\"" + std::string(anchor) +
             "\" x=\"" + at(x) + "\" y=\"" + at(y) + "\">" + xml_text(text) + "</text>\n";
  }
  // Reading upwards, centred.
  void upright_label(double x, double y, std::string_view text) {
    text_ += "<text class=\"soft\" text-anchor=\"middle\" transform=\"translate(" + at(x) + "," +
             at(y) + ") rotate(-90)\">" + xml_text(text) + "</text>\n";
  }

  void box(double x, double y, double width, double height, std::string_view style,
           double opacity = 1, std::string_view tip = {}) {
    text_ += "<rect class=\"" + std::string(style) + "\" x=\"" + at(x) + "\" y=\"" + at(y) +
             "\" width=\"" + at(width) + "\" height=\"" + at(height) + "\"";
    if (opacity < 1) text_ += " opacity=\"" + fixed_number(opacity, 2) + "\"";
    text_ += tip.empty() ? "/>\n" : "><title>" + xml_text(tip) + "</title></rect>\n";
  }

  struct Point {
    double x = 0;
    double y = 0;
  };
  void path(const std::vector<Point>& points, std::string_view style, double width) {
    text_ += "<polyline class=\"path " + std::string(style) + "\" stroke-width=\"" + at(width) +
             "\" stroke-linejoin=\"round\" points=\"";
    for (const Point& point : points) text_ += at(point.x) + "," + at(point.y) + " ";
    text_ += "\"/>\n";
  }

  // A marker whose form tells series apart without colour; a tip appears under the pointer.
  void marker(Point p, std::size_t series, double size, std::string_view tip) {
    const std::string style =
        "<g class=\"s" + std::to_string(series % kNumSeries) + "\"><path class=\"dot\" d=\"";
    const auto move = [&](double x, double y) {
      return at(p.x + size * x) + " " + at(p.y + size * y);
    };
    std::string shape;
    switch (series % 4) {
      case 0:
        shape = "M" + move(-1, 0) + "a" + at(size) + " " + at(size) + " 0 1 0 " + at(2 * size) +
                " 0a" + at(size) + " " + at(size) + " 0 1 0 " + at(-2 * size) + " 0z";
        break;
      case 1:
        shape = "M" + move(-.9, -.9) + "L" + move(.9, -.9) + "L" + move(.9, .9) + "L" +
                move(-.9, .9) + "z";
        break;
      case 2:
        shape = "M" + move(0, -1.2) + "L" + move(1.1, .8) + "L" + move(-1.1, .8) + "z";
        break;
      default:
        shape = "M" + move(0, -1.25) + "L" + move(1.25, 0) + "L" + move(0, 1.25) + "L" +
                move(-1.25, 0) + "z";
    }
    text_ += style + shape + "\"><title>" + xml_text(tip) + "</title></path></g>\n";
  }

  std::string finish() { return text_ + "</svg>\n"; }

 private:
  static std::string at(double value) { return fixed_number(value, 1); }

  std::string text_;
};

// Values along one side of a chart, and where they come to lie.
struct Axis {
  double low = 0;
  double high = 1;
  double begin = 0;  // pixel of low
  double end = 1;    // pixel of high
  double step = 1;   // between ticks
  int decimals = 0;

  // About `wanted` round ticks over values that are padded a little. Source: Heckbert, Graphics
  // Gems, 1990 (nice numbers).
  static Axis around(double least, double most, double begin, double end, int wanted) {
    if (!(most > least)) {
      least -= 0.5;
      most += 0.5;
    }
    const double pad = 0.04 * (most - least);
    Axis axis{least - pad, most + pad, begin, end};
    const double raw = (axis.high - axis.low) / wanted;
    const double power = std::pow(10, std::floor(std::log10(raw)));
    const double share = raw / power;
    axis.step = power * (share < 1.5 ? 1 : share < 3 ? 2 : share < 7 ? 5 : 10);
    axis.decimals = std::max(0, -static_cast<int>(std::floor(std::log10(axis.step) + 1e-9)));
    return axis;
  }

  // The same for values that are whole numbers.
  static Axis around_integers(double least, double most, double begin, double end, int wanted) {
    Axis axis = around(least, most, begin, end, wanted);
    axis.step = std::max(axis.step, 1.0);
    axis.decimals = 0;
    return axis;
  }

  double place(double value) const { return begin + (value - low) / (high - low) * (end - begin); }

  std::vector<double> ticks() const {
    std::vector<double> values;
    for (double k = std::ceil(low / step); k * step <= high; ++k) {
      values.push_back(k * step + 0.0);  // not the zero that has a sign
    }
    return values;
  }
};

// Grid lines, tick labels and names of both axes.
inline void draw_axes(Svg& svg, const Axis& x, const Axis& y, std::string_view x_name,
                      std::string_view y_name) {
  for (const double value : y.ticks()) {
    svg.line(x.begin, y.place(value), x.end, y.place(value), "grid");
    svg.label(x.begin - 8, y.place(value) + 4, fixed_number(value, y.decimals), "soft small",
              "end");
  }
  for (const double value : x.ticks()) {
    svg.line(x.place(value), y.begin, x.place(value), y.begin + 4, "line");
    svg.label(x.place(value), y.begin + 19, fixed_number(value, x.decimals), "soft small",
              "middle");
  }
  svg.line(x.begin, y.begin, x.end, y.begin, "line");
  svg.label((x.begin + x.end) / 2, y.begin + 40, x_name, "soft", "middle");
  svg.upright_label(18, (y.begin + y.end) / 2, y_name);
}

}  // namespace terse_tools
