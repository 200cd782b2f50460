#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>

#include "core/train/data_from_recipe.h"

using namespace tenon;
using Catch::Matchers::ContainsSubstring;

namespace {

// A folder that goes away.
struct TempFolder {
  std::filesystem::path path;
  TempFolder()
      : path(std::filesystem::temp_directory_path() / ("tenon_recipe_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path);
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  void write(const std::string& name, std::string_view text) const { std::ofstream(path / name) << text; }
};

Recipe recipe_in(const std::filesystem::path& folder, std::string_view text) {
  auto r = parse_recipe(text, (folder / "r.txtpb").string());
  INFO(r.status().message());
  REQUIRE(r);
  return std::move(r).value();
}
DataStream stream_of(const Recipe& r) {
  auto s = read_stream(r, 0, "");
  INFO(s.status().message());
  REQUIRE(s);
  return std::move(s).value();
}

}  // namespace

TEST_CASE("digits are read, split and batched as the recipe says", "[recipe][data]") {
  const auto recipe = load_recipe(std::string(TENON_SOURCE_DIR) + "/models/digits_mlp");
  INFO(recipe.status().message());
  REQUIRE(recipe);
  const DataStream s = stream_of(*recipe);
  CHECK(s.train->size() == 1347);
  CHECK(s.test->size() == 450);
  CHECK_FALSE(s.val);
  CHECK(s.outputs == 10);
  CHECK(s.part("test") == s.test);
  const auto train = train_batcher(*recipe, 0, s, 1);
  REQUIRE(train);
  CHECK((*train)->steps_per_epoch() == 43);
  const auto batch = (*train)->make(0);
  REQUIRE(batch);
  const HostArray& x = batch->find("x")->second;
  CHECK(x.shape() == Shape{32, 64});
  for (int64_t i = 0; i < x.numel(); ++i) REQUIRE((x.at(i) >= 0 && x.at(i) <= 1));  // 0..16, scaled
  const auto test = eval_batcher(*recipe, 0, s, s.test);
  REQUIRE(test);
  CHECK((*test)->steps_per_epoch() == 2);
  const auto some = eval_batcher(*recipe, 0, s, s.train, 2);
  REQUIRE(some);
  CHECK((*some)->steps_per_epoch() == 2);
  const auto last = (*some)->make(1);
  REQUIRE(last);
  CHECK(last->find("id")->second.at(255) > 1300);  // spread over the part
}

TEST_CASE("parts have their own files and options, and share the training part's schema", "[recipe][data]") {
  const TempFolder folder;
  folder.write("a.csv", "c,y\nred,no\nblue,yes\n");
  folder.write("b.csv", "c;y\nblue;yes\n");
  const Recipe r = recipe_in(folder.path, R"(data {
    format: "csv" files: "a.csv" test_files: "b.csv"
    options { target: "y" categorical: "c" } test_options { delimiter: ";" }
  })");
  const DataStream s = stream_of(r);
  CHECK(s.test->columns().find("x")->second.shape() == Shape{1, 2});
  CHECK(s.test->columns().find("y")->second.at(0) == 1);
  CHECK(s.outputs == 2);
  // A label that the training part lacks.
  folder.write("b.csv", "c;y\nblue;maybe\n");
  CHECK_THAT(read_stream(r, 0, "").status().message(),
             ContainsSubstring("r.txtpb:2: ") && ContainsSubstring("maybe"));
}

TEST_CASE("token streams split in pieces and batch as windows", "[recipe][data]") {
  const Recipe r = recipe_in("", R"(data { format: "synthetic" options { kind: "tokens" n: 1000 classes: 7 }
    val_split { how: "last" fraction: 0.2 } context: 16 } train { batch_size: 4 })");
  const DataStream s = stream_of(r);
  CHECK(s.train->size() == 800);
  CHECK(s.val->size() == 200);
  CHECK(s.vocab == 7);
  CHECK(s.outputs == 7);
  const auto batch = (*train_batcher(r, 0, s, 3))->make(0);
  REQUIRE(batch);
  CHECK(batch->find("x")->second.shape() == Shape{4, 16});
  const auto eval = eval_batcher(r, 0, s, s.val, 1);
  REQUIRE(eval);
  CHECK((*eval)->steps_per_epoch() == 1);
}

TEST_CASE("what is wrong with data is said with the recipe's line", "[recipe][data]") {
  const TempFolder folder;
  const auto error = [&](std::string_view text) {
    return read_stream(recipe_in(folder.path, text), 0, "").status().message();
  };
  CHECK_THAT(error("data {\n format: \"csv\"\n files: \"no.csv\"\n source: \"https://example.org\" }"),
             ContainsSubstring("r.txtpb:3: data file 'no.csv' not found") &&
                 ContainsSubstring("https://example.org"));
  CHECK_THAT(error("data {\n format: \"cvs\" files: \"a\" }"), ContainsSubstring("did you mean 'csv'?"));
  CHECK_THAT(error("data { format: \"synthetic\" options { kindd: \"blobs\" } }"),
             ContainsSubstring("r.txtpb:1: ") && ContainsSubstring("did you mean 'kind'?"));
  CHECK_THAT(error("data { format: \"synthetic\"\n transform { id: \"scal\" } }"),
             ContainsSubstring("r.txtpb:2: ") && ContainsSubstring("did you mean 'scale'?"));
  CHECK_THAT(error("data { format: \"synthetic\"\n test_split { count: 100000 } }"),
             ContainsSubstring("r.txtpb:2: "));
  CHECK_THAT(error("data { format: \"synthetic\" options { kind: \"tokens\" } }"),
             ContainsSubstring("needs 'context'"));
  CHECK_THAT(
      error(
          "data { format: \"synthetic\" options { kind: \"tokens\" } context: 4 \n val_split { count: 9 } }"),
      ContainsSubstring("r.txtpb:2: ") && ContainsSubstring("how: \"last\""));
  folder.write("nan.csv", "a,y\n1,0\nnan,1\n");
  CHECK_THAT(error("data { format: \"csv\" files: \"nan.csv\" options { missing: keep } }"),
             ContainsSubstring("r.txtpb:1: ") && ContainsSubstring("a"));
  CHECK(error("data { format: \"csv\" files: \"nan.csv\" options { missing: keep } transform { id: "
              "\"impute\" } }")
            .empty());
}
