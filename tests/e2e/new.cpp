// tenon new: what it writes builds with a compiler alone, keeps the contract, and trains.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>

#include "tests/e2e/program.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;

// Writes the plugin and builds it with the command that was printed.
std::string built(const TempFolder& folder, const std::string& kind, const std::string& name) {
  const Outcome o = program({"new", kind, name, "--dir", folder.file(kind)});
  INFO(o.all());
  REQUIRE(o.code == 0);
  const size_t at = o.out.find("c++ ");
  REQUIRE(at != std::string::npos);
  const std::string command = o.out.substr(at, o.out.find('\n', at) - at);
  CHECK(command == "c++ -std=c++17 -O2 -shared -fPIC " + name + ".cpp -o " + name + ".so");
  INFO(command);
  REQUIRE(std::system(("cd '" + folder.file(kind) + "' && " + command + " -Wall -Wextra -Werror").c_str()) == 0);
  return folder.file(kind) + "/" + name + ".so";
}

const std::vector<std::string> kKinds{"loss",  "reweighter", "attack",    "optimizer", "parametrization", "router",
                                      "quantizer", "aggregator", "procedure", "module",    "kernel"};

}  // namespace

TEST_CASE("tenon new writes plugins of every kind that pass tenon validate") {
  const std::string kind = GENERATE(from_range(kKinds));
  const TempFolder folder;
  const std::string file = built(folder, kind, "first_try");
  const Outcome o = program({"validate", file, "--seed", "1"});
  INFO(o.all());
  CHECK(o.code == 0);
  CHECK_THAT(o.out, ContainsSubstring(kind + " 'first_try"));
}

TEST_CASE("plugins of tenon new share a process, and train a classifier of digits") {
  const TempFolder folder;
  const std::string loss = built(folder, "loss", "flat_error"), optimizer = built(folder, "optimizer", "heavy_ball");
  const std::string recipe = write_recipe(folder, "data { format: \"csv\" files: \"" + source_path("models/digits_mlp/digits.csv.gz") + "\" " + R"(
    options { target: "label" } test_split { how: "last" count: 450 } transform { id: "scale" options { factor: 0.0625 } }
    transform { id: "one_hot" options { column: "y" to: "wanted" } } }
    model { layer { mlp { hidden: 32 output: 10 } } }
    loss { id: "flat_error" bind { role: "target" to: "wanted" } }
    optimizer { id: "heavy_ball" options { lr: 0.5 } }
    metric { id: "accuracy" bind { role: "labels" to: "y" } }
    train { epochs: 6 batch_size: 32 } seed: 1)");
  const Outcome o = program({"train", recipe, "--plugin", loss, "--plugin", optimizer, "--json"});
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(o.json()["metrics"]["test/accuracy"] > 0.85);
}

TEST_CASE("tenon new overwrites nothing, and says which kinds there are") {
  const TempFolder folder;
  REQUIRE(program({"new", "loss", "mine", "--dir", folder.file("a")}).code == 0);
  CHECK_THAT(complaint(program({"new", "loss", "mine", "--dir", folder.file("a")})), ContainsSubstring("mine.cpp' is there already"));
  const Outcome second = program({"new", "optimizer", "other", "--dir", folder.file("a")});  // beside the same headers
  CHECK(second.code == 0);
  CHECK_THAT(second.out, !ContainsSubstring("tenon_plugin.h"));
  spill(folder.file("a") + "/tenon_plugin.hpp", "something else");
  CHECK_THAT(complaint(program({"new", "router", "third", "--dir", folder.file("a")})), ContainsSubstring("another version"));
  CHECK(!std::filesystem::exists(folder.file("a") + "/third.cpp"));
  CHECK_THAT(complaint(program({"new", "optimiser", "mine", "--dir", folder.file("a")})), ContainsSubstring("did you mean 'optimizer'?"));
  CHECK_THAT(complaint(program({"new", "loss", "My-Loss", "--dir", folder.file("a")})), ContainsSubstring("lower-case letters"));
}

}  // namespace tenon::test
