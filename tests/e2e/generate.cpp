// tenon generate: text from a trained language model, and what it says when it can't make any.
#include <catch2/catch_test_macros.hpp>

#include "tests/e2e/program.h"

using namespace tenon::test;

namespace {

constexpr const char* kScale = "do re mi fa so la ti ";

// A model that has learnt to go on with the scale.
struct Singer {
  TempFolder folder;
  std::string recipe, run = folder.file("run");
  Singer() {
    std::string song;
    for (int i = 0; i < 40; ++i) song += kScale;
    spill(folder.file("song.txt"), song);
    recipe = write_recipe(folder, R"(data { format: "text" files: "song.txt" context: 12 }
model { layer { gpt { layers: 1 heads: 2 width: 16 } } }
loss { id: "cross_entropy" }
optimizer { id: "adamw" options { lr: 0.02 } }
train { steps: 120 batch_size: 8 }
)");
    const Outcome o = program({"train", recipe, "--out", run});
    INFO(o.all());
    REQUIRE(o.code == 0);
  }
  Outcome sing(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"generate", recipe, "--checkpoint", run};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return program(arguments);
  }
};

}  // namespace

TEST_CASE("generate goes on with what the model has learnt") {
  const Singer singer;
  const Outcome likeliest = singer.sing({"--prompt", "la ti do re", "--temperature", "0", "--tokens", "31"});
  INFO(likeliest.all());
  CHECK(likeliest.code == 0);
  CHECK(likeliest.out == "la ti do re mi fa so la ti do re mi fa so \n");

  const auto drawn = [&](const std::string& seed) {
    const Outcome o = singer.sing({"--prompt", "do", "--temperature", "3", "--seed", seed, "--tokens", "40"});
    CHECK(o.code == 0);
    return o.out;
  };
  CHECK(drawn("1") == drawn("1"));
  CHECK(drawn("1") != drawn("2"));
  // Among one there is no choice, at any temperature.
  CHECK(
      singer.sing({"--prompt", "la ti do re", "--temperature", "3", "--top-k", "1", "--tokens", "31"}).out ==
      likeliest.out);

  CHECK(complaint(singer.sing({"--prompt", "do re MI"})).find("'M'") != std::string::npos);
  CHECK(complaint(singer.sing({"--prompt", ""})).find("--prompt: must not be empty") != std::string::npos);
  CHECK(complaint(singer.sing({"--set", "model.layer[0].gpt.width=32"})).find("another model") !=
        std::string::npos);
  const std::string state = slurp(singer.run + "/checkpoints/step-00000120/state.pb");
  spill(singer.run + "/checkpoints/step-00000120/state.pb", state.substr(1));
  CHECK(complaint(singer.sing({})).find("state.pb' is damaged") != std::string::npos);
}

TEST_CASE("generate wants a model of text") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  CHECK(complaint(program({"generate", recipe, "--checkpoint", folder.file("none")}))
            .find("not a token stream") != std::string::npos);
}
