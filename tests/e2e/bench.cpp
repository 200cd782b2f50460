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

// A peer made of a shell script: PyTorch answers, its compiler dies.
constexpr const char* kFakePython = R"(#!/bin/sh
case "$2 $3" in
  versions*) echo '{"torch": "9.9"}' ;;
  'serve torch') while read -r request; do echo 'a warning'; echo '{"ms": 1e6, "steps": 5, "peak_mb": 100}'; done ;;
  'serve compile') exit 3 ;;
esac
)";

TEST_CASE("bench --compare writes tables and plots of Tenon and the peers that answer") {
  const TempFolder folder;
  const std::string python = write_recipe(folder, kFakePython, "python");
  std::filesystem::permissions(python, std::filesystem::perms::owner_all);
  const Outcome o = program({"bench", "--compare", "mlp_tabular", "--rounds", "3", "--seconds", "0",
                             "--threads", "1", "--out", folder.file("out")},
                            {.environment = {{"TENON_PEERS_PYTHON", python}}});
  INFO(o.all());
  REQUIRE(o.code == 0);
  const std::string markdown = slurp(folder.file("out/bench.md"));
  CHECK(markdown == o.out);
  CHECK(markdown.find("| workload | Tenon | PyTorch | PyTorch, compiled | fastest peer / Tenon |") !=
        std::string::npos);
  CHECK(markdown.find("PyTorch 9.9") != std::string::npos);
  CHECK(markdown.find("1 threads") != std::string::npos);
  CHECK(markdown.find("PyTorch, compiled failed on mlp_tabular: the program ended") != std::string::npos);
  const auto all = nlohmann::json::parse(slurp(folder.file("out/bench.json")));
  const auto& figures = all["workloads"]["mlp_tabular"];
  CHECK(figures["tenon"]["ms"].size() == 3);
  CHECK(figures["torch"]["ms"] == std::vector{1e6, 1e6, 1e6});
  CHECK(figures["torch"]["peak_mb"] == 100);
  CHECK(figures["compile"].contains("error"));
  CHECK(all["first_step_ms"]["tenon"].get<double>() > 0);
  CHECK(all["gemm_flops_per_second"].get<double>() > 0);
  for (const char* plot : {"out/bench.svg", "out/memory.svg"})
    CHECK(slurp(folder.file(plot)).find("mlp_tabular") != std::string::npos);
}

TEST_CASE("bench --precisions measures f32 and bf16 in turns, and says what exists in f32 only") {
  const Outcome o =
      program({"bench", "--precisions", "mlp_tabular", "ldr_chain", "--rounds", "1", "--seconds", "0"});
  INFO(o.all());
  CHECK(o.code == 0);
  CHECK(o.out.find("| workload | f32, ms | bf16, ms | f32 / bf16 |") == 0);
  double f32 = 0, bf16 = 0, ratio = 0;
  const size_t row = o.out.find("| mlp_tabular |");
  REQUIRE(row != std::string::npos);
  REQUIRE(std::sscanf(o.out.c_str() + row, "| mlp_tabular | %lf | %lf | %lf |", &f32, &bf16, &ratio) == 3);
  CHECK(f32 > 0);
  CHECK(std::abs(ratio - f32 / bf16) < 0.05 * ratio);
  CHECK(o.out.find("is measured in f32 only") != std::string::npos);
}

TEST_CASE("bench --compare without peers measures Tenon") {
  const TempFolder folder;
  const Outcome o = program({"bench", "--compare", "mlp_tabular", "--rounds", "1", "--seconds", "0",
                             "--threads", "1", "--out", folder.file("out")},
                            {.environment = {{"TENON_PEERS_PYTHON", "/no/such/python"}}});
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(o.out.find("No peer was found") != std::string::npos);
  CHECK(o.out.find("| mlp_tabular |") != std::string::npos);
}

TEST_CASE("bench --scaling sets the growth of a step beside the growth of its work") {
  const TempFolder folder;
  const Outcome o = program({"bench", "--scaling", "--brief", "--seconds", "0", "--out", folder.path()});
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(slurp(folder.file("scaling.md")) == o.out);
  const auto all = nlohmann::json::parse(slurp(folder.file("scaling.json")));
  REQUIRE(all["series"].size() == 7);
  for (const auto& [name, points] : all["series"].items()) {
    INFO(name);
    REQUIRE(points.size() == 2);
    CHECK(points[0]["ms"].get<double>() > 0);
    CHECK(points[0]["least_ms"].get<double>() > 0);
    CHECK(std::filesystem::exists(folder.file(name + ".svg")));
  }
  // Twice the rows: twice the products, which are nearly all operations of an MLP, but not the optimizer's.
  const auto& batch = all["series"]["mlp_batch"];
  const double growth = batch[1]["flops"].get<double>() / batch[0]["flops"].get<double>();
  CHECK(growth > 1.7);
  CHECK(growth < 2);
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
