// tenon validate: a sound plugin passes, and each defect is found by the check that is there for it, and by no other.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>

#include "tests/e2e/program.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;

const std::string kUnsound = build_path("tests/plugins/unsound.so"), kProcedure = build_path("tests/plugins/unsound_procedure.so");

nlohmann::json report(const std::string& defect, std::vector<std::string> more = {}, const std::string& file = kUnsound) {
  std::vector<std::string> arguments{"validate", file, "--json", "--seed", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome o = program(arguments, {.environment = {{"TENON_TEST_DEFECT", defect}}});
  INFO(o.all());
  const auto j = o.json();
  CHECK(o.code == (j["failed"] == 0 ? 0 : 1));
  return j;
}

std::set<std::string> names(const nlohmann::json& report, const std::string& outcome) {
  std::set<std::string> out;
  for (const auto& c : report["checks"])
    if (c["outcome"] == outcome) out.insert(c["check"].get<std::string>());
  return out;
}

std::string text_of(const nlohmann::json& report, const std::string& outcome) {
  for (const auto& c : report["checks"])
    if (c["outcome"] == outcome) return c["text"];
  return {};
}

}  // namespace

TEST_CASE("a sound plugin passes all checks") {
  const auto j = report("none");
  INFO(j.dump(1));
  CHECK(names(j, "failed").empty());
  for (const char* check : {"load", "defaults", "edges", "random", "roles", "shapes", "f32", "first-derivative", "second-derivative", "same-key",
                            "instances", "resume", "forms"})
    CHECK(names(j, "ok").contains(check));
}

TEST_CASE("each check fails on the defect that it is there for, alone") {
  const std::string defect = GENERATE("load", "defaults", "edges", "random", "roles", "shapes", "f32", "first-derivative", "second-derivative",
                                      "same-key", "instances", "resume", "forms", "leaks");
  const auto j = report(defect);
  INFO(j.dump(1));
  if (names(report("none", {"--check", defect}), "not applicable").contains("leaks") && defect == "leaks") SKIP("this build counts no memory");
  CHECK(names(j, "failed") == std::set<std::string>{defect});
  CHECK(text_of(j, "failed").size() > 20);
}

TEST_CASE("a sound procedure passes the checks of runs") {
  const auto j = report("none", {}, kProcedure);
  INFO(j.dump(1));
  CHECK(names(j, "failed").empty());
  for (const char* check : {"load", "defaults", "edges", "random", "shapes", "same-key", "instances", "resume"}) CHECK(names(j, "ok").contains(check));
}

TEST_CASE("each check of runs fails on the defect that it is there for, alone") {
  const std::string defect = GENERATE("defaults", "edges", "random", "shapes", "same-key", "instances", "resume", "leaks");
  const auto j = report(defect, {}, kProcedure);
  INFO(j.dump(1));
  if (names(report("none", {"--check", defect}, kProcedure), "not applicable").contains("leaks") && defect == "leaks") SKIP("this build counts no memory");
  CHECK(names(j, "failed") == std::set<std::string>{defect});
}

TEST_CASE("a check ends when its time is over, and says where it was") {
  const auto j = report("timeout", {"--check", "defaults", "--timeout", "1"});
  CHECK_THAT(text_of(j, "failed"), ContainsSubstring("did not come to an end within 1 s with its defaults"));
}

TEST_CASE("tenon validate refuses what is no plugin, lists its checks, and prints a line for each") {
  CHECK_THAT(complaint(program({"validate", "/no/such.so"})), ContainsSubstring("/no/such.so: no such plugin file"));
  const Outcome plain = program({"validate", build_path("tests/plugins/plain_library.so")});
  CHECK(plain.code == 1);
  CHECK_THAT(plain.out, ContainsSubstring("FAILED load") && ContainsSubstring("not a Tenon plugin"));
  const Outcome list = program({"validate", "--list"});
  CHECK_THAT(list.out, ContainsSubstring("second-derivative"));
  const Outcome lines = program({"validate", kUnsound, "--check", "random"});
  INFO(lines.all());
  CHECK(lines.code == 0);
  CHECK_THAT(lines.out, ContainsSubstring("ok     loss 'unsound': random") && ContainsSubstring("draws, seed ") && ContainsSubstring("0 of 3 checks failed"));
}

}  // namespace tenon::test
