// Mistakes in a recipe, on the command line and in data: one clear sentence, exit code 2, nothing written.
#include <zlib.h>

#include <catch2/catch_test_macros.hpp>

#include "tests/e2e/program.h"

using namespace tenon::test;
namespace fs = std::filesystem;

namespace {

// Trains and expects a complaint that contains each of `parts`; nothing may be left behind.
std::string refused(const TempFolder& folder, const std::string& recipe, const std::vector<std::string>& more,
                    const std::vector<std::string>& parts) {
  std::vector<std::string> arguments = {"train", recipe, "--out", folder.file("run")};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const std::string message = complaint(program(arguments));
  INFO(message);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(message.find(part) != std::string::npos);
  }
  CHECK_FALSE(fs::exists(folder.file("run")));
  return message;
}

struct Mistake {
  std::string assignment;
  std::vector<std::string> parts;
};

std::string csv_recipe(const std::string& extra = "") {
  return R"(data { format: "csv" files: "table.csv" )" + extra + R"( }
model { layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "sgd" options { lr: 0.1 } }
train { steps: 3 batch_size: 4 }
)";
}

// MNIST's format: two zeros, type, rank, sizes, bytes.
std::string idx(std::vector<uint32_t> sizes, const std::string& content) {
  std::string bytes = {'\0', '\0', '\x08', static_cast<char>(sizes.size())};
  for (const uint32_t n : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(n >> shift & 0xff);
  return bytes + content;
}

std::string idx_recipe() {
  return R"(data { format: "idx" files: ["images", "labels"] source: "https://example.org/digits" }
model { layer { flatten {} } layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "sgd" options { lr: 0.1 } }
train { steps: 3 batch_size: 4 }
)";
}

void gzip(const std::string& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) == static_cast<int>(bytes.size()));
  gzclose(file);
}

}  // namespace

TEST_CASE("Typing mistakes in a recipe") {
  const TempFolder folder;
  const std::string good = blobs_recipe();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return write_recipe(folder, text);
  };
  refused(folder, with("optimizer {", "optimiser {"), {},
          {"recipe.txtpb:4", "'optimiser'", "did you mean 'optimizer'?"});
  refused(folder, with("units: 16", "unit: 16"), {}, {"recipe.txtpb:2", "'unit'", "did you mean 'units'?"});
  refused(folder, with("\"cross_entropy\"", "\"cros_entropy\""), {},
          {"recipe.txtpb:3", "no loss 'cros_entropy'", "did you mean 'cross_entropy'?"});
  refused(folder, with("\"adamw\"", "\"addamw\""), {},
          {"recipe.txtpb:4", "no optimizer 'addamw'", "did you mean 'adamw'?"});
  refused(folder, with("lr: 0.01", "weigth_decay: 0.01"), {},
          {"recipe.txtpb:4", "'weigth_decay'", "did you mean 'weight_decay'?"});
  refused(folder, with("lr: 0.01", "lr: -1"), {}, {"recipe.txtpb:4", "'lr' is -1", "it must be"});
  refused(folder, with("lr: 0.01", "lr: \"fast\""), {}, {"recipe.txtpb:4", "'lr' must be a number"});
  refused(folder, with("\"synthetic\"", "\"synthetik\""), {},
          {"recipe.txtpb:1", "'synthetik'", "did you mean 'synthetic'?"});
  refused(folder, with("\"blobs\"", "\"blob\""), {}, {"recipe.txtpb:1", "'blob'", "did you mean 'blobs'?"});
  refused(folder, with("batch_size: 32", "batch_size: 0"), {},
          {"recipe.txtpb:5", "batch_size must be at least 1"});
  refused(folder, with("units: 16", "units: -2"), {}, {"recipe.txtpb:2", "units must be at least 1, not -2"});
  refused(folder, with("{ units: 16", "{ units: sixteen"), {}, {"recipe.txtpb:2"});
  refused(folder, with("train {", "train "), {}, {"recipe.txtpb:5"});
  refused(folder, with("loss { id: \"cross_entropy\" }", ""), {}, {"loss"});
}

TEST_CASE("Mistakes in what overrides a recipe") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, blobs_recipe());
  const std::vector<Mistake> mistakes = {
      {"trian.steps=5", {"'trian'", "did you mean 'train'?"}},
      {"train.step=5", {"'step'", "did you mean 'steps'?"}},
      {"train.steps=many", {"train.steps", "'many'"}},
      {"train.steps=0", {"train.steps must be at least 1"}},
      {"train.steps", {"train.steps"}},
      {"loss.id=focall", {"no loss 'focall'", "did you mean 'focal'?"}},
      {"optimizer.options.learning_rate=0.1", {"unknown option 'learning_rate'", "lr"}},
      {"optimizer.options.lr=nan", {"lr"}},
      {"loss.options.reduction=average", {"reduction", "'average'", "mean"}},
      {"optimizer.schedule.id=cosin", {"'cosin'", "did you mean 'cosine'?"}},
      {"device=gpu", {"'gpu'", "cpu"}},
      {"metric.id=acuracy", {"'acuracy'", "did you mean 'accuracy'?"}},
      {"procedure.id=fti", {"'fti'", "fit"}},
      {"loss.bind.role=labels", {"bind"}},
  };
  for (const Mistake& m : mistakes) {
    CAPTURE(m.assignment);
    refused(folder, recipe, {"--set", m.assignment}, m.parts);
  }
  refused(folder, folder.file("nothing.txtpb"), {}, {"nothing.txtpb"});
}

TEST_CASE("Mistakes on the command line") {
  CHECK(complaint(program({})).find("a command is missing") == 0);
  CHECK(complaint(program({"trian"})).find("no command 'trian' (did you mean 'train'?)") == 0);
  CHECK(complaint(program({"train"})).find("recipe is required") != std::string::npos);
  CHECK(complaint(program({"train", "r", "--step", "4"}))
            .find("no option '--step' (did you mean '--steps'?)") != std::string::npos);
  CHECK(complaint(program({"train", "r", "--threads", "0"}))
            .find("--threads: must be a number of at least 1, not '0'") != std::string::npos);
  CHECK(complaint(program({"eval", "r"})).find("--checkpoint is required") != std::string::npos);
}

TEST_CASE("Options are checked before data is read") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, idx_recipe());  // its data is not there
  refused(folder, recipe, {"--set", "optimizer.options.lr=-1"}, {"'lr' is -1"});
  refused(folder, recipe, {"--set", "loss.options.smoothing=0.1"},
          {"unknown option 'smoothing'", "label_smoothing"});
}

TEST_CASE("Data that can't be read") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, idx_recipe());
  refused(
      folder, recipe, {},
      {"data file 'images' not found", folder.file("images"), "https://example.org/digits", "TENON_DATA"});

  const std::string images = idx({6, 2, 2}, std::string(24, '\x10')),
                    labels = idx({6}, std::string("\0\1\2\0\1\2", 6));
  spill(folder.file("images"), images);
  spill(folder.file("labels"), labels);
  const Outcome good = program({"train", recipe, "--out", folder.file("good")});
  INFO(good.all());
  REQUIRE(good.code == 0);

  spill(folder.file("images"), images.substr(0, images.size() - 5));
  refused(folder, recipe, {}, {folder.file("images"), "truncated"});
  spill(folder.file("images"), images.substr(0, 6));
  refused(folder, recipe, {}, {folder.file("images")});
  spill(folder.file("images"), "");
  refused(folder, recipe, {}, {folder.file("images")});
  spill(folder.file("images"), "PK\3\4" + images.substr(4));
  refused(folder, recipe, {}, {folder.file("images"), "magic"});
  spill(folder.file("images"), idx({0xffffffff, 0xffffffff, 0xffffffff}, "x"));
  refused(folder, recipe, {}, {folder.file("images")});
  spill(folder.file("images"), images);
  spill(folder.file("labels"), idx({5}, std::string(5, '\0')));
  refused(folder, recipe, {}, {folder.file("labels"), "5 labels"});

  spill(folder.file("labels"), labels);
  gzip(folder.file("whole.gz"), images);
  const std::string packed = slurp(folder.file("whole.gz"));
  spill(folder.file("images"), packed);
  CHECK(program({"train", recipe, "--out", folder.file("packed")}).code == 0);
  spill(folder.file("images"), packed.substr(0, packed.size() / 2));
  refused(folder, recipe, {}, {folder.file("images")});
  std::string flipped = packed;
  flipped[packed.size() - 6] = static_cast<char>(flipped[packed.size() - 6] ^ 0x55);  // its checksum
  spill(folder.file("images"), flipped);
  refused(folder, recipe, {}, {folder.file("images")});
}

TEST_CASE("Tables with mistakes") {
  const TempFolder folder;
  const std::string recipe = write_recipe(folder, csv_recipe());
  const auto table = [&](const std::string& text) { spill(folder.file("table.csv"), text); };
  const std::string good = "a,b,y\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n";
  table(good + "9,10\n");
  refused(folder, recipe, {}, {"table.csv:6", "2", "3"});
  table(good + "9,ten,1\n");
  refused(folder, recipe, {}, {"table.csv:6", "'b'", "'ten'"});
  table(good + "9,nan,1\n");
  refused(folder, recipe, {}, {"table.csv:6", "'b'"});
  table(good + "9,inf,1\n");
  refused(folder, recipe, {}, {"table.csv", "b"});
  table("");
  refused(folder, recipe, {}, {"table.csv"});
  table("a,b,y\n");
  refused(folder, recipe, {}, {"table.csv"});
  table(good);
  refused(folder, write_recipe(folder, csv_recipe(R"(options { target: "z" })")), {},
          {"recipe.txtpb:1", "no column 'z'"});
  refused(folder, write_recipe(folder, csv_recipe(R"(options { seperator: ";" })")), {},
          {"recipe.txtpb:1", "'seperator'"});
  refused(folder, write_recipe(folder, csv_recipe(R"(test_split { count: 10 })")), {}, {"recipe.txtpb:1"});
  refused(folder, write_recipe(folder, csv_recipe(R"(transform { id: "standardise" })")), {},
          {"recipe.txtpb:1", "did you mean 'standardize'?"});
  // Labels that the training part does not have.
  spill(folder.file("test.csv"), "a,b,y\n1,2,7\n");
  refused(folder, write_recipe(folder, csv_recipe(R"(test_files: "test.csv")")), {}, {"test.csv", "7"});
  // Not a number after a transform either: a kept hole.
  table(good + "9,,1\n");
  refused(folder, write_recipe(folder, csv_recipe(R"(options { missing: "keep" })")), {},
          {"recipe.txtpb:1", "NaN", "b"});
}

TEST_CASE("Labels out of range") {
  const TempFolder folder;
  spill(folder.file("images"), idx({4, 2, 2}, std::string(16, '\x10')));
  spill(folder.file("labels"), idx({4}, std::string("\0\1\7\1", 4)));
  const std::string recipe = write_recipe(folder, R"(data { format: "idx" files: ["images", "labels"] }
model { layer { flatten {} } layer { linear { units: 3 } } }
loss { id: "cross_entropy" }
optimizer { id: "sgd" options { lr: 0.1 } }
train { steps: 3 batch_size: 4 }
)");
  refused(folder, recipe, {}, {"7", "3"});
}

TEST_CASE("Data, model and loss that do not fit") {
  const TempFolder folder;
  const auto images = [&](const std::string& layers,
                          const std::string& loss = "loss { id: \"cross_entropy\" }") {
    return write_recipe(folder, "data { format: \"synthetic\" options { kind: \"images\" } }\nmodel { " +
                                    layers + " }\n" + loss +
                                    "\noptimizer { id: \"sgd\" options { lr: 0.1 } }\ntrain { steps: 2 }\n");
  };
  refused(folder, images("layer { embedding { vocab: 3 dim: 4 } }"), {}, {"recipe.txtpb:2", "embedding"});
  refused(folder, images("layer { flatten {} } layer { conv2d { channels: 2 kernel: 3 } }"), {},
          {"recipe.txtpb:2", "conv2d"});
  refused(folder, images("layer { conv2d { channels: 2 kernel: 9 } }"), {}, {"recipe.txtpb:2", "conv2d"});
  refused(folder, images("layer { flatten {} } layer { reshape { shape: [3, 5] } }"), {},
          {"recipe.txtpb:2", "reshape"});
  refused(folder, images("layer { conv2d { channels: 2 kernel: 3 } }"), {},
          {"recipe.txtpb:3", "cross_entropy"});
  refused(folder, images("layer { flatten {} } layer { linear {} }", "loss { id: \"mse\" }"), {},
          {"recipe.txtpb:3", "mse"});
  refused(folder,
          images("layer { flatten {} } layer { linear {} }",
                 "loss { id: \"cross_entropy\" bind { role: \"labels\" to: \"z\" } }"),
          {}, {"recipe.txtpb:3", "'z'"});
  refused(folder, images("layer { flatten {} } layer { linear { units: 2 } }"), {}, {"2"});
}
