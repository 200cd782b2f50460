// tenon golden as a person runs it: exit codes, text and JSON.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>

#include "tests/e2e/program.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;

const std::string kBasics = source_path("tests/fixtures/golden/basics.json");

}  // namespace

TEST_CASE("tenon golden reports each value and passes when all do") {
  const Outcome o = program({"golden", kBasics});
  INFO(o.all());
  CHECK(o.code == 0);
  CHECK_THAT(o.out, ContainsSubstring("ok   adamw_four_steps (optimizer:adamw)"));
  CHECK_THAT(o.out, ContainsSubstring("grad:logits"));
  CHECK_THAT(o.out, ContainsSubstring("5 of 5 cases passed (11 of 11 values)"));

  const auto j = program({"golden", "--json", "--case", "huber", kBasics}).json();
  CHECK(j["passed"] == true);
  CHECK(j["n_cases"] == 1);
  CHECK(j["cases"][0]["values"][0]["key"] == "loss_per_step");
  CHECK(j["cases"][0]["values"][0]["abs_error"].get<double>() < 1e-12);
}

TEST_CASE("tenon golden fails on a wrong number and refuses what is no golden file") {
  const TempFolder folder;
  std::ofstream(folder.file("wrong.json"))
      << R"({"paper": "t", "cases": [{"name": "off", "target": "loss:mse", "inputs": {"prediction": {"shape": [1], "data": [3]},
             "target": {"shape": [1], "data": [1]}}, "expected": {"loss": 5}}]})";
  const Outcome wrong = program({"golden", folder.file("wrong.json")});
  CHECK(wrong.code == 1);
  CHECK_THAT(wrong.out, ContainsSubstring("got 4, expected 5"));

  CHECK_THAT(complaint(program({"golden", folder.file("nowhere.json")})), ContainsSubstring("no such file"));
  CHECK_THAT(complaint(program({"golden", "--case", "nothing", kBasics})), ContainsSubstring("nothing"));
  CHECK_THAT(complaint(program({"golden", "--plugin", folder.file("none.so"), kBasics})), ContainsSubstring("no such plugin file"));
}

}  // namespace tenon::test
