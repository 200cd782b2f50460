// Golden files: the reader, the comparison, and plugins run by the contract of their kind.
#include "core/golden/golden.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/io/temp_folder.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

Catalog& catalog() {
  static Catalog* c = [] {
    auto* made = new Catalog();
    REQUIRE(made->add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
    for (const char* fixture : {"probes", "kinds"})
      REQUIRE(made->add_file(std::string(TENON_BINARY_DIR) + "/tests/plugins/" + fixture + ".so").is_ok());
    return made;
  }();
  return *c;
}

// Every problem of a result, for a failing test to show.
std::string problems(const golden::CaseResult& r) {
  std::string s = r.status.message();
  for (const golden::Comparison& v : r.values)
    if (!v.passed)
      s += "\n" + v.key + ": " + (v.problem.empty() ? "got " + std::to_string(v.got) + v.got_text + ", expected " + std::to_string(v.expected) + v.expected_text : v.problem);
  return s;
}

void check_file(Runtime& rt, const std::string& path, bool only_known) {
  CAPTURE(path);
  const auto cases = golden::load(path);
  INFO(cases.status().message());
  REQUIRE(cases.is_ok());
  for (const golden::Case& c : *cases) {
    // Methods that this build does not have yet are not its failures.
    if (only_known && !catalog().find("tenon." + c.kind + "/1", c.id)) continue;
    CAPTURE(c.name);
    const golden::CaseResult r = golden::run(rt, catalog(), c);
    INFO(problems(r));
    CHECK(r.passed());
    CHECK(r.values.size() == c.expected.size());
  }
}

// One case from text, without its braces.
golden::CaseResult run(const std::string& text) {
  const test::TempFolder folder;
  std::ofstream(folder.file("case.json")) << R"({"paper": "test", "cases": [{"name": "case", )" << text << "}]}";
  const auto cases = golden::load(folder.file("case.json"));
  INFO(cases.status().message());
  REQUIRE(cases.is_ok());
  auto rt = test::runtime();
  return golden::run(*rt, catalog(), (*cases)[0]);
}

std::string refusal(const std::string& text) {
  const test::TempFolder folder;
  std::ofstream(folder.file("bad.json")) << text;
  const auto cases = golden::load(folder.file("bad.json"));
  return cases ? "accepted" : cases.status().message();
}

const std::string kPower = R"("target": "loss:power", "inputs": {"x": {"shape": [2], "data": [1, 3]}}, )";

}  // namespace

// basics: losses and optimizers; kinds: every other kind, by the small plugins of the fixtures; and single plugins.
TEST_CASE("the suite's own golden files are reproduced") {
  auto rt = test::runtime();
  for (const auto& entry : fs::directory_iterator(std::string(TENON_SOURCE_DIR) + "/tests/fixtures/golden")) check_file(*rt, entry.path().string(), false);
}

TEST_CASE("golden files of the methods are reproduced, where they are at hand") {
  const char* named = std::getenv("TENON_GOLDEN");
  const fs::path folder = named ? fs::path(named) : fs::path(TENON_SOURCE_DIR) / "../shared/papers/golden";
  if (!named && !fs::is_directory(folder)) SKIP("set TENON_GOLDEN to a folder of golden files");
  auto rt = test::runtime();
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".json") check_file(*rt, entry.path().string(), true);
}

TEST_CASE("a wrong number, shape, text or name fails, and nothing else") {
  CHECK(run(kPower + R"("expected": {"loss": 5, "grad:x": {"shape": [2], "data": [1, 3]}})").passed());
  CHECK_FALSE(run(kPower + R"("expected": {"loss": 5.0001})").passed());
  CHECK(run(kPower + R"("expected": {"loss": 5.0001}, "rtol": 1e-3)").passed());
  CHECK_FALSE(run(kPower + R"("expected": {"grad:x": {"shape": [2], "data": [1, 3.01]}})").passed());
  CHECK_FALSE(run(kPower + R"("expected": {"grad:x": {"shape": [2, 1], "data": [1, 3]}})").passed());
  CHECK_FALSE(run(kPower + R"("expected": {"loss": "5"})").passed());

  const golden::CaseResult r = run(kPower + R"("expected": {"loss": 5, "weights": 1})");
  REQUIRE(r.values.size() == 2);
  CHECK(r.values[0].passed);
  CHECK_FALSE(r.values[1].passed);
  CHECK(r.values[1].problem == "the plugin does not give it");
}

TEST_CASE("consecutive calls keep the plugin's state") {
  const std::string thrice = R"("repeat": 3, "expected": {"state:calls": 3, "calls_so_far": 3, "step1:calls_so_far": 2,
    "state:calls_per_call": {"shape": [3], "data": [1, 2, 3]}, "loss_per_call": {"shape": [3], "data": [5, 5, 5]}})";
  const golden::CaseResult r = run(kPower + thrice);
  INFO(problems(r));
  CHECK(r.passed());

  const golden::CaseResult steps = run(R"("target": "loss:power", "inputs": {"step0:x": {"shape": [1], "data": [2]},
    "step1:x": {"shape": [1], "data": [3]}}, "expected": {"step0:loss": 4, "step1:loss": 9, "step1:state:calls": 2,
    "step1:grad:x": {"shape": [1], "data": [6]}})");
  INFO(problems(steps));
  CHECK(steps.passed());
}

TEST_CASE("probes are run by name, and the default one for inputs that the kind does not know") {
  const golden::CaseResult named = run(R"("target": "loss:power/slope", "options": {"exponent": 3}, "inputs": {"x": {"shape": [2], "data": [1, 2]}},
    "expected": {"slope": {"shape": [2], "data": [3, 12]}, "kind": "convex", "exponent": 3.0, "grad:x": {"shape": [2], "data": [3, 12]}})");
  INFO(problems(named));
  CHECK(named.passed());
  CHECK(run(R"("target": "loss:power", "inputs": {"scores": {"shape": [2], "data": [1, 2]}}, "expected": {"total": 3})").passed());
  CHECK_THAT(run(R"("target": "loss:power/nothing", "expected": {"total": 3})").status.message(), ContainsSubstring("has no probe 'nothing'"));
}

TEST_CASE("what a plugin or its options refuse is the case's failure") {
  CHECK_THAT(run(R"("target": "loss:power", "inputs": {"x": {"shape": [2], "data": [1, -3]}}, "expected": {"loss": 5})").status.message(),
             ContainsSubstring("x must be positive"));
  CHECK_THAT(run(kPower + R"("options": {"exponnet": 3}, "expected": {"loss": 5})").status.message(), ContainsSubstring("exponent"));
  CHECK_THAT(run(R"("target": "loss:powr", "expected": {"loss": 5})").status.message(), ContainsSubstring("did you mean 'power'"));
  CHECK_THAT(run(R"("target": "loss:huber", "inputs": {"predictoin": 1}, "expected": {"loss": 5})").status.message(), ContainsSubstring("'predictoin'"));
}

TEST_CASE("files that are not golden files are refused") {
  CHECK_THAT(golden::load("/nowhere.json").status().message(), ContainsSubstring("no such file"));
  CHECK_THAT(refusal("{"), ContainsSubstring("not JSON"));
  CHECK_THAT(refusal("[1]"), ContainsSubstring("no list of 'cases'"));
  CHECK_THAT(refusal(R"({"cases": []})"), ContainsSubstring("empty"));
  CHECK_THAT(refusal(R"({"cases": [{"target": "mse", "expected": {"loss": 1}}]})"), ContainsSubstring("<kind>:<plugin id>"));
  CHECK_THAT(refusal(R"({"cases": [{"target": "loss:mse"}]})"), ContainsSubstring("nothing to compare"));
  CHECK_THAT(refusal(R"({"cases": [{"target": "loss:mse", "inputs": {"x": {"shape": [3], "data": [1]}}, "expected": {"loss": 1}}]})"),
             ContainsSubstring("list of 3 numbers"));
  CHECK_THAT(refusal(R"({"cases": [{"target": "loss:mse", "inputs": {"x": {"shape": [1], "dtype": "f16", "data": [1]}}, "expected": {"loss": 1}}]})"),
             ContainsSubstring("'dtype'"));
  CHECK_THAT(refusal(R"({"cases": [{"target": "loss:mse", "rtol": -1, "expected": {"loss": 1}}]})"), ContainsSubstring("'rtol'"));
}

}  // namespace tenon
