// tenon train and the commands around it: what they print, what they leave, that their figures agree.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <random>

#include "tests/e2e/program.h"

using namespace tenon::test;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Two kinds of animals, told apart by weight, in a CSV file; the last 30 rows are for the test. Returns the
// kinds by row.
std::vector<std::string> write_animals(const TempFolder& folder) {
  std::mt19937 random(7);
  std::normal_distribution<double> noise(0, 1);
  std::vector<std::string> kinds;
  std::string text = "weight,length,kind\n";
  for (int i = 0; i < 120; ++i) {
    kinds.push_back(i % 3 == 0 ? "cat" : "dog");
    const double centre = i % 3 == 0 ? -1 : 1;
    text += std::to_string(centre + noise(random)) + "," + std::to_string(noise(random)) + "," +
            kinds.back() + "\n";
  }
  spill(folder.file("animals.csv"), text);
  return kinds;
}

constexpr const char* kAnimals =
    R"(data { format: "csv" files: "animals.csv" test_split { how: "last" count: 30 } }
model { layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "adam" options { lr: 0.05 } }
train { epochs: 10 }
)";

}  // namespace

TEST_CASE("digits_mlp learns, and leaves a run folder") {
  const TempFolder folder;
  const std::string run = folder.file("run");
  std::vector<std::string> arguments = {
      "train",          source_path("models/digits_mlp"), "--out", run, "--json", "--threads", "1", "--set",
      "train.epochs=30"};
  if (const char* device = std::getenv("TENON_TEST_DEVICE"))
    arguments.insert(arguments.end(), {"--device", device});
  const Outcome o = program(arguments);
  INFO(o.all());
  REQUIRE(o.code == 0);
  const nlohmann::json j = o.json();
  for (const char* key : {"metrics", "steps", "seconds", "step_ms", "peak_mb", "checkpoint"})
    CHECK(j.contains(key));
  CHECK(j["metrics"]["test/accuracy"] > 0.9);
  CHECK(j["metrics"].contains("test/loss"));
  CHECK(j["metrics"].contains("train/loss"));
  CHECK(j["steps"] == 30 * 43);  // 1,347 rows in batches of 32
  CHECK(j["step_ms"] > 0);
  CHECK(j["seconds"] > 0);
  CHECK(j["peak_mb"] > 1);
  CHECK(j["checkpoint"] == run + "/checkpoints/step-00001290");

  CHECK(fs::exists(run + "/checkpoints/step-00001290/tensors.safetensors"));
  CHECK(fs::exists(run + "/checkpoints/step-00001290/state.pb"));
  CHECK(leftovers(run).empty());
  bool events = false;
  for (const auto& entry : fs::directory_iterator(run))
    events |= entry.path().filename().string().find("tfevents") != std::string::npos;
  CHECK(events);
  CHECK(metric_lines(run).back()["test/accuracy"] == j["metrics"]["test/accuracy"]);

  // The resolved recipe is a recipe: it says what was overridden, and trains again.
  const std::string resolved = slurp(run + "/recipe.txtpb");
  CHECK(resolved.find("epochs: 30") != std::string::npos);
  CHECK(program({"dump", run + "/recipe.txtpb", "--forward"},
                {.environment = {{"TENON_DATA", source_path("models/digits_mlp")}}})
            .code == 0);
}

TEST_CASE("Fields are overridden, and a run ends after the steps asked for") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  const Outcome o = program({"train", recipe, "--out", folder.file("run"), "--json", "--steps", "7", "--set",
                             "optimizer.options.lr=0.5", "--set", "train.batch_size=50", "--set", "seed=3"});
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(o.json()["steps"] == 7);
  const std::string resolved = slurp(folder.file("run/recipe.txtpb"));
  for (const char* text : {"lr: 0.5", "batch_size: 50", "seed: 3"})
    CHECK(resolved.find(text) != std::string::npos);
  const auto losses = step_losses(folder.file("run"));
  CHECK(losses.size() == 7);
  CHECK(metric_lines(folder.file("run"))[0]["step/learning_rate"] == 0.5);
}

TEST_CASE("Piped progress is plain lines, and ends with the figures") {
  const TempFolder folder;
  const Outcome o = program({"train", write_recipe(folder, blobs_recipe()), "--out", folder.file("run")});
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(o.err.empty());
  CHECK(o.out.find('\r') == std::string::npos);
  CHECK(o.out.find("step 40/40  loss ") != std::string::npos);
  CHECK(o.out.find("samples/s") != std::string::npos);
  CHECK(o.out.find("\ntest accuracy: ") != std::string::npos);
}

TEST_CASE("A folder that holds a run is not written over") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  REQUIRE(program({"train", recipe, "--out", folder.file("run"), "--steps", "3"}).code == 0);
  const std::string before = slurp(folder.file("run/metrics.jsonl"));
  const std::string message = complaint(program({"train", recipe, "--out", folder.file("run")}));
  CHECK(message.find("already holds a run") != std::string::npos);
  CHECK(message.find("--resume") != std::string::npos);
  CHECK(slurp(folder.file("run/metrics.jsonl")) == before);
}

TEST_CASE("eval and predict agree with train") {
  const TempFolder folder;
  const auto kinds = write_animals(folder);
  const std::string recipe = write_recipe(folder, kAnimals), run = folder.file("run");
  const Outcome trained = program({"train", recipe, "--out", run, "--json"});
  INFO(trained.all());
  REQUIRE(trained.code == 0);
  const nlohmann::json metrics = trained.json()["metrics"];
  CHECK(metrics["test/accuracy"] > 0.6);

  SECTION("eval") {
    const Outcome o = program({"eval", recipe, "--checkpoint", run, "--json"});
    INFO(o.all());
    REQUIRE(o.code == 0);
    CHECK(o.json()["metrics"]["test/accuracy"] == metrics["test/accuracy"]);
    CHECK(o.json()["metrics"]["test/loss"] == metrics["test/loss"]);
    const Outcome plain =
        program({"eval", recipe, "--checkpoint", trained.json()["checkpoint"], "--split", "train"});
    INFO(plain.all());
    CHECK(plain.code == 0);
    CHECK(plain.out.starts_with("train accuracy: "));
  }
  SECTION("predict") {
    const Outcome csv = program({"predict", recipe, "--checkpoint", run});
    INFO(csv.all());
    REQUIRE(csv.code == 0);
    const auto rows = lines_of(csv.out);
    REQUIRE(rows.size() == 31);
    CHECK(rows[0] == "id,prediction,output0,output1");
    const Outcome jsonl = program(
        {"predict", recipe, "--checkpoint", run, "--format", "jsonl", "--out", folder.file("p.jsonl")});
    REQUIRE(jsonl.code == 0);
    const auto objects = lines_of(slurp(folder.file("p.jsonl")));
    REQUIRE(objects.size() == 30);
    int right = 0;
    for (size_t i = 0; i < objects.size(); ++i) {
      const auto j = nlohmann::json::parse(objects[i]);
      CHECK(j["id"] == 90 + static_cast<int>(i));  // the row in the file
      const std::string prediction = j["prediction"];
      right += prediction == kinds[90 + i];
      const double cat = j["outputs"][0], dog = j["outputs"][1];
      CHECK(prediction == (cat >= dog ? "cat" : "dog"));
      CHECK(rows[i + 1].starts_with(std::to_string(90 + i) + "," + prediction + ","));
    }
    CHECK_THAT(right / 30.0, WithinAbs(metrics["test/accuracy"], 1e-9));
  }
}

TEST_CASE("plugins, describe, dump and version say what there is") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  const Outcome plugins = program({"plugins"});
  CHECK(plugins.code == 0);
  for (const char* id : {"cross_entropy", "bce_with_logits", "mse", "mae", "huber", "hinge", "focal",
                         "kl_div", "sgd", "adam", "adamw", "rmsprop", "adagrad"})
    CHECK(plugins.out.find(std::string(" ") + id + " ") != std::string::npos);
  const Outcome focal = program({"describe", "focal"});
  CHECK(focal.code == 0);
  for (const char* text : {"loss focal", "arXiv", "logits", "gamma", "default 2"})
    CHECK(focal.out.find(text) != std::string::npos);
  CHECK(program({"describe", "op:matmul"}).out.find("transpose_a") != std::string::npos);
  CHECK(complaint(program({"describe", "focl"})).find("did you mean 'focal'?") != std::string::npos);
  const Outcome text = program({"dump", recipe});
  CHECK(text.code == 0);
  CHECK(text.out.find("= matmul(") != std::string::npos);
  const Outcome forward = program({"dump", recipe, "--forward"});
  CHECK(forward.out.size() < text.out.size());
  const Outcome dot = program({"dump", recipe, "--format", "dot"});
  CHECK(dot.out.starts_with("digraph "));
  CHECK(dot.out.find("->") != std::string::npos);
  CHECK(program({"version"}).out.starts_with("tenon 0.1.0, plugin ABI 1."));
  CHECK(program({"--help"}).code == 0);
}

TEST_CASE("Losses written in C and C++ train a model") {
  const TempFolder folder;
  const std::string recipe = write_recipe(
      folder, R"(data { format: "synthetic" options { kind: "linear" n: 200 } test_options { part: 1 } }
model { layer { linear {} } }
optimizer { id: "sgd" options { lr: 0.1 } }
loss { options { scale: 4 } }
train { epochs: 20 }
)");
  const auto train = [&](const std::string& language) {
    const Outcome o =
        program({"train", recipe, "--plugin", build_path("examples/" + language + "/hello_loss.so"), "--set",
                 "loss.id=hello_" + language, "--out", folder.file(language), "--json"});
    INFO(o.all());
    REQUIRE(o.code == 0);
    return o.json()["metrics"];
  };
  const auto c = train("c"), cpp = train("cpp");
  CHECK(c["test/r2"] > 0.95);
  CHECK_THAT(c["test/loss"], WithinRel(double(cpp["test/loss"]), 1e-5));
  CHECK(cpp.contains("test/largest_error"));  // the metric that the C++ one reports
}

TEST_CASE("Lazy and eager runs give the same losses, the reference device nearly the same") {
  const TempFolder folder;
  const std::string recipe = write_recipe(
      folder,
      GENERATE(
          std::string(R"(data { format: "synthetic" options { kind: "blobs" n: 200 } }
model { layer { linear { units: 16 } } layer { gelu {} } layer { layer_norm {} } layer { dropout { rate: 0.2 } } layer { linear {} } }
loss { id: "cross_entropy" options { label_smoothing: 0.1 } }
optimizer { id: "adamw" clip_norm: 1 schedule { id: "cosine" options { warmup_steps: 5 } } }
train { steps: 25 log_every: 1 }
)"),
          std::string(
              R"(data { format: "synthetic" options { kind: "images" n: 64 } transform { id: "scale" options { factor: 0.004 } } }
model { layer { conv2d { channels: 4 kernel: 3 padding: 1 } } layer { batch_norm {} } layer { relu {} } layer { max_pool { kernel: 2 } }
        layer { global_avg_pool {} } layer { linear {} } }
loss { id: "focal" }
optimizer { id: "sgd" options { lr: 0.05 momentum: 0.9 } }
train { steps: 12 log_every: 1 }
)"),
          std::string(R"(data { format: "synthetic" options { kind: "tokens" n: 400 classes: 7 } context: 8 }
model { layer { gpt { layers: 1 heads: 2 width: 16 } } }
loss { id: "cross_entropy" }
optimizer { id: "rmsprop" }
train { steps: 12 batch_size: 4 log_every: 1 }
)")));
  const auto train = [&](const std::string& name, const std::string& device, const std::string& eager) {
    std::vector<std::string> arguments = {"train", recipe, "--out", folder.file(name)};
    if (!device.empty()) arguments.insert(arguments.end(), {"--device", device});
    const Outcome o = program(arguments, {.environment = {{"TENON_EAGER", eager}}});
    INFO(o.all());
    REQUIRE(o.code == 0);
    return step_losses(folder.file(name));
  };
  const auto lazy = train("lazy", "", "0"), eager = train("eager", "", "1"),
             reference = train("reference", "reference", "0");
  CHECK(lazy.size() >= 12);
  REQUIRE(eager.size() == lazy.size());
  REQUIRE(reference.size() == lazy.size());
  for (const auto& [step, loss] : lazy) {
    CAPTURE(step);
    CHECK(eager.at(step) == loss);
    CHECK_THAT(reference.at(step), WithinRel(loss, 1e-3));
  }
}
