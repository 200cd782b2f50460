// Charts: every number has its mark at its place, and text can't break the file.
#include "tools/plot/chart.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <regex>

namespace tenon::plot {
namespace {

using Catch::Matchers::WithinAbs;

// Values of an attribute in all elements of a kind that have the fill.
std::vector<double> numbers(const std::string& svg, const std::string& element, const std::string& attribute,
                            const std::string& fill) {
  std::vector<double> out;
  const std::regex tag("<" + element + " [^>]*?" + attribute + "=\"([-0-9.e+]+)\"[^>]*?fill=\"" + fill +
                       "\"/>");
  for (std::sregex_iterator i(svg.begin(), svg.end(), tag), end; i != end; ++i)
    out.push_back(std::stod((*i)[1]));
  return out;
}

TEST_CASE("bars are as long as their numbers") {
  const BarChart chart{.title = "a < b & c",
                       .subtitle = "",
                       .axis = "ms",
                       .categories = {"one", "two"},
                       .series = {{"first", {1, 4}}, {"second", {2, NAN}}}};
  const std::string svg = chart.svg();
  // Each series also has a square of 10 in the legend.
  const auto first = numbers(svg, "rect", "width", "#0072b2"),
             second = numbers(svg, "rect", "width", "#e69f00");
  REQUIRE(first.size() == 3);
  REQUIRE(second.size() == 2);
  CHECK(first[0] == 10);
  CHECK_THAT(first[2], WithinAbs(4 * first[1], 1e-2));
  CHECK_THAT(second[1], WithinAbs(2 * first[1], 1e-2));
  CHECK(svg.find("a &lt; b &amp; c") != std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
}

TEST_CASE("on logarithmic axes equal factors are equal distances") {
  const LineChart chart{.title = "",
                        .subtitle = "",
                        .x_axis = "x",
                        .y_axis = "y",
                        .log_x = true,
                        .log_y = true,
                        .series = {{.name = "s", .points = {{1, 10}, {10, 100}, {100, 1000}, {0, 5}}}}};
  const std::string svg = chart.svg();
  const auto x = numbers(svg, "circle", "cx", "#0072b2"), y = numbers(svg, "circle", "cy", "#0072b2");
  REQUIRE(x.size() == 3);  // 0 has no place
  CHECK(x[0] < x[1]);
  CHECK(y[0] > y[1]);
  CHECK_THAT(x[2] - x[1], WithinAbs(x[1] - x[0], 1e-2));
  CHECK_THAT(y[2] - y[1], WithinAbs(y[1] - y[0], 1e-2));
}

TEST_CASE("charts of nothing are drawn empty") {
  CHECK(BarChart{}.svg().ends_with("</svg>\n"));
  const LineChart empty{
      .title = "", .subtitle = "", .x_axis = "", .y_axis = "", .series = {{.name = "s", .points = {}}}};
  CHECK(empty.svg().find("nan") == std::string::npos);
  const LineChart one{
      .title = "", .subtitle = "", .x_axis = "", .y_axis = "", .series = {{.name = "s", .points = {{3, 0}}}}};
  CHECK(one.svg().find("nan") == std::string::npos);
  CHECK(one.svg().find("inf") == std::string::npos);
}

}  // namespace
}  // namespace tenon::plot
