// The shipped losses through the loader and the engine: first and second derivatives against finite differences, f32 and
// bf16 against f64, and a training step that does not depend on how parameters are grouped.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/loss.h"
#include "core/plugin/optimizer.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

using Catch::Matchers::WithinAbs;

struct Case {
  std::string id;
  Options options;
  std::string role;  // the differentiated one
  Shape shape;
  std::string other;  // labels or target
  std::string kind;   // class | binary | real | probability
};

const std::vector<Case> kCases = {
    {"cross_entropy", {}, "logits", {5, 4}, "labels", "class"},
    {"cross_entropy", {{"label_smoothing", 0.1}}, "logits", {5, 4}, "labels", "class"},
    {"cross_entropy", {{"class_weights", std::vector<double>{1, 2, 0.5, 3}}}, "logits", {5, 4}, "labels", "class"},
    {"bce_with_logits", {}, "logits", {6}, "labels", "binary"},
    {"mse", {}, "prediction", {6}, "target", "real"},
    {"mae", {}, "prediction", {6}, "target", "real"},
    {"huber", {}, "prediction", {6}, "target", "real"},
    {"focal", {}, "logits", {5, 4}, "labels", "class"},
    {"kl_div", {}, "logits", {5, 4}, "target", "probability"},
    {"any_loss", {{"L", 6.0}}, "scores", {6}, "labels", "binary"},
    {"any_loss", {{"L", 6.0}, {"metric", "mcc"}}, "scores", {6}, "labels", "binary"},
    {"robust_baselines", {{"kind", std::string("gce")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("sce")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("mse_prob")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("js")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("nce_rce")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("nce_agce")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("nce_aul")}}, "logits", {5, 4}, "labels", "class"},
    {"robust_baselines", {{"kind", std::string("rll")}}, "logits", {5, 4}, "labels", "class"},
    {"distillation_mse", {}, "scores", {5, 4}, "targets", "probability"},
    {"distillation_mse", {{"activation", "none"}}, "scores", {6}, "targets", "real"},
    {"ldr", {{"lambda", 0.8}, {"margin", 0.2}, {"normalize", "softplus_mean"}}, "logits", {5, 4}, "labels", "class"},
    {"ldr", {{"lambda", 0.7}, {"margin", 0.3}, {"top_k", int64_t{2}}}, "logits", {5, 4}, "labels", "class"},
};

Catalog& catalog() {
  static Catalog* c = [] {
    auto* made = new Catalog();
    REQUIRE(made->add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
    return made;
  }();
  return *c;
}

// The role of this name, or the first required floating one: losses name their inputs differently.
std::string role_of(Instance& inst, const std::string& wanted, int32_t dtype_class) {
  const tn_descriptor& d = inst.descriptor();
  for (uint32_t i = 0; i < d.n_roles; ++i)
    if (wanted == d.roles[i]->name) return wanted;
  for (uint32_t i = 0; i < d.n_roles; ++i)
    if (!(d.roles[i]->flags & TN_ROLE_OPTIONAL) && (d.roles[i]->dtype_class == dtype_class || dtype_class == TN_CLASS_ANY))
      return d.roles[i]->name;
  return wanted;
}

struct Problem {
  HostArray x, other;
};

Problem make(const Case& c, std::mt19937& rng, DType dtype) {
  std::normal_distribution<double> normal;
  Problem p;
  p.x = HostArray(dtype, c.shape);
  for (int64_t i = 0; i < p.x.numel(); ++i) p.x.set(i, normal(rng) * 1.5 + 0.01);
  if (c.kind == "class") {
    p.other = HostArray(DType::i32, Shape{c.shape[0]});
    for (int64_t i = 0; i < c.shape[0]; ++i) p.other.set(i, static_cast<double>(rng() % static_cast<unsigned>(c.shape.back())));
  } else {
    p.other = HostArray(dtype, c.shape);
    for (int64_t i = 0; i < p.other.numel(); ++i)
      p.other.set(i, c.kind == "binary" ? static_cast<double>(rng() % 2) : c.kind == "real" ? normal(rng) : 0.25);
  }
  return p;
}

double loss_at(Runtime& rt, LossPlugin& loss, const Case& c, const Problem& p, std::vector<double>* first,
               std::vector<double>* second, const std::vector<double>& direction) {
  Graph g(rt);
  const Tensor x = g.input(Array::from_host(rt.backend(), p.x).value());
  const Tensor o = g.input(Array::from_host(rt.backend(), p.other).value());
  const NamedTensor in[] = {{role_of(loss.instance(), c.role, TN_CLASS_FLOATING), x}, {role_of(loss.instance(), c.other, TN_CLASS_ANY), o}};
  auto built = loss.build(g, {.train = true}, in, nullptr);
  INFO(built.status().message());
  REQUIRE(built.is_ok());
  const Tensor dx = grad(built->value, {&x, 1})[0];
  HostArray w(p.x.dtype(), p.x.shape());
  for (int64_t i = 0; i < w.numel(); ++i) w.set(i, direction[static_cast<size_t>(i)]);
  const Tensor projected = sum(dx * g.input(Array::from_host(rt.backend(), w).value()));
  const Tensor ddx = grad(projected, {&x, 1})[0];
  const Tensor outs[] = {built->value, dx, ddx};
  auto r = g.eval(outs);
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  for (int k : {1, 2}) {
    auto* to = k == 1 ? first : second;
    if (!to) continue;
    const HostArray h = (*r)[static_cast<size_t>(k)].to_host().value();
    to->clear();
    for (int64_t i = 0; i < h.numel(); ++i) to->push_back(h.at(i));
  }
  return (*r)[0].to_host().value().at(0);
}

TEST_CASE("derivatives of the shipped losses agree with finite differences to second order") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = test::runtime();
  for (const Case& c : kCases) {
    CAPTURE(c.id);
    auto loss = LossPlugin::create(catalog(), c.id, c.id, c.options);
    INFO(loss.status().message());
    REQUIRE(loss.is_ok());
    Problem p = make(c, rng, DType::f64);
    std::normal_distribution<double> normal;
    std::vector<double> direction;
    for (int64_t i = 0; i < p.x.numel(); ++i) direction.push_back(normal(rng));
    std::vector<double> first, second;
    loss_at(*rt, **loss, c, p, &first, &second, direction);
    for (int64_t i = 0; i < p.x.numel(); ++i) {
      // Away from the kinks of |x| and of the Huber function.
      const double gap = c.kind == "real" ? std::abs(p.x.at(i) - p.other.at(i)) : 1;
      if (gap < 1e-3 || std::abs(gap - 1) < 1e-3) if (c.kind == "real") continue;
      const double h = 1e-5, x = p.x.at(i);
      std::vector<double> up, down;
      p.x.set(i, x + h);
      const double plus = loss_at(*rt, **loss, c, p, &up, nullptr, direction);
      p.x.set(i, x - h);
      const double minus = loss_at(*rt, **loss, c, p, &down, nullptr, direction);
      p.x.set(i, x);
      CHECK_THAT(first[static_cast<size_t>(i)], WithinAbs((plus - minus) / (2 * h), 1e-7));
      double slope = 0;
      for (size_t k = 0; k < up.size(); ++k) slope += direction[k] * (up[k] - down[k]) / (2 * h);
      CHECK_THAT(second[static_cast<size_t>(i)], WithinAbs(slope, 1e-6));
    }
  }
}

TEST_CASE("the shipped losses run in f32 and bf16") {
  std::mt19937 rng(11);
  auto rt = test::runtime();
  for (const Case& c : kCases) {
    CAPTURE(c.id);
    auto loss = LossPlugin::create(catalog(), c.id, c.id, c.options);
    REQUIRE(loss.is_ok());
    const Problem exact = make(c, rng, DType::bf16);  // values that all types hold
    const std::vector<double> ones(static_cast<size_t>(exact.x.numel()), 1);
    const auto in_type = [&](DType t) {
      Problem p{HostArray(t, exact.x.shape()), exact.other};
      for (int64_t i = 0; i < p.x.numel(); ++i) p.x.set(i, exact.x.at(i));
      if (c.kind != "class") {
        p.other = HostArray(t, exact.other.shape());
        for (int64_t i = 0; i < p.other.numel(); ++i) p.other.set(i, exact.other.at(i));
      }
      return loss_at(*rt, **loss, c, p, nullptr, nullptr, ones);
    };
    const double expected = in_type(DType::f64);
    CHECK_THAT(in_type(DType::f32), WithinAbs(expected, 1e-5 * (1 + std::abs(expected))));
    CHECK_THAT(in_type(DType::bf16), WithinAbs(expected, 0.05 * (1 + std::abs(expected))));
  }
}

TEST_CASE("an element-wise optimizer gives the same bits on one flat vector and on separate tensors") {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  auto rt = test::runtime();
  std::vector<float> values(24), grads(24);
  for (const char* id : {"sgd", "adam", "adamw", "rmsprop", "adagrad"}) {
    CAPTURE(id);
    for (float& v : values) v = normal(rng);
    const auto run = [&](bool flat) {
      std::mt19937 again(9);
      auto made = OptimizerPlugin::create(catalog(), id, id, {{"lr", 0.01}});
      INFO(made.status().message());
      REQUIRE(made.is_ok());
      OptimizerPlugin& opt = **made;
      const std::vector<std::pair<size_t, size_t>> parts = flat ? std::vector<std::pair<size_t, size_t>>{{0, 24}} : std::vector<std::pair<size_t, size_t>>{{0, 10}, {10, 14}};
      std::vector<std::string> names;
      std::vector<Array> arrays;
      for (const auto& [at, n] : parts) {
        names.push_back("p" + std::to_string(at));
        arrays.push_back(Array::from_host(rt->backend(), HostArray::of<float>(std::vector<float>(values.begin() + static_cast<long>(at), values.begin() + static_cast<long>(at + n)))).value());
      }
      {
        Graph g(*rt);
        REQUIRE(opt.init(g, names, arrays).is_ok());
      }
      for (int64_t step = 1; step <= 5; ++step) {
        for (float& v : grads) v = normal(again);
        Graph g(*rt);
        std::vector<Tensor> params, gs;
        for (size_t k = 0; k < parts.size(); ++k) {
          const auto& [at, n] = parts[k];
          params.push_back(g.input(arrays[k]));
          gs.push_back(g.input(Array::from_host(rt->backend(), HostArray::of<float>(std::vector<float>(grads.begin() + static_cast<long>(at), grads.begin() + static_cast<long>(at + n)))).value()));
        }
        auto r = opt.step(g, {.step = step - 1, .total_steps = 5, .lr = 0.01}, {.names = names, .params = params, .grads = gs, .count = step});
        INFO(r.status().message());
        REQUIRE(r.is_ok());
        std::vector<Update> updates = opt.instance().take_updates();
        for (size_t k = 0; k < parts.size(); ++k) updates.push_back({arrays[k], r->params[k]});
        REQUIRE(g.eval({}, updates).is_ok());
      }
      std::vector<float> out;
      for (const Array& a : arrays) {
        const HostArray h = a.to_host().value();
        out.insert(out.end(), h.as<float>().begin(), h.as<float>().end());
      }
      return out;
    };
    const std::vector<float> flat = run(true);
    CHECK(flat == run(false));
    CHECK(flat != values);
  }
}

}  // namespace
}  // namespace tenon
