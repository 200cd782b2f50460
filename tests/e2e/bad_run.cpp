// Plugins, checkpoints and disks that fail, and a loss that explodes: the run stops with one clear sentence,
// and what was there before is still good.
#include <sys/mount.h>

#include <catch2/catch_test_macros.hpp>
#include <csignal>

#include "tests/e2e/program.h"

using namespace tenon::test;
namespace fs = std::filesystem;

namespace {

void has(const std::string& message, const std::vector<std::string>& parts) {
  INFO(message);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(message.find(part) != std::string::npos);
  }
}

std::string plugin(const std::string& name) { return build_path("tests/plugins/" + name + ".so"); }

std::string linear_recipe(const TempFolder& folder) {
  return write_recipe(folder, R"(data { format: "synthetic" options { kind: "linear" n: 64 } }
model { layer { linear {} } }
loss { id: "mse" }
optimizer { id: "sgd" options { lr: 0.01 } }
train { steps: 5 log_every: 1 }
)");
}

// Trains with this plugin file and expects a complaint; nothing may be left behind.
void refused(const TempFolder& folder, const std::string& file, const std::vector<std::string>& parts,
             const std::string& defect = {}, const std::string& loss = "defect") {
  const Outcome o = program({"train", linear_recipe(folder), "--plugin", file, "--set", "loss.id=" + loss,
                             "--out", folder.file("run")},
                            {.environment = {{"TENON_TEST_DEFECT", defect}}});
  has(complaint(o), parts);
  CHECK_FALSE(fs::exists(folder.file("run")));
}

void patch(const std::string& path, size_t at, char value) {
  std::string bytes = slurp(path);
  REQUIRE(at < bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ value);
  spill(path, bytes);
}

// A trained run: checkpoints after steps 35 and 40.
struct Trained {
  TempFolder folder;
  std::string recipe = write_recipe(folder, blobs_recipe("checkpoint { every: 35 }\n")),
              run = folder.file("run");
  std::string last = run + "/checkpoints/step-00000040", earlier = run + "/checkpoints/step-00000035";
  Trained() {
    const Outcome o = program({"train", recipe, "--out", run});
    INFO(o.all());
    REQUIRE(o.code == 0);
  }
  Outcome eval(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"eval", recipe, "--checkpoint", run};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return program(arguments);
  }
};

}  // namespace

TEST_CASE("Files that are no plugins") {
  const TempFolder folder;
  refused(folder, folder.file("none.so"), {"none.so", "no such plugin file"});
  refused(folder, folder.path(), {folder.path(), "a plugin must be a regular file"});
  spill(folder.file("text.so"),
        "once upon a time, in a land of tensors, there lived a library that was none at all\n");
  refused(folder, folder.file("text.so"), {"text.so", "not a shared library"});
  refused(folder, plugin("plain_library"), {"plain_library.so", "not a Tenon plugin", "tenon_plugin_v1"});
  refused(folder, plugin("abi_v2"), {"abi_v2.so", "built for plugin ABI v2", "this host speaks v1"});

  std::string bytes = slurp(plugin("defect"));
  bytes[18] =
      static_cast<char>(bytes[18] == 62 ? 183 : 62);  // e_machine: x86-64 or AArch64, whichever this is not
  spill(folder.file("foreign.so"), bytes);
  refused(folder, folder.file("foreign.so"), {"foreign.so", "another architecture"});

  bytes = slurp(plugin("defect"));
  for (const size_t size : {size_t{30}, size_t{64}, size_t{1000}, bytes.size() / 2, bytes.size() - 1}) {
    CAPTURE(size);
    spill(folder.file("short.so"), bytes.substr(0, size));
    refused(folder, folder.file("short.so"), {"short.so"});
  }
  has(complaint(program({"train", linear_recipe(folder), "--plugin-path", folder.file("nowhere")})),
      {"nowhere", "no such plugin folder"});
}

TEST_CASE("A folder may hold files that are no plugins, and says why with -v") {
  const TempFolder folder;
  spill(folder.file("broken.so"), "not a library");
  CHECK(program({"train", linear_recipe(folder), "--plugin-path", folder.path(), "--out", folder.file("run")})
            .code == 0);
  const Outcome o = program({"plugins", "-v", "--plugin-path", folder.path()});
  CHECK(o.code == 0);
  CHECK(o.out.find("broken.so: not a shared library") != std::string::npos);
}

TEST_CASE("Plugins that throw") {
  const TempFolder folder;
  refused(folder, plugin("defect"), {"defect.so", "threw an exception out of its entry"}, "throw_at_entry");
  for (const char* defect : {"throw_in_create", "throw_in_build", "out_of_memory_in_build"})
    refused(folder, plugin("defect"), {"loss 'defect'", "threw an exception"}, defect);
  // The C++ layer catches them, and says what they said.
  const Outcome made =
      program({"train", linear_recipe(folder), "--plugin", plugin("throws"), "--set", "loss.id=throws",
               "--set", "loss.options.now=true", "--out", folder.file("run")});
  has(complaint(made), {"loss 'throws'", "the tide is out"});
  refused(folder, plugin("throws"), {"loss 'throws'", "the tide is in"}, "", "throws");
}

TEST_CASE("Plugins that return errors") {
  const TempFolder folder;
  refused(folder, plugin("defect"), {"defect.so", "refused to start"}, "error_at_entry");
  refused(folder, plugin("defect"), {"loss 'defect'", "this loss wants a leap year"}, "error_in_create");
  refused(folder, plugin("defect"),
          {"recipe.txtpb:3", "loss 'defect'", "the samples must be sorted by height"}, "error_in_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "status 5"}, "silent_error_in_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "status 12345"}, "unknown_status_in_build");
}

TEST_CASE("Plugins that declare or do what can't be") {
  const TempFolder folder;
  // The same file without a defect is a loss like any other.
  const Outcome sound = program({"train", linear_recipe(folder), "--plugin", plugin("defect"), "--set",
                                 "loss.id=defect", "--out", folder.file("sound")});
  INFO(sound.all());
  REQUIRE(sound.code == 0);
  // Each defect of the tables is a unit test of the loader (tests/plugin); these are on the way through the
  // program.
  refused(folder, plugin("defect"), {"defect.so", "claims 4294967295 options"}, "many_options");
  refused(folder, plugin("defect"), {"defect.so", "returned no table"}, "no_table");
  refused(folder, plugin("defect"), {"defect.so", "'teleport/1'"}, "unknown_required_op");
  refused(folder, plugin("defect"), {"loss 'defect'", "no build function"}, "no_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "emitted no loss"}, "emits_nothing");
  refused(folder, plugin("defect"), {"loss 'defect'", "emitted before"}, "emits_twice");
  refused(folder, plugin("defect"), {"loss 'defect'", "handle"}, "foreign_handle");
  refused(folder, plugin("defect"), {"loss 'defect'", "bool"}, "loss_of_booleans");
  refused(folder, plugin("defect"), {"loss 'defect'", "op"}, "unknown_op");
  refused(folder, plugin("defect"), {"loss 'defect'", "matmul"}, "wrong_shapes");
}

TEST_CASE("Damaged checkpoints are found, and the whole one is named") {
  const Trained t;
  const auto damaged = [&](const std::string& file, const std::string& how) {
    const std::string message = complaint(t.eval());
    has(message, {t.last + "/" + file, "is damaged", how, t.earlier + "' is whole"});
    CHECK(complaint(program({"train", t.recipe, "--out", t.run, "--resume"})) == message);
    CHECK(complaint(program({"predict", t.recipe, "--checkpoint", t.run})) == message);
  };
  const std::string tensors = slurp(t.last + "/tensors.safetensors"), state = slurp(t.last + "/state.pb");
  SECTION("truncated tensors") {
    spill(t.last + "/tensors.safetensors", tensors.substr(0, tensors.size() / 2));
    damaged("tensors.safetensors", "bytes instead of");
  }
  SECTION("other tensors") {
    patch(t.last + "/tensors.safetensors", tensors.size() - 3, 0x40);
    damaged("tensors.safetensors", "checksum");
  }
  SECTION("truncated state") {
    spill(t.last + "/state.pb", state.substr(0, state.size() - 9));
    damaged("state.pb", "checksum");
  }
  SECTION("other state") {
    patch(t.last + "/state.pb", state.size() / 2, 0x01);
    damaged("state.pb", "checksum");
  }
  SECTION("what is said to do helps") {
    fs::remove(t.last + "/state.pb");
    CHECK(t.eval().code == 0);
    fs::remove_all(t.last);
    const Outcome o = program({"train", t.recipe, "--out", t.run, "--resume", "--json"});
    INFO(o.all());
    CHECK(o.code == 0);
    CHECK(step_losses(t.run).size() == 40);
    CHECK(slurp(t.last + "/tensors.safetensors") == tensors);
  }
}

TEST_CASE("Checkpoints of another model") {
  const Trained t;
  has(complaint(t.eval({"--set", "model.layer[0].linear.units=17"})),
      {"another model", "'model.linear0.weight' is f32[16, 4], the model has f32[17, 4]"});
  has(complaint(t.eval({"--set", "model.layer[0].name=first"})),
      {"another model", "'model.first.weight' is missing"});
  has(complaint(program({"train", t.recipe, "--out", t.run, "--resume", "--set", "optimizer.id=rmsprop"})),
      {"another model", "optimizer/rmsprop"});
  CHECK(t.eval().code == 0);  // none of this changed it
  has(complaint(program({"eval", t.recipe, "--checkpoint", t.folder.file("none")})),
      {"no checkpoint", "none"});
  has(complaint(t.eval({"--split", "vla"})), {"no part 'vla'"});
}

TEST_CASE("Models that begin with trained parameters") {
  const Trained t;
  const auto begin = [&](const std::string& from, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"train",
                                          t.recipe,
                                          "--out",
                                          t.folder.file("next"),
                                          "--json",
                                          "--steps",
                                          "1",
                                          "--set",
                                          "optimizer.options.lr=1e-9",
                                          "--set",
                                          "model.init_from=" + from};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return program(arguments);
  };
  const double accuracy = nlohmann::json::parse(t.eval({"--json"}).out)["metrics"]["test/accuracy"];
  const std::string tensors = t.last + "/tensors.safetensors", bytes = slurp(tensors);
  for (const std::string& from : {t.run, tensors}) {
    const auto good = begin(from);
    INFO(good.all());
    REQUIRE(good.code == 0);
    CHECK(good.json()["metrics"]["test/accuracy"] == accuracy);
    fs::remove_all(t.folder.file("next"));
  }

  has(complaint(begin(tensors, {"--set", "model.layer[0].linear.units=17"})),
      {"model.init_from", "tensors.safetensors", "another model"});
  has(complaint(begin(t.folder.file("none.safetensors"))),
      {"model.init_from", "can't read '" + t.folder.file("none.safetensors"), "No such file"});
  spill(tensors, bytes.substr(0, bytes.size() - 4));
  has(complaint(begin(tensors)), {"model.init_from", "tensors.safetensors", "truncated"});
  has(complaint(begin(t.run)),
      {"model.init_from", "tensors.safetensors' is damaged", t.earlier + "' is whole"});
  spill(tensors, "once upon a time");
  has(complaint(begin(tensors)), {"model.init_from", "tensors.safetensors", "not a safetensors file"});
}

TEST_CASE("A full disk stops the run and leaves the last checkpoint whole") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe("checkpoint { every: 10 }\n")),
                    run = folder.file("run");
  REQUIRE(program({"train", recipe, "--out", run, "--steps", "10"}).code == 0);
  const std::string before = final_tensors(run);
  const uint64_t size = before.size();

  SECTION("in the middle of a checkpoint") {
    const Outcome o = program({"train", recipe, "--out", run, "--resume"}, {.largest_file = size - 100});
    const std::string message = complaint(o, 1);
    has(message, {"can't write", "tensors.safetensors"});
  }
  SECTION("on a real file system, if one can be mounted") {
    const std::string small = folder.file("small");
    fs::create_directory(small);
    if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=48k") != 0)
      return;  // not allowed here; the limit above remains
    fs::copy(run, small + "/run", fs::copy_options::recursive);
    const Outcome o = program({"train", recipe, "--out", small + "/run", "--resume", "--set",
                               "model.layer[0].linear.units=16", "--set", "checkpoint.keep=100", "--set",
                               "checkpoint.every=1"});
    has(complaint(o, 1), {"can't write", "No space left on device"});
    CHECK(leftovers(small).empty());
    CHECK(program({"eval", recipe, "--checkpoint", small + "/run"}).code == 0);
    umount(small.c_str());
  }
  CHECK(leftovers(run).empty());
  CHECK(final_tensors(run) == before);
  CHECK(program({"eval", recipe, "--checkpoint", run}).code == 0);
}

TEST_CASE("Folders and outputs that can't be written") {
  const Trained t;
  const auto fails = [](const Outcome& o, const std::vector<std::string>& parts) {
    has(complaint(o, 1), parts);
  };
  fails(program({"train", t.recipe, "--out", t.recipe + "/run"}),
        {"can't make the folder", t.recipe + "/run", "Not a directory"});
  fails(program({"train", t.recipe, "--out", "/proc/run"}), {"can't make the folder", "/proc/run"});
  const std::vector<std::string> predict = {"predict", t.recipe, "--checkpoint", t.run};
  auto to_file = predict;
  to_file.insert(to_file.end(), {"--out", t.recipe + "/p.csv"});
  fails(program(to_file), {"can't write", "p.csv", "Not a directory"});
  fails(program(predict, {.stdout_to = "/dev/full"}), {"can't be written"});
  fails(program({"eval", t.recipe, "--checkpoint", t.run}, {.stdout_to = "/dev/full"}), {"can't be written"});
}

TEST_CASE("A loss that explodes stops the run, with the step and the last checkpoint") {
  const TempFolder folder;
  const std::string recipe = linear_recipe(folder), run = folder.file("run");
  const std::vector<std::string> train = {
      "train", recipe, "--out", run, "--set", "train.steps=200", "--set", "checkpoint.every=5"};
  auto wild = train;
  wild.insert(wild.end(), {"--set", "optimizer.options.lr=20"});
  const std::string message = complaint(program(wild), 1);
  const auto last = metric_lines(run).back();
  const int64_t step = last["step"];
  has(message, {"the loss became ", "in step " + std::to_string(step + 1), run + "/checkpoints/step-",
                "--resume", "smaller learning rate"});
  auto tamed = train;
  tamed.insert(tamed.end(),
               {"--resume", "--steps", std::to_string(step + 3), "--set", "optimizer.options.lr=0.001"});
  const Outcome o = program(tamed);
  INFO(o.all());
  CHECK(o.code == 0);

  // Without a checkpoint yet.
  auto fresh = wild;
  fresh[3] = folder.file("fresh");
  fresh.insert(fresh.end(), {"--set", "checkpoint.every=0"});
  has(complaint(program(fresh), 1), {"the loss became ", "try a smaller learning rate or clip_norm"});
}
