// Charts as SVG text, readable on light and on dark pages.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tenon::plot {

// Horizontal bars, one a series in each category, from 0 to the right.
struct BarChart {
  std::string title, subtitle;
  std::string axis;  // what the numbers are
  std::vector<std::string> categories;
  struct Series {
    std::string name;
    std::vector<double> values;  // one a category; NaN: no bar
  };
  std::vector<Series> series;
  double mark = 0;  // a vertical line at this value, when positive
  std::string svg() const;
};

// Lines through points, on linear or logarithmic axes.
struct LineChart {
  std::string title, subtitle;
  std::string x_axis, y_axis;
  bool log_x = false, log_y = false;  // then only positive numbers are drawn
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // NaN breaks the line
    bool dashed = false;
    int colour = -1;  // that of another series, to show that they belong together; default: its own
  };
  std::vector<Series> series;
  std::string svg() const;
};

}  // namespace tenon::plot
