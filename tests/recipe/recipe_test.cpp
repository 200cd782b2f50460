#include "core/train/recipe.h"

#include <google/protobuf/util/message_differencer.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>
#include <random>

#include "core/train/recipe_text.h"

using namespace tenon;
using Catch::Matchers::ContainsSubstring;
using google::protobuf::util::MessageDifferencer;

namespace {

constexpr std::string_view kRecipe = R"(# a comment
data { format: "csv" files: ["a.csv", "b.csv"] options { target: "y" header: false } transform { id: "scale" } }
model {
  layer { linear { units: 8 } }
  layer { relu {} }
}
loss { id: "cross_entropy" }
loss { id: "mse" name: "distill" weight: 0.5 }
optimizer {
  id: "sgd"
  options {
    lr: 0.01  # of everything
    nesterov: true, steps: 3; big: 9007199254740993
    class_weights: [1, 2.5]
    names: ["a", 'b']
    reduction: mean
    empty: []
    low: -inf
    text: "two \"quoted\" words\n" "and more"
  }
}
train { steps: 10 }
)";

Recipe parsed(std::string_view text = kRecipe) {
  auto r = parse_recipe(text, "dir/r.txtpb");
  INFO(r.status().message());
  REQUIRE(r);
  return std::move(r).value();
}

std::string error_of(std::string_view text) {
  auto r = parse_recipe(text, "r.txtpb");
  if (r) return check_recipe(*r).message();
  return r.status().message();
}

std::string after(std::string_view find, std::string_view replace) {
  std::string text(kRecipe);
  const size_t at = text.find(find);
  REQUIRE(at != std::string::npos);
  return text.replace(at, find.size(), replace);
}

}  // namespace

TEST_CASE("options of any name are read with their types", "[recipe]") {
  const Recipe r = parsed();
  Options o = to_options(r.proto.optimizer(0).options());
  CHECK(std::get<double>(o["lr"]) == 0.01);
  CHECK(std::get<bool>(o["nesterov"]));
  CHECK(std::get<int64_t>(o["steps"]) == 3);
  CHECK(std::get<int64_t>(o["big"]) == 9007199254740993);
  CHECK(std::get<std::vector<double>>(o["class_weights"]) == std::vector<double>{1, 2.5});
  CHECK(std::get<std::vector<std::string>>(o["names"]) == std::vector<std::string>{"a", "b"});
  CHECK(std::get<std::string>(o["reduction"]) == "mean");
  CHECK(std::get<std::vector<double>>(o["empty"]).empty());
  CHECK(std::get<double>(o["low"]) < -1e300);
  CHECK(std::get<std::string>(o["text"]) == "two \"quoted\" words\nand more");
  CHECK(check_recipe(r).message().empty());
  CHECK(r.dir == "dir");
}

TEST_CASE("where() gives the line of a field or of what would hold it", "[recipe]") {
  const Recipe r = parsed();
  CHECK(r.where("data.format") == "dir/r.txtpb:2");
  CHECK(r.where("model.layer[1].relu") == "dir/r.txtpb:5");
  CHECK(r.where("loss[1].weight") == "dir/r.txtpb:8");
  CHECK(r.where("optimizer.options.lr") == "dir/r.txtpb:12");
  CHECK(r.where("optimizer[0].options.class_weights") == "dir/r.txtpb:14");
  CHECK(r.where("optimizer.options.missing") == "dir/r.txtpb:11");
  CHECK(r.where("train.epochs") == "dir/r.txtpb:22");
  CHECK(r.where("seed") == "dir/r.txtpb");
  CHECK(r.where("") == "dir/r.txtpb");
}

TEST_CASE("a printed recipe reads back equal", "[recipe]") {
  const Recipe r = parsed();
  const std::string text = to_text(r.proto);
  INFO(text);
  CHECK_THAT(text, ContainsSubstring("lr: 0.01\n"));
  CHECK_THAT(text, ContainsSubstring("class_weights: [1, 2.5]"));
  CHECK(MessageDifferencer::Equals(parsed(text).proto, r.proto));
  CHECK(to_text(parsed(text).proto) == text);
}

TEST_CASE("random option values read back equal", "[recipe]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  proto::Recipe recipe;
  auto* options = recipe.add_loss()->mutable_options();
  for (int i = 0; i < 200; ++i) {
    auto* o = options->add_entry();
    o->set_name("o" + std::to_string(i));
    const auto real = [&] { return std::bit_cast<double>(random() & 0xbfffffffffffffffu); };  // finite
    const auto text = [&] {
      std::string s;
      for (uint64_t n = random() % 9; n > 0; --n) s += static_cast<char>(random() % 127 + 1);
      return s;
    };
    switch (random() % 6) {
      case 0:
        o->set_flag(random() % 2 == 0);
        break;
      case 1:
        o->set_integer(static_cast<int64_t>(random()));
        break;
      case 2:
        o->set_real(real());
        break;
      case 3:
        o->set_text(text());
        break;
      case 4:
        o->mutable_reals();
        for (uint64_t n = random() % 4; n > 0; --n) o->mutable_reals()->add_value(real());
        break;
      default:
        for (uint64_t n = random() % 4 + 1; n > 0; --n) o->mutable_texts()->add_value(text());
    }
  }
  const std::string printed = to_text(recipe);
  INFO(printed);
  CHECK(MessageDifferencer::Equals(parsed(printed).proto, recipe));
}

TEST_CASE("wrong text gives the line and one clear sentence", "[recipe]") {
  CHECK(error_of("seed: 1\noptimiser { id: \"sgd\" }") ==
        "r.txtpb:2: unknown field 'optimiser' (did you mean 'optimizer'?)");
  CHECK(error_of("train { epoch: 3 }") ==
        "r.txtpb:1: unknown field 'epoch' in train (did you mean 'epochs'?)");
  CHECK_THAT(error_of("optimizer {\n id: \"sgd\"\n lr: 0.1 }"),
             ContainsSubstring("r.txtpb:3: unknown field 'lr' in optimizer; options are written inside it as "
                               "options { lr: .. }"));
  CHECK_THAT(error_of("precision: f16"),
             ContainsSubstring("precision can't be f16") && ContainsSubstring("did you mean 'bf16'?"));
  CHECK_THAT(error_of("seed: 1\nseed: 2"), ContainsSubstring("r.txtpb:2: field 'seed' is given twice"));
  CHECK_THAT(error_of("seed: many"), ContainsSubstring("r.txtpb:1: expected a whole number, got"));
  CHECK_THAT(error_of("model { layer { relu {} gelu {} } }"),
             ContainsSubstring("'relu' and 'gelu' are in one layer"));
  CHECK_THAT(error_of("data { shuffle: maybe }"),
             ContainsSubstring("shuffle must be true or false, not 'maybe'"));
  CHECK_THAT(error_of("model { layer {"),
             ContainsSubstring("r.txtpb:1: expected") && ContainsSubstring("got"));
  CHECK_THAT(error_of("name: \"open"), ContainsSubstring("r.txtpb:1: "));
  // Inside options.
  CHECK_THAT(error_of("loss { options {\n a: 1\n a: 2 } }"),
             ContainsSubstring("r.txtpb:3: option 'a' is given twice"));
  CHECK_THAT(error_of("loss { options {\n a 1 } }"),
             ContainsSubstring("r.txtpb:2: option 'a' needs a colon"));
  CHECK_THAT(error_of("loss { options { a: }"), ContainsSubstring("option 'a' has no value"));
  CHECK_THAT(error_of("loss { options { a: [1, \"b\"] } }"), ContainsSubstring("mixes numbers and strings"));
  CHECK_THAT(error_of("loss { options { a: [true] } }"), ContainsSubstring("numbers or strings are needed"));
  CHECK_THAT(error_of("loss { options { a: [1 2] } }"), ContainsSubstring("needs a comma"));
  CHECK_THAT(error_of("loss { options { a: { b: 1 } } }"), ContainsSubstring("can't be a block"));
  CHECK_THAT(error_of("loss { options {\n\n a: 1"), ContainsSubstring("opened in line 1 is not closed"));
  CHECK_THAT(error_of("loss { options { a: 99999999999999999999 } }"),
             ContainsSubstring("too large for 64 bits"));
  CHECK_THAT(error_of("loss { options { 3: 4 } }"),
             ContainsSubstring("expected the name of an option, got '3'"));
  CHECK_THAT(error_of("loss { options { a: -true } }"), ContainsSubstring("a minus before 'true'"));
  // Nesting without end.
  std::string deep = "model {";
  for (int i = 0; i < 2000; ++i) deep += "layer { residual {";
  CHECK_THAT(error_of(deep), ContainsSubstring("r.txtpb:1: "));
}

TEST_CASE("no text crashes the reader", "[recipe]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 500; ++i) {
    std::string text(kRecipe);
    for (auto n = random() % 4 + 1; n > 0; --n) {
      const size_t at = random() % text.size();
      if (random() % 2)
        text[at] = static_cast<char>(random());
      else
        text.erase(at, random() % 10);
    }
    INFO(text);
    const auto r = parse_recipe(text, "r.txtpb");
    if (!r) CHECK_THAT(r.status().message(), ContainsSubstring("r.txtpb:"));
  }
}

TEST_CASE("a recipe that can't work is refused, with the place", "[recipe]") {
  CHECK(error_of(kRecipe).empty());
  CHECK(error_of(after("units: 8", "units: 0")) ==
        "r.txtpb:4: model[0].layer[0].linear.units must be at least 1, not 0");
  CHECK_THAT(
      error_of(after("relu {}", "dropout { rate: 1 }")),
      ContainsSubstring("r.txtpb:5: model[0].layer[1].dropout.rate must be at least 0 and below 1, not 1"));
  CHECK_THAT(error_of(after("relu {}", "")), ContainsSubstring("r.txtpb:5: this layer has no kind"));
  CHECK_THAT(error_of(after("steps: 10", "")),
             ContainsSubstring("r.txtpb:22: give train.epochs or train.steps"));
  CHECK_THAT(error_of(after("steps: 10", "steps: 10 epochs: 1")), ContainsSubstring("not both"));
  CHECK_THAT(error_of(after("id: \"mse\" name: \"distill\"", "id: \"cross_entropy\"")),
             ContainsSubstring("r.txtpb:8: two entries of 'loss' have the name 'cross_entropy'"));
  CHECK_THAT(error_of(after("id: \"sgd\"", "")),
             ContainsSubstring("r.txtpb:9: optimizer needs a field 'id'"));
  CHECK_THAT(error_of(after("id: \"sgd\"", "id: \"sgd\" params: \"(\"")),
             ContainsSubstring("r.txtpb:10: '(' is not a regular expression"));
  CHECK_THAT(error_of(after("id: \"sgd\"", "id: \"sgd\" schedule { id: \"cosin\" }")),
             ContainsSubstring("r.txtpb:10: no schedule 'cosin' (did you mean 'cosine'?)"));
  CHECK_THAT(error_of(after("id: \"sgd\"", "id: \"sgd\" schedule { id: \"cosine\" options { warmup: 3 } }")),
             ContainsSubstring("unknown option 'warmup' (did you mean 'warmup_steps'?)"));
  CHECK_THAT(error_of(after("files: [\"a.csv\", \"b.csv\"]", "")),
             ContainsSubstring("r.txtpb:2: data of format 'csv' needs 'files'"));
  CHECK_THAT(error_of(after("options { target", "test_split { fraction: 0.1 count: 3 } options { target")),
             ContainsSubstring("test_split needs either 'fraction' or 'count'"));
  CHECK_THAT(error_of(after("options { target", "val_split { fraction: 0.1 how: \"lst\" } options { target")),
             ContainsSubstring("a split can't be 'lst' (did you mean 'last'?)"));
  CHECK_THAT(
      error_of(after("id: \"cross_entropy\"",
                     "id: \"cross_entropy\" bind { role: \"logits\" to: \"modl.output\" }")),
      ContainsSubstring("r.txtpb:7: 'modl.output' names no model or data stream (did you mean 'model'?)"));
  CHECK_THAT(error_of(after("id: \"cross_entropy\"", "id: \"cross_entropy\" model: \"teacher\"")),
             ContainsSubstring("no model has the name 'teacher'"));
  CHECK_THAT(error_of(after("steps: 10", "steps: 10 batch_size: 0")),
             ContainsSubstring("train.batch_size must be at least 1, not 0"));
  CHECK_THAT(error_of(after("weight: 0.5", "weight: nan")), ContainsSubstring("must be a finite number"));
  CHECK_THAT(error_of(after("train {", "checkpoint { best: \"accuracy\" } train {")),
             ContainsSubstring("r.txtpb:22: checkpoint.best must be a split and a metric"));
  CHECK_THAT(error_of("train { epochs: 1 }"), ContainsSubstring("r.txtpb: the recipe has no 'data'"));
  CHECK_THAT(error_of(after("layer { relu {} }", "node { name: \"a\" }")),
             ContainsSubstring("both 'layer' and 'node'"));
}

TEST_CASE("graphs refer to nodes before them", "[recipe]") {
  const auto graph = [](std::string nodes) {
    return error_of(
        "data { format: \"synthetic\" } loss { id: \"mse\" } optimizer { id: \"sgd\" } train { epochs: 1 }\n"
        "model {" +
        nodes + "}");
  };
  CHECK(graph("node { name: \"a\" } node { name: \"b\" input: [\"x\", \"a\"] } output: \"b\"").empty());
  CHECK_THAT(
      graph("node { name: \"a\" input: \"b\" } node { name: \"b\" }"),
      ContainsSubstring("r.txtpb:2: node 'a' reads 'b', which is neither an input nor a node before it"));
  CHECK_THAT(graph("node { name: \"a\" } node { name: \"a\" }"),
             ContainsSubstring("two nodes or inputs have the name 'a'"));
  CHECK_THAT(graph("node { name: \"a\" } output: \"c\""), ContainsSubstring("no node has the name 'c'"));
  CHECK_THAT(graph("node { name: \"a\" join: \"ad\" }"), ContainsSubstring("did you mean 'add'?"));
  CHECK_THAT(graph("share_with: \"modell\""),
             ContainsSubstring("no model has the name 'modell' (did you mean 'model'?)"));
}

TEST_CASE("fields are set by their path", "[recipe]") {
  Recipe r = parsed();
  const auto set = [&](const std::string& s) {
    const Status status = set_field(r, s);
    INFO(s << " -> " << status.message());
    REQUIRE(status);
  };
  set("train.epochs=5");
  CHECK(r.proto.train().epochs() == 5);
  CHECK(r.where("train.epochs") == "--set train.epochs");
  set("optimizer.options.lr=0.5");
  set("optimizer.options.momentum=9");
  set("optimizer.options.class_weights=[3,4]");
  set("optimizer.options.file=/a/b.csv");
  set("optimizer.options.nesterov=false");
  Options o = to_options(r.proto.optimizer(0).options());
  CHECK(std::get<double>(o["lr"]) == 0.5);
  CHECK(std::get<int64_t>(o["momentum"]) == 9);
  CHECK(std::get<std::vector<double>>(o["class_weights"]) == std::vector<double>{3, 4});
  CHECK(std::get<std::string>(o["file"]) == "/a/b.csv");
  CHECK_FALSE(std::get<bool>(o["nesterov"]));
  CHECK(r.where("optimizer.options.lr") == "--set optimizer.options.lr");
  CHECK(r.where("optimizer.options.reduction") == "dir/r.txtpb:16");
  set("loss[1].weight=2");
  set("loss[distill].id=mae");
  set("loss[cross_entropy].weight=3");
  CHECK(r.proto.loss(1).weight() == 2);
  CHECK(r.proto.loss(1).id() == "mae");
  CHECK(r.proto.loss(0).weight() == 3);
  set("data.transform[0].options.factor=2");
  CHECK(std::get<int64_t>(to_options(r.proto.data(0).transform(0).options())["factor"]) == 2);
  set("data.files=c.csv");
  CHECK(r.proto.data(0).files_size() == 1);
  set("data.files=[\"a,1.csv\", b.csv]");
  CHECK(r.proto.data(0).files(0) == "a,1.csv");
  CHECK(r.proto.data(0).files(1) == "b.csv");
  set("data.files[2]=d.csv");
  CHECK(r.proto.data(0).files_size() == 3);
  set("data.files=[]");
  CHECK(r.proto.data(0).files_size() == 0);
  set("precision=f64");
  CHECK(r.proto.precision() == proto::Recipe::f64);
  set("name=a b = c");
  CHECK(r.proto.name() == "a b = c");
  set("model.layer[2]={linear {units: 4}}");
  CHECK(r.proto.model(0).layer(2).linear().units() == 4);
  set("optimizer={id: \"adam\" options { lr: 1 }}");
  CHECK(r.proto.optimizer(0).options().entry_size() == 1);
  CHECK(r.where("optimizer.options.lr") == "--set optimizer");
  set("loss[0].options={gamma: 2}");
  CHECK(std::get<int64_t>(to_options(r.proto.loss(0).options())["gamma"]) == 2);
  set("checkpoint.keep=7");
  CHECK(r.proto.checkpoint().keep() == 7);
}

TEST_CASE("a wrong --set says why and changes nothing", "[recipe]") {
  Recipe r = parsed();
  const proto::Recipe before = r.proto;
  const auto error = [&](const std::string& s) {
    const std::string message = set_field(r, s).message();
    CHECK(MessageDifferencer::Equals(r.proto, before));
    CHECK_THAT(message, ContainsSubstring("--set " + s));
    return message;
  };
  CHECK_THAT(error("optimiser.id=sgd"),
             ContainsSubstring("unknown field 'optimiser' (did you mean 'optimizer'?)"));
  CHECK_THAT(error("train.epoch=1"),
             ContainsSubstring("unknown field 'epoch' in train (did you mean 'epochs'?)"));
  CHECK_THAT(error("train.epochs=many"), ContainsSubstring("epochs must be a whole number, not 'many'"));
  CHECK_THAT(error("train.epochs=1.5"), ContainsSubstring("epochs must be a whole number"));
  CHECK_THAT(error("loss[1].weight=x"), ContainsSubstring("weight must be a number, not 'x'"));
  CHECK_THAT(error("data.shuffle=yes"), ContainsSubstring("shuffle must be true or false, not 'yes'"));
  CHECK_THAT(error("precision=bf61"), ContainsSubstring("did you mean 'bf16'?"));
  CHECK_THAT(error("loss.weight=1"), ContainsSubstring("there are 2 loss; say which: loss[0] .. loss[1]"));
  CHECK_THAT(error("loss[3].weight=1"), ContainsSubstring("loss[3] does not exist"));
  CHECK_THAT(error("loss[distil].weight=1"), ContainsSubstring("did you mean 'distill'?"));
  CHECK_THAT(error("model.layer[0].conv2d.groups=1"),
             ContainsSubstring("'model[0].layer[0]' is a linear, not a conv2d"));
  CHECK_THAT(error("train=5"), ContainsSubstring("'train' has fields of its own"));
  CHECK_THAT(error("optimizer.options=5"),
             ContainsSubstring("set one of them: optimizer[0].options.<option>=5"));
  CHECK_THAT(error("optimizer.options.a=[1,x"), ContainsSubstring("neither a number"));
  CHECK_THAT(error("optimizer.options.a.b=1"), ContainsSubstring("option 'a' has no field 'b'"));
  CHECK_THAT(error("train.steps.x=1"), ContainsSubstring("'train.steps' has no fields"));
  CHECK_THAT(error("train[0].steps=1"), ContainsSubstring("'train' is not a list"));
  CHECK_THAT(error("data.files[9]=x"), ContainsSubstring("the list has 2 elements"));
  CHECK_THAT(error("model.layer[0]={lienar {}}"),
             ContainsSubstring("unknown field 'lienar' in layer (did you mean 'linear'?)"));
  CHECK_THAT(error("train.epochs"), ContainsSubstring("write path=value"));
  CHECK_THAT(error("train..epochs=1"), ContainsSubstring("empty name"));
  CHECK_THAT(error("loss[.weight=1"), ContainsSubstring("not of the form name[index]"));
}

TEST_CASE("no assignment crashes set_field", "[recipe]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  Recipe r = parsed();
  const std::vector<std::string> parts = {
      "loss", "optimizer", "options", "model", "layer", "[0]",  "[1]", "[-1]", "[a]", ".", "=",
      "{",    "}",         "[",       "]",     "id",    "seed", "1",   "\"",   ",",   ":", "x"};
  for (int i = 0; i < 3000; ++i) {
    std::string assignment;
    for (auto n = random() % 9; n > 0; --n) assignment += parts[random() % parts.size()];
    INFO(assignment);
    if (const Status s = set_field(r, assignment); !s) CHECK_THAT(s.message(), ContainsSubstring("--set "));
  }
}

TEST_CASE("recipes load from a file or a folder", "[recipe]") {
  const std::string folder = std::string(TENON_SOURCE_DIR) + "/models/digits_mlp";
  const std::vector<std::string> sets = {"train.epochs=2"};
  const auto r = load_recipe(folder, sets);
  INFO(r.status().message());
  REQUIRE(r);
  CHECK(r->proto.train().epochs() == 2);
  CHECK(r->dir == folder);
  CHECK_THAT(load_recipe(folder + "/none.txtpb").status().message(),
             ContainsSubstring("none.txtpb") && ContainsSubstring("No such file"));
  CHECK_THAT(load_recipe(folder, std::vector<std::string>{"train.batch_size=0"}).status().message(),
             ContainsSubstring("--set train.batch_size: train.batch_size must be at least 1, not 0"));
  // The common case stays short.
  std::ifstream in(folder + "/recipe.txtpb");
  int lines = 0;
  for (std::string line; std::getline(in, line);) ++lines;
  CHECK(lines <= 25);
}
