// A run that is interrupted, in whatever way, goes on as if it had not been.
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <memory>
#include <random>
#include <thread>

#include "tests/e2e/program.h"

using namespace tenon::test;
namespace fs = std::filesystem;

namespace {

// Dropout, a schedule, momentum and shuffling: all that has to go on where it was.
std::string long_recipe(int steps, int checkpoint_every) {
  return R"(data { format: "synthetic" options { kind: "blobs" n: 200 } }
model { layer { linear { units: 16 } } layer { batch_norm {} } layer { relu {} } layer { dropout {} } layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "adamw" schedule { id: "cosine" options { warmup_steps: 10 } } }
train { steps: )" +
         std::to_string(steps) + R"( batch_size: 32 log_every: 1 eval_every: 0 }
checkpoint { every: )" +
         std::to_string(checkpoint_every) + " }\n";
}

int64_t saved_step(const std::string& run) {
  const std::string name = slurp(run + "/checkpoints/LATEST");
  return name.size() > 5 ? std::stoll(name.substr(5)) : -1;
}

// Starts a run (or goes on with it) and waits for a checkpoint newer than the last; the child is still
// training then.
std::unique_ptr<Child> train_past_a_checkpoint(const std::string& recipe, const std::string& run) {
  const int64_t before = saved_step(run);
  std::vector<std::string> arguments = {"train", recipe, "--out", run};
  if (before >= 0) arguments.push_back("--resume");
  auto child = std::make_unique<Child>(arguments, Launch{});
  for (int i = 0; i < 20000 && child->running() && saved_step(run) <= before; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(saved_step(run) > before);
  return child;
}

// After the interruptions: goes on to `steps` and compares with a run that nothing disturbed.
void check_goes_on(const TempFolder& folder, const std::string& recipe, const std::string& run,
                   int64_t steps) {
  const Outcome resumed =
      program({"train", recipe, "--out", run, "--resume", "--steps", std::to_string(steps)});
  INFO(resumed.all());
  REQUIRE(resumed.code == 0);
  const Outcome straight = program({"train", recipe, "--out", folder.file("straight"), "--steps",
                                    std::to_string(steps), "--set", "checkpoint.every=0"});
  INFO(straight.all());
  REQUIRE(straight.code == 0);
  const auto expected = step_losses(folder.file("straight"));
  CHECK(static_cast<int64_t>(expected.size()) == steps);
  CHECK(step_losses(run) == expected);
  CHECK(final_tensors(run) == final_tensors(folder.file("straight")));
  CHECK(leftovers(run).empty());
}

}  // namespace

TEST_CASE("Half a run and the rest give the same losses and the same bytes as the whole") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, long_recipe(40, 0));
  const Outcome half = program({"train", recipe, "--out", folder.file("run"), "--steps", "20"});
  INFO(half.all());
  REQUIRE(half.code == 0);
  CHECK(saved_step(folder.file("run")) == 20);
  check_goes_on(folder, recipe, folder.file("run"), 40);

  // A finished run has nothing left to do.
  const Outcome again = program({"train", recipe, "--out", folder.file("run"), "--resume", "--json"});
  INFO(again.all());
  CHECK(again.code == 0);
  CHECK(again.json()["steps"] == 40);
}

TEST_CASE("A kill at any moment leaves a checkpoint to go on from") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, long_recipe(1000000, 7)), run = folder.file("run");
  std::random_device entropy;
  const unsigned seed = entropy();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 4; ++i) {
    const auto child = train_past_a_checkpoint(recipe, run);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30000));
    child->signal(SIGKILL);
    CHECK(child->wait().signal == SIGKILL);
    const Outcome usable = program({"eval", recipe, "--checkpoint", run, "--split", "train"});
    INFO(usable.all());
    CHECK(usable.code == 0);
  }
  check_goes_on(folder, recipe, run, saved_step(run) + 10);
}

TEST_CASE("Ctrl-C writes a checkpoint and says how to go on") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, long_recipe(1000000, 50)), run = folder.file("run");
  const auto child = train_past_a_checkpoint(recipe, run);
  child->signal(SIGINT);
  const Outcome o = child->wait();
  const std::string message = complaint(o, 1);
  const int64_t step = saved_step(run);
  CHECK(message == "stopped after step " + std::to_string(step) + "; continue with --resume\n");
  check_goes_on(folder, recipe, run, step + 10);
}

TEST_CASE("Resuming without a run says so") {
  const TempFolder folder;
  const std::string message = complaint(
      program({"train", write_recipe(folder, blobs_recipe()), "--out", folder.file("none"), "--resume"}));
  CHECK(message.find("there is no checkpoint in") != std::string::npos);
  CHECK_FALSE(fs::exists(folder.file("none")));
}

TEST_CASE("A resumed run remembers the best value so far") {
  const TempFolder folder;
  // The rate is 0.5 in the first ten steps and so large afterwards that the loss only grows.
  const std::string recipe = write_recipe(folder, R"(data { format: "synthetic" options { kind: "blobs" n: 200 noise: 3 } test_split { fraction: 0.3 } }
model { layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "sgd" options { lr: 0.5 } schedule { id: "step" options { gamma: 4000 every: 10 } } }
train { steps: 20 batch_size: 32 eval_every: 5 }
checkpoint { every: 5 best: "test/loss" keep: 1 }
)");
  const std::string run = folder.file("run");
  const auto best = [&] { return slurp(run + "/checkpoints/BEST"); };
  const Outcome first = program({"train", recipe, "--out", run, "--steps", "10"});
  INFO(first.all());
  REQUIRE(first.code == 0);
  const std::string before = best();
  REQUIRE(!before.empty());
  const Outcome resumed = program({"train", recipe, "--out", run, "--resume"});
  INFO(resumed.all());
  REQUIRE(resumed.code == 0);
  CHECK(best() == before);
}
