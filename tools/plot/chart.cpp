#include "tools/plot/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace tenon::plot {
namespace {

// Okabe and Ito's colours, which the colour-blind tell apart; all stand out from white and from black.
constexpr const char* kColours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                    "#d55e00", "#56b4e9", "#999999"};
const char* colour(size_t i) { return kColours[i % std::size(kColours)]; }

constexpr double kLetter = 6.6;  // mean width of a letter of the text, pixels

double width_of(const std::string& text) { return kLetter * static_cast<double>(text.size()); }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, v >= 1e5 ? "%.3g" : v >= 100 ? "%.0f" : v >= 10 ? "%.3g" : "%.2g", v);
  return text;
}

class Drawing {
 public:
  Drawing(double width, double height) : width_(width), height_(height) {}

  void line(double x1, double y1, double x2, double y2, const char* style) {
    element("line", {{"x1", x1}, {"y1", y1}, {"x2", x2}, {"y2", y2}}, std::string("class=\"") + style + "\"");
  }
  void rect(double x, double y, double w, double h, const std::string& fill) {
    element("rect", {{"x", x}, {"y", y}, {"width", w}, {"height", h}}, "fill=\"" + fill + "\"");
  }
  void circle(double x, double y, const std::string& fill) {
    element("circle", {{"cx", x}, {"cy", y}, {"r", 2.5}}, "fill=\"" + fill + "\"");
  }
  void path(const std::string& d, const std::string& stroke, bool dashed) {
    body_ += "<path d=\"" + d + "\" fill=\"none\" stroke=\"" + stroke + "\" stroke-width=\"2\"" +
             (dashed ? " stroke-dasharray=\"5 4\"" : "") + "/>\n";
  }
  // anchor: start, middle or end
  void text(double x, double y, const std::string& s, const char* anchor = "start",
            const char* style = "text") {
    body_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\" class=\"" +
             style + "\">" + escaped(s) + "</text>\n";
  }
  void upright_text(double x, double y, const std::string& s) {
    body_ += "<text transform=\"translate(" + number(x) + " " + number(y) +
             ") rotate(-90)\" text-anchor=\"middle\" class=\"text\">" + escaped(s) + "</text>\n";
  }
  // Coloured names in a row from (x, y).
  void legend(double x, double y, const std::vector<std::pair<std::string, std::string>>& entries) {
    for (const auto& [name, fill] : entries) {
      rect(x, y - 9, 10, 10, fill);
      text(x + 15, y, name);
      x += 15 + width_of(name) + 18;
    }
  }

  std::string svg() const {
    const std::string size = number(width_) + " " + number(height_);
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + size + "\" width=\"" +
           number(width_) + "\" height=\"" + number(height_) +
           "\">\n<style>\n"
           ".text, .title { font: 12px sans-serif; fill: #444 }\n.title { font-size: 15px; font-weight: bold "
           "}\n"
           ".grid { stroke: #8884 }\n.axis { stroke: #888 }\n.mark { stroke: #888; stroke-dasharray: 4 3 }\n"
           "@media (prefers-color-scheme: dark) { .text, .title { fill: #ccc } }\n</style>\n" +
           body_ + "</svg>\n";
  }

 private:
  void element(const char* name, std::initializer_list<std::pair<const char*, double>> attributes,
               const std::string& more) {
    body_ += std::string("<") + name;
    for (const auto& [key, value] : attributes)
      body_ += std::string(" ") + key + "=\"" + number(value) + "\"";
    body_ += " " + more + "/>\n";
  }
  double width_, height_;
  std::string body_;
};

// About `wanted` round numbers that cover [0, top].
std::vector<double> linear_ticks(double low, double high, int wanted) {
  const double raw = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double s : {1.0, 2.0, 5.0})
    if (s * power >= raw) {
      step = s * power;
      break;
    }
  std::vector<double> ticks;
  for (double t = std::ceil(low / step) * step; t <= high + step * 1e-9; t += step) ticks.push_back(t);
  return ticks;
}

// Fewer to the decade, the more decades there are.
std::vector<double> log_ticks(double low, double high) {
  const double decades = std::log10(high / low);
  const std::vector<double> steps = decades < 0.8   ? std::vector<double>{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8}
                                    : decades < 2.5 ? std::vector<double>{1, 2, 5}
                                                    : std::vector<double>{1};
  std::vector<double> ticks;
  for (double p = std::pow(10, std::floor(std::log10(low))); p <= high * 1.0001; p *= 10)
    for (const double m : steps)
      if (m * p >= low * 0.9999 && m * p <= high * 1.0001) ticks.push_back(m * p);
  return ticks;
}

// From values to pixels.
struct Scale {
  bool log = false;
  double low = 0, high = 1, from = 0, to = 1;
  bool shows(double v) const { return std::isfinite(v) && (!log || v > 0); }
  double operator()(double v) const {
    const double u = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + u * (to - from);
  }
  std::vector<double> ticks() const { return log ? log_ticks(low, high) : linear_ticks(low, high, 5); }
};

// The range of what is shown, a little wider, never empty.
Scale scale_of(const std::vector<LineChart::Series>& series, bool y, bool log, double from, double to) {
  Scale s{.log = log, .low = std::numeric_limits<double>::infinity(), .high = -s.low, .from = from, .to = to};
  for (const auto& one : series)
    for (const auto& [a, b] : one.points) {
      const double v = y ? b : a;
      if (!s.shows(v)) continue;
      s.low = std::min(s.low, v);
      s.high = std::max(s.high, v);
    }
  if (!(s.low <= s.high)) s.low = s.high = 1;
  if (log) {
    if (y || s.low == s.high) s.low /= 1.2, s.high *= 1.2;
  } else {
    const double room =
        s.high > s.low ? (s.high - s.low) * (y ? 0.05 : 0) : std::max(std::abs(s.high), 1.0) * 0.5;
    s.low -= room;
    s.high += room;
  }
  return s;
}

}  // namespace

std::string BarChart::svg() const {
  constexpr double bar = 11, gap = 12, plot_width = 480, right = 60;
  double left = 0, highest = mark;
  for (const std::string& c : categories) left = std::max(left, width_of(c) + 16);
  for (const Series& s : series)
    for (const double v : s.values)
      if (std::isfinite(v)) highest = std::max(highest, v);
  if (!(highest > 0)) highest = 1;
  const double group = bar * static_cast<double>(series.size()), top = subtitle.empty() ? 56 : 74;
  const double bottom = top + (group + gap) * static_cast<double>(categories.size());
  Drawing d(left + plot_width + right, bottom + 46);
  d.text(8, 20, title, "start", "title");
  if (!subtitle.empty()) d.text(8, 38, subtitle);
  std::vector<std::pair<std::string, std::string>> entries;
  for (size_t i = 0; i < series.size(); ++i) entries.emplace_back(series[i].name, colour(i));
  d.legend(8, top - 14, entries);
  const Scale x{.low = 0, .high = highest, .from = left, .to = left + plot_width};
  for (const double t : x.ticks()) {
    d.line(x(t), top, x(t), bottom, "grid");
    d.text(x(t), bottom + 16, short_number(t), "middle");
  }
  d.text(left + plot_width / 2, bottom + 36, axis, "middle");
  for (size_t c = 0; c < categories.size(); ++c) {
    const double y = top + gap / 2 + (group + gap) * static_cast<double>(c);
    d.text(left - 8, y + group / 2 + 4, categories[c], "end");
    for (size_t i = 0; i < series.size(); ++i) {
      const double v = c < series[i].values.size() ? series[i].values[c] : NAN,
                   at = y + bar * static_cast<double>(i);
      if (!std::isfinite(v)) continue;
      d.rect(left, at, std::max(x(v) - left, 1.0), bar - 1, colour(i));
      d.text(x(v) + 4, at + bar - 2, short_number(v));
    }
  }
  if (mark > 0) d.line(x(mark), top, x(mark), bottom, "mark");
  d.line(left, top, left, bottom, "axis");
  return d.svg();
}

std::string LineChart::svg() const {
  constexpr double left = 70, plot_width = 500, plot_height = 300;
  const double top = subtitle.empty() ? 34 : 52, bottom = top + plot_height;
  double names = 0;
  for (const Series& s : series) names = std::max(names, width_of(s.name));
  Drawing d(left + plot_width + 50 + names, bottom + 48);
  d.text(8, 20, title, "start", "title");
  if (!subtitle.empty()) d.text(8, 38, subtitle);
  const Scale x = scale_of(series, false, log_x, left, left + plot_width);
  const Scale y = scale_of(series, true, log_y, bottom, top);
  for (const double t : x.ticks()) {
    d.line(x(t), top, x(t), bottom, "grid");
    d.text(x(t), bottom + 16, short_number(t), "middle");
  }
  for (const double t : y.ticks()) {
    d.line(left, y(t), left + plot_width, y(t), "grid");
    d.text(left - 6, y(t) + 4, short_number(t), "end");
  }
  d.text(left + plot_width / 2, bottom + 36, x_axis, "middle");
  d.upright_text(16, top + plot_height / 2, y_axis);
  d.line(left, bottom, left + plot_width, bottom, "axis");
  d.line(left, top, left, bottom, "axis");
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& s = series[i];
    const std::string stroke = colour(s.colour >= 0 ? static_cast<size_t>(s.colour) : i);
    std::string path;
    bool begun = false;
    for (const auto& [a, b] : s.points) {
      if (!x.shows(a) || !y.shows(b)) {
        begun = false;
        continue;
      }
      path += (begun ? " L" : " M") + number(x(a)) + " " + number(y(b));
      begun = true;
      if (!s.dashed) d.circle(x(a), y(b), stroke);
    }
    if (!path.empty()) d.path(path.substr(1), stroke, s.dashed);
    const double at = top + 8 + 18 * static_cast<double>(i), key = left + plot_width + 12;
    d.path("M" + number(key) + " " + number(at - 4) + " L" + number(key + 18) + " " + number(at - 4), stroke,
           s.dashed);
    d.text(key + 24, at, s.name);
  }
  return d.svg();
}

}  // namespace tenon::plot
