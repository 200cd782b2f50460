// Recipes' models: every kind of layer builds, sizes come from the data, complaints point into the recipe.
#include "core/train/model_from_recipe.h"

#include <catch2/catch_test_macros.hpp>

#include "core/runtime.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

Result<RecipeModel> from_text(Runtime& rt, const std::string& model, const ModelFacts& facts) {
  auto recipe = parse_recipe("model {\n" + model + "\n}\n", "r.txtpb");
  if (!recipe.is_ok()) return std::move(recipe).status();
  return model_from_recipe(rt, *recipe, recipe->proto.model(0), "model", facts, {.seed = 1});
}

const ModelFacts kImages{.inputs = {{DType::f32, {2, 1, 8, 8}}}, .outputs = 10};
const ModelFacts kText{.inputs = {{DType::i64, {2, 6}}}, .outputs = 17, .vocab = 17, .context = 6};

void check_output(Runtime& rt, const std::string& model, const ModelFacts& facts, const Shape& expected) {
  const auto m = from_text(rt, model, facts);
  INFO(model << "\n" << m.status().message());
  REQUIRE(m.is_ok());
  CHECK(m->model.output.shape == expected);
}

void check_error(Runtime& rt, const std::string& model, const ModelFacts& facts,
                 const std::string& expected) {
  const auto m = from_text(rt, model, facts);
  REQUIRE_FALSE(m.is_ok());
  INFO(m.status().message());
  CHECK(m.status().message().find(expected) != std::string::npos);
}

TEST_CASE("recipes build every kind of layer") {
  auto rt = test::runtime();
  check_output(*rt, "layer { mlp { hidden: [16, 8] dropout: 0.1 } }", kImages, {2, 10});
  check_output(*rt, R"(
    layer { conv2d { channels: 4 kernel: 3 padding: 1 bias: false init: 'kaiming_normal(a=0.1)' } }
    layer { batch_norm {} } layer { relu {} } layer { max_pool { kernel: 2 } } layer { dropout { rate: 0.2 } }
    layer { residual { layer { conv2d { channels: 4 kernel: 1 } } layer { group_norm { groups: 2 } } } }
    layer { avg_pool { kernel: 2 } } layer { silu {} } layer { leaky_relu { slope: 0.2 } }
    layer { adaptive_avg_pool { size: 1 } } layer { flatten {} } layer { linear {} } layer { log_softmax {} })",
               kImages, {2, 10});
  check_output(*rt, R"(
    layer { reshape { shape: [1, 64] } } layer { conv1d { channels: 4 kernel: 3 stride: 2 } } layer { tanh {} }
    layer { global_avg_pool {} } layer { sigmoid {} } layer { softplus {} } layer { linear { units: 3 } }
    layer { softmax {} })",
               kImages, {2, 3});
  check_output(*rt, "layer { gpt { layers: 2 heads: 2 width: 8 tied: true bias: false } }", kText,
               {2, 6, 17});
  check_output(*rt, R"(
    layer { embedding { dim: 8 } } layer { position_embedding {} } layer { attention { heads: 2 } }
    layer { repeat { times: 2 layer { transformer_block { heads: 2 causal: true moe { experts: 3 top_k: 1 } } } } }
    layer { rms_norm {} } layer { moe { experts: 2 top_k: 1 } } layer { layer_norm { bias: false } }
    layer { gelu { approximate: true } } layer { mean { axis: 1 } } layer { linear {} })",
               kText, {2, 17});
}

TEST_CASE("recipes build graphs, name layers, freeze, and tell of routers") {
  auto rt = test::runtime();
  const auto m = from_text(*rt, R"(
    frozen: true
    node { name: "stem" layer { flatten {} } layer { name: "in" linear { units: 6 } } }
    node { name: "side" input: "stem" layer { relu {} } }
    node { name: "out" input: ["stem", "side"] join: "concat"
           layer { name: "experts" moe { experts: 2 top_k: 1 router { id: "hash" } } } layer { linear {} } })",
                           kImages);
  INFO(m.status().message());
  REQUIRE(m.is_ok());
  CHECK(m->model.output.shape == Shape{2, 10});
  CHECK(m->model.parameters[0]->name == "stem.in.weight");
  for (const auto& p : m->model.parameters) CHECK_FALSE(p->trainable);
  REQUIRE(m->routers.size() == 1);
  CHECK(m->routers[0].layer == "out.experts");
  CHECK(m->routers[0].router.id() == "hash");
}

TEST_CASE("a recipe says how the matrices of experts begin") {
  auto rt = test::runtime();
  const auto first = [&](const std::string& said, const std::string& parameter) {
    const auto m = from_text(*rt, "layer { flatten {} } layer { name: 'm' moe { experts: 2 top_k: 1 hidden: 3 " + said + " } }", kImages);
    INFO(m.status().message());
    REQUIRE(m.is_ok());
    for (const auto& p : m->model.parameters)
      if (p->name == "m." + parameter) return p->value.to_host().value().at(0);
    return -1.0;
  };
  for (const char* each : {"router.weight", "up.weight", "down.weight"}) CHECK(first("init: 'ones'", each) == 1);
  CHECK(first("init: 'ones' output_init: 'zeros'", "down.weight") == 0);
  CHECK(first("init: 'ones' output_init: 'zeros'", "router.weight") == 1);
  CHECK(first("init: 'ones' router_init: 'zeros'", "router.weight") == 0);
}

TEST_CASE("complaints about models point into the recipe") {
  auto rt = test::runtime();
  const ModelFacts nothing{.inputs = kImages.inputs};
  check_error(*rt, "layer { mlp { hidden: 4 } }", nothing, "r.txtpb:2: mlp: output is missing");
  check_error(*rt, "layer { flatten {} }\nlayer { linear { units: 3 init: \"normal(sdt=1)\" } }", kImages, "'sdt=1' is no option=number");
  check_error(*rt, "layer { flatten {} }\nlayer { linear { units: 3 init: \"zeros(std=1)\" } }", kImages, "no option 'std'");
  check_error(*rt, "layer { flatten {} }\nlayer { linear { units: 3 init: \"zero\" } }", kImages,
              "r.txtpb:3: no initialiser");
  check_error(*rt, "layer { flatten {} }\nlayer { moe { experts: 2 router_init: \"zero\" } }", kImages,
              "r.txtpb:3: no initialiser");
  check_error(*rt, "layer { residual {\n layer { conv2d { channels: 3 } } } }", kImages,
              "r.txtpb:3: conv: kernel is missing");
  check_error(*rt, "layer { flatten {} }\nlayer { conv2d { channels: 3 kernel: 3 } }", kImages, "conv2d1");
  check_error(*rt, "layer { name: \"a.b\" relu {} }", kImages, "letters, digits");
  check_error(*rt, "layer {}", kImages, "empty");
  check_error(*rt, "layer { linear { units: -3 } }", kImages, "it must be positive");
  check_error(*rt, "node { name: \"a\" join: \"sum\" layer { relu {} } }", kImages, "add, mul or concat");
  check_error(*rt, "output: \"haed\" node { name: \"head\" layer { relu {} } }", kImages,
              "did you mean 'head'");
  check_error(*rt, "", kImages, "either layers or nodes");
}

}  // namespace
TEST_CASE("an initialiser may have options") {
  auto rt = test::runtime();
  const auto largest = [&](const std::string& init) {
    const auto m = from_text(*rt, "layer { flatten {} }\nlayer { linear { units: 50 init: \"" + init + "\" } }", kImages);
    INFO(m.status().message());
    REQUIRE(m.is_ok());
    double most = 0;
    for (const nn::ParameterPtr& p : m->model.parameters) {
      const HostArray h = p->value.to_host().value();
      for (int64_t i = 0; i < h.numel() && h.shape().rank() == 2; ++i) most = std::max(most, std::abs(h.at(i)));
    }
    return most;
  };
  CHECK(largest("constant(value=0.25)") == 0.25);
  const double small = largest("uniform(low=-0.5, high=0.5)");
  CHECK(small <= 0.5);
  CHECK(small > 0.45);
}

}  // namespace tenon
