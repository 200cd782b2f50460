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
             int code = 2, const std::string& defect = {}, const std::string& loss = "defect") {
  const Outcome o = program({"train", linear_recipe(folder), "--plugin", file, "--set", "loss.id=" + loss,
                             "--out", folder.file("run")},
                            {.environment = {{"TENON_TEST_DEFECT", defect}}});
  has(complaint(o, code), parts);
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
  refused(folder, plugin("defect"), {"defect.so", "threw an exception out of its entry"}, 1,
          "throw_at_entry");
  for (const char* defect : {"throw_in_create", "throw_in_build", "out_of_memory_in_build"})
    refused(folder, plugin("defect"), {"loss 'defect'", "threw an exception"}, 1, defect);
  // The C++ layer catches them, and says what they said.
  const Outcome made =
      program({"train", linear_recipe(folder), "--plugin", plugin("throws"), "--set", "loss.id=throws",
               "--set", "loss.options.now=true", "--out", folder.file("run")});
  has(complaint(made, 1), {"loss 'throws'", "the tide is out"});
  refused(folder, plugin("throws"), {"loss 'throws'", "the tide is in"}, 1, "", "throws");
}

TEST_CASE("Plugins that return errors") {
  const TempFolder folder;
  refused(folder, plugin("defect"), {"defect.so", "refused to start"}, 2, "error_at_entry");
  refused(folder, plugin("defect"), {"loss 'defect'", "this loss wants a leap year"}, 2, "error_in_create");
  refused(folder, plugin("defect"),
          {"recipe.txtpb:3", "loss 'defect'", "the samples must be sorted by height"}, 2, "error_in_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "status 5"}, 1, "silent_error_in_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "status 12345"}, 1, "unknown_status_in_build");
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
  refused(folder, plugin("defect"), {"defect.so", "claims 4294967295 options"}, 1, "many_options");
  refused(folder, plugin("defect"), {"defect.so", "returned no table"}, 1, "no_table");
  refused(folder, plugin("defect"), {"defect.so", "'teleport/1'"}, 2, "unknown_required_op");
  refused(folder, plugin("defect"), {"loss 'defect'", "no build function"}, 1, "no_build");
  refused(folder, plugin("defect"), {"loss 'defect'", "emitted no loss"}, 1, "emits_nothing");
  refused(folder, plugin("defect"), {"loss 'defect'", "emitted before"}, 2, "emits_twice");
  refused(folder, plugin("defect"), {"loss 'defect'", "handle"}, 1, "foreign_handle");
  refused(folder, plugin("defect"), {"loss 'defect'", "bool"}, 1, "loss_of_booleans");
  refused(folder, plugin("defect"), {"loss 'defect'", "op"}, 2, "unknown_op");
  refused(folder, plugin("defect"), {"loss 'defect'", "matmul"}, 2, "wrong_shapes");
}

TEST_CASE("Damaged checkpoints are found, and the whole one is named") {
  const Trained t;
  const auto damaged = [&](const std::string& file, const std::string& how) {
    const std::string message = complaint(t.eval(), 1);
    has(message, {t.last + "/" + file, "is damaged", how, t.earlier + "' is whole"});
    CHECK(complaint(program({"train", t.recipe, "--out", t.run, "--resume"}), 1) == message);
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
  has(complaint(t.eval({"--set", "model.layer[0].linear.units=17"}), 1),
      {"another model", "'model.linear0.weight' is f32[16, 4], the model has f32[17, 4]"});
  has(complaint(t.eval({"--set", "model.layer[0].name=first"}), 1),
      {"another model", "'model.first.weight' is missing"});
  has(complaint(program({"train", t.recipe, "--out", t.run, "--resume", "--set", "optimizer.id=rmsprop"}), 1),
      {"another model", "optimizer/rmsprop"});
  CHECK(t.eval().code == 0);  // none of this changed it
  has(complaint(program({"eval", t.recipe, "--checkpoint", t.folder.file("none")})),
      {"no checkpoint", "none"});
  has(complaint(t.eval({"--split", "vla"})), {"no part 'vla'"});
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
  has(complaint(program({"train", t.recipe, "--out", t.recipe + "/run"})),
      {"can't make the folder", t.recipe + "/run", "Not a directory"});
  has(complaint(program({"train", t.recipe, "--out", "/proc/run"})), {"can't make the folder", "/proc/run"});
  has(complaint(program({"predict", t.recipe, "--checkpoint", t.run, "--out", t.recipe + "/p.csv"})),
      {"can't write", "p.csv"});
  has(complaint(program({"predict", t.recipe, "--checkpoint", t.run}, {.stdout_to = "/dev/full"}), 1),
      {"can't be written"});
  has(complaint(program({"eval", t.recipe, "--checkpoint", t.run}, {.stdout_to = "/dev/full"}), 1),
      {"can't be written"});
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
