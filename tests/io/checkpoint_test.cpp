#include "core/train/checkpoint.h"

#include <sys/wait.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "core/io/file.h"
#include "tests/io/temp_folder.h"

using namespace tenon;
using namespace tenon::test;
using Catch::Matchers::ContainsSubstring;

namespace {

Checkpoint sample(int64_t step, size_t numbers = 5) {
  Checkpoint c;
  c.step = step;
  c.epoch = 2;
  c.seed = 0xffffffffffffffffu;
  c.recipe = "seed: 3\n";
  c.tensors.emplace_back("model.w",
                         HostArray::of<float>(std::vector<float>(numbers, static_cast<float>(step))));
  c.tensors.emplace_back("model.n", HostArray::of<int64_t>({step, -1}));
  c.scalars["adamw.0/count"] = static_cast<double>(step);
  c.blobs["loss"] = std::string("\0\xff bytes", 8);
  c.history = {{1, "val/loss", 0.1 + 0.2}, {2, "val/loss", -1e300}};
  return c;
}

std::string saved(const std::string& dir, const Checkpoint& c) {
  auto path = save_checkpoint(dir, c);
  INFO(path.status().message());
  REQUIRE(path);
  return *path;
}

void check_equal(const Checkpoint& a, const Checkpoint& b) {
  CHECK(a.step == b.step);
  CHECK(a.epoch == b.epoch);
  CHECK(a.seed == b.seed);
  CHECK(a.recipe == b.recipe);
  CHECK(a.scalars == b.scalars);
  CHECK(a.blobs == b.blobs);
  CHECK(a.history == b.history);
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (const auto& [name, array] : a.tensors) {
    const auto found = match_tensors(b.tensors, {{name, array.dtype(), array.shape()}});
    REQUIRE(found);
    CHECK(std::equal(array.data(), array.data() + array.size_bytes(), found->front()->data()));
  }
}

}  // namespace

TEST_CASE("a checkpoint loads as it was saved", "[checkpoint]") {
  const TempFolder folder;
  const std::string dir = folder.file("run/checkpoints");
  const std::string path = saved(dir, sample(20));
  CHECK(path == dir + "/step-00000020");
  for (const std::string& from : {path, path + "/", dir, folder.file("run")}) {
    INFO(from);
    const auto c = load_checkpoint(from);
    INFO(c.status().message());
    REQUIRE(c);
    check_equal(*c, sample(20));
  }
  Checkpoint empty;
  check_equal(*load_checkpoint(saved(dir, empty)), empty);
  // The same step again replaces.
  saved(dir, sample(20, 9));
  CHECK(load_checkpoint(path)->tensors[0].second.numel() + load_checkpoint(path)->tensors[1].second.numel() ==
        11);
}

TEST_CASE("latest, best and pruning", "[checkpoint]") {
  const TempFolder folder;
  CHECK_THAT(latest_checkpoint(folder.path()).status().message(),
             ContainsSubstring("there is no checkpoint in"));
  CHECK_THAT(load_checkpoint(folder.path()).status().message(),
             ContainsSubstring("there is no checkpoint in"));
  CHECK_THAT(load_checkpoint(folder.file("none")).status().message(),
             ContainsSubstring("there is no checkpoint"));
  CHECK_THAT(best_checkpoint(folder.path()).status().message(), ContainsSubstring("marked as the best"));
  for (int64_t step : {100, 200, 300, 100000000}) saved(folder.path(), sample(step));
  CHECK(*latest_checkpoint(folder.path()) == folder.file("step-100000000"));
  REQUIRE(mark_best(folder.file("step-00000100"), 0.75));
  CHECK(*best_checkpoint(folder.path()) == folder.file("step-00000100"));
  spill(folder.file(".saving-step-00000400-1"), "left over");
  REQUIRE(prune_checkpoints(folder.path(), 2));
  CHECK(folder.list() == "BEST LATEST step-00000100 step-00000300 step-100000000");
  // Going on from an earlier step gives up the later ones.
  saved(folder.path(), sample(310));
  CHECK(*latest_checkpoint(folder.path()) == folder.file("step-00000310"));
  REQUIRE(prune_checkpoints(folder.path(), 2));
  CHECK(folder.list() == "BEST LATEST step-00000100 step-00000300 step-00000310");
  // A lost pointer.
  std::filesystem::remove(folder.file("LATEST"));
  CHECK(*latest_checkpoint(folder.path()) == folder.file("step-00000310"));
}

TEST_CASE("damage is found, named, and a whole one is offered", "[checkpoint]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const TempFolder folder;
  saved(folder.path(), sample(10));
  const std::string path = saved(folder.path(), sample(20));
  for (const std::string file : {"/tensors.safetensors", "/state.pb"}) {
    const std::string good = slurp(path + file);
    for (int i = 0; i < 40; ++i) {
      std::string bad = good;
      if (i % 2)
        bad.resize(random() % bad.size());
      else
        bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
      spill(path + file, bad);
      const std::string message = load_checkpoint(path).status().message();
      CHECK_THAT(message, ContainsSubstring(path + file) && ContainsSubstring("damaged"));
      CHECK_THAT(message,
                 ContainsSubstring("the checkpoint '" + folder.file("step-00000010") + "' is whole"));
    }
    spill(path + file, good);
    REQUIRE(load_checkpoint(path));
  }
  std::filesystem::remove(path + "/tensors.safetensors");
  CHECK_THAT(load_checkpoint(path).status().message(), ContainsSubstring("No such file"));
  std::filesystem::remove_all(folder.file("step-00000010"));
  CHECK_THAT(load_checkpoint(path).status().message(), ContainsSubstring("no other whole checkpoint"));
}

TEST_CASE("a checkpoint of another model is refused with the first differences", "[checkpoint]") {
  const Checkpoint c = sample(1);
  const auto match = [&](std::vector<Wanted> wanted) { return match_tensors(c.tensors, wanted); };
  const auto good = match({{"model.n", DType::i64, {2}}, {"model.w", DType::f32, {5}}});
  REQUIRE(good);
  CHECK((*good)[0]->numel() == 2);
  const auto error = [&](std::vector<Wanted> wanted) { return match(std::move(wanted)).status().message(); };
  CHECK_THAT(error({{"model.w", DType::f32, {4, 2}}}),
             ContainsSubstring("of another model: 'model.w' is f32[5], the model has f32[4, 2]"));
  CHECK_THAT(error({{"model.w", DType::f64, {5}}}), ContainsSubstring("the model has f64[5]"));
  CHECK_THAT(error({{"model.v", DType::f32, {5}}}),
             ContainsSubstring("'model.v' is missing (there is 'model.w')"));
  std::vector<Wanted> many(9, {"model.other.thing", DType::f32, {1}});
  CHECK_THAT(error(many), ContainsSubstring("and 5 more"));
}

TEST_CASE("a kill at any moment leaves a whole checkpoint", "[checkpoint]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const TempFolder folder;
  saved(folder.path(), sample(1, 20000));
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int64_t step = 2;; step = step % 5 + 1)
        if (!save_checkpoint(folder.path(), sample(step, 20000)) || !prune_checkpoints(folder.path(), 1))
          ::_exit(1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(3000 + random() % 30000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));  // it did not end by itself, with an error
    const auto c = load_checkpoint(folder.path());
    INFO(folder.list() << ": " << c.status().message());
    REQUIRE(c);
    check_equal(*c, sample(c->step, 20000));
  }
  REQUIRE(prune_checkpoints(folder.path(), 1));
  CHECK(folder.list().find(".saving") == std::string::npos);
}

TEST_CASE("a folder that can't be written is an error and leaves nothing", "[checkpoint]") {
  const TempFolder folder;
  spill(folder.file("file"), "x");
  CHECK_THAT(save_checkpoint(folder.file("file/checkpoints"), sample(1)).status().message(),
             ContainsSubstring("can't make the folder") && ContainsSubstring("Not a directory"));
  CHECK(folder.list() == "file");
}
