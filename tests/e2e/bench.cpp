// tenon bench, from outside.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <sstream>

#include "core/io/file.h"
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

TEST_CASE("profile accounts for the time of a recipe's steps") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  const Outcome o =
      program({"profile", recipe, "--steps", "4", "--json", "--trace", folder.file("trace.json")});
  INFO(o.all());
  REQUIRE(o.code == 0);
  const nlohmann::json j = o.json();
  double ms = 0;
  int64_t calls = 0;
  for (const auto& row : j["rows"]) {
    ms += row["ms"].get<double>();
    calls += row["calls"].get<int64_t>();
  }
  CHECK(std::abs(ms / 4 - j["kernel_ms"].get<double>()) < 1e-6);
  CHECK(calls == j["kernels"]);
  CHECK(j["kernel_ms"] < j["step_ms"]);
  CHECK(nlohmann::json::parse(read_bytes(folder.file("trace.json")).value())["traceEvents"].size() > 4);

  const Outcome table = program({"profile", recipe, "--steps", "1"});
  CHECK(table.code == 0);
  CHECK(table.out.find("a step, the mean of 1") != std::string::npos);
  CHECK(complaint(program({"profile", recipe, "--steps", "1", "--trace", "/no/such/t.json"}), 1)
            .find("/no/such/t.json") != std::string::npos);
}

}  // namespace
}  // namespace tenon::test
