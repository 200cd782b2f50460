// tenon bench, from outside.
#include <catch2/catch_test_macros.hpp>
#include <sstream>

#include "tests/e2e/program.h"

namespace tenon::test {
namespace {

std::vector<nlohmann::json> lines_of(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST_CASE("bench prints a line of JSON for each workload, in the order asked for") {
  const Outcome o =
      program({"bench", "grad_penalty", "mlp_tabular", "--json", "--seconds", "0", "--threads", "1"});
  INFO(o.all());
  REQUIRE(o.code == 0);
  const auto lines = lines_of(o.out);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["workload"] == "grad_penalty");
  CHECK(lines[1]["workload"] == "mlp_tabular");
  for (const auto& line : lines) {
    CHECK(line["ms"].get<double>() > 0);
    CHECK(line["peak_mb"].get<double>() > 1);
    CHECK(line["steps"] == 5);
    CHECK(line["threads"] == 1);
    CHECK(line["plan_misses"] == 0);
  }
}

TEST_CASE("bench says which workload it does not know") {
  CHECK(complaint(program({"bench", "mlp_tabula"})) ==
        "no workload 'mlp_tabula' (did you mean 'mlp_tabular'?)\n");
}

TEST_CASE("bench passes on what a child says, and fails") {
  const Outcome o =
      program({"bench", "mlp_tabular", "adamw_25m", "--seconds", "0", "--plugin", "/no/such.so"});
  CHECK(o.code == 2);
  CHECK(o.err.find("/no/such.so") != std::string::npos);
}

}  // namespace
}  // namespace tenon::test
