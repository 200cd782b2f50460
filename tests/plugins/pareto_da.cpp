// Pareto domain adaptation: its program against a search, its losses against finite differences, and training with all of it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/plugin/probe.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/opened.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

double dot(const Vector& x, const Vector& y) {
  double s = 0;
  for (size_t i = 0; i < x.size(); ++i) s += x[i] * y[i];
  return s;
}
Vector combined(const Matrix& g, const Vector& w) {
  Vector d(g[0].size());
  for (size_t j = 0; j < w.size(); ++j)
    for (size_t i = 0; i < d.size(); ++i) d[i] += w[j] * g[j][i];
  return d;
}
Vector random_vector(std::mt19937& rng, size_t n) {
  std::normal_distribution<double> normal;
  Vector v(n);
  for (double& x : v) x = normal(rng);
  return v;
}
HostArray random_array(std::mt19937& rng, const Shape& shape) {
  return reals(shape, random_vector(rng, static_cast<size_t>(shape.numel())));
}

// What the plugin makes of given gradients.
struct Weighed {
  Vector w;
  std::string mode;
  bool fallback = false;
};
struct Gradients {
  Matrix g;
  Vector guide;
  double guidance = 1;
  Vector losses;
};
Result<Weighed> try_weigh(Runtime& rt, const Options& options, const Gradients& x) {
  Graph graph(rt);
  const auto m = static_cast<int64_t>(x.g.size()), p = static_cast<int64_t>(x.g[0].size());
  Vector flat;
  for (const Vector& row : x.g) flat.insert(flat.end(), row.begin(), row.end());
  std::vector<NamedTensor> in;
  const auto add = [&](const char* name, const Shape& shape, const Vector& v) {
    in.push_back({name, graph.input(Array::from_host(graph.backend(), reals(shape, v)).value())});
  };
  add("gradients", {m, p}, flat);
  add("guidance_loss", {}, {x.guidance});
  if (!x.guide.empty()) add("guidance_gradient", {static_cast<int64_t>(x.guide.size())}, x.guide);
  if (!x.losses.empty()) add("losses", {static_cast<int64_t>(x.losses.size())}, x.losses);
  TN_ASSIGN(const tn_descriptor* d, shipped().find(TN_KIND_OPTIMIZER, "pareto_da"));
  TN_ASSIGN(const Emissions out, run_probe(shipped(), *d, *find_probe(*d, "default"), options, graph, in));
  Weighed r;
  TN_ASSIGN(const HostArray w, graph.to_host(out.find("weights")));
  for (int64_t j = 0; j < m; ++j) r.w.push_back(w.at(j));
  for (const auto& [name, v] : out.values) {
    if (name == "mode") r.mode = std::get<std::string>(v);
    if (name == "fallback") r.fallback = std::get<double>(v) == 1;
  }
  return r;
}
Weighed weigh(Runtime& rt, const Options& options, const Gradients& x) {
  auto r = try_weigh(rt, options, x);
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  return *r;
}
std::string refusal_of(Runtime& rt, const Options& options, const Gradients& x) {
  const auto r = try_weigh(rt, options, x);
  return r.is_ok() ? "accepted" : r.status().message();
}

// Calls f(w) on a grid over the simplex of three weights.
template <class F>
void on_grid(F f) {
  const int n = 60;
  for (int i = 0; i <= n; ++i)
    for (int j = 0; i + j <= n; ++j) f(Vector{i / double(n), j / double(n), (n - i - j) / double(n)});
}

// Two overlapping domains: the target is the source, moved.
struct Run : Opened {
  explicit Run(const std::string& optimizers, const std::string& more = "")
      : Opened(shipped(), R"(
      data { name: "source" format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 } drop_last: true }
      data { name: "target" format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 part: 1 }
             transform { id: "scale" options { offset: 0.5 } } drop_last: true }
      data { name: "held" format: "synthetic" options { kind: "blobs" n: 48 features: 3 classes: 3 noise: 0.4 part: 2 }
             transform { id: "scale" options { offset: 0.5 } } drop_last: true test_split { count: 16 } }
      model { name: "features" input: ["source.x", "target.x"]
              node { name: "net" input: ["source.x", "target.x"] join: "concat" axis: 0 layer { linear { units: 6 } } layer { batch_norm {} } layer { tanh {} } } }
      model { name: "held_features" input: "held.x" share_with: "features"
              node { name: "net" input: "held.x" layer { linear { units: 6 } } layer { batch_norm {} } layer { tanh {} } } }
      model { name: "source_head" input: "features.output" layer { chunk {} } layer { name: "head" linear { units: 3 } } }
      model { name: "target_head" input: "features.output" share_with: "source_head" layer { chunk { index: 1 } } layer { name: "head" linear { units: 3 } } }
      model { name: "held_head" input: "held_features.output" share_with: "source_head" layer { name: "head" linear { units: 3 } } }
      model { name: "source_domains" input: "features.output" layer { chunk {} } layer { stop_gradient {} } layer { name: "v" linear { units: 6 } } layer { reshape { shape: [3, 2] } } }
      model { name: "target_domains" input: "features.output" share_with: "source_domains" layer { chunk { index: 1 } } layer { stop_gradient {} } layer { name: "v" linear { units: 6 } } layer { reshape { shape: [3, 2] } } }
      loss { name: "source" id: "cross_entropy" model: "source_head" }
      loss { name: "domain" id: "domain_adversarial" options { hidden: 4 kind: "cdan_e" grl_max_iters: 5 }
             bind { role: "features_source" to: "source_head.chunk0" } bind { role: "features_target" to: "target_head.chunk0" }
             bind { role: "logits_source" to: "source_head.output" } bind { role: "logits_target" to: "target_head.output" } }
      loss { name: "target" id: "target_class_mimicking" weight: 0
             bind { role: "logits" to: "target_head.output" } bind { role: "class_domain_logits" to: "target_domains.output" } }
      loss { name: "validation" id: "target_class_mimicking" weight: 0 options { refine: "none" guidance_offset: "log_k" } bind { role: "logits" to: "held_head.output" } }
      loss { name: "class_domains" id: "class_domain_discriminator"
             bind { role: "class_domain_logits_source" to: "source_domains.output" } bind { role: "labels" to: "source.y" }
             bind { role: "class_domain_logits_target" to: "target_domains.output" } bind { role: "logits_target" to: "target_head.output" } }
      metric { id: "accuracy" bind { role: "outputs" to: "held_head.output" } bind { role: "labels" to: "held.y" } }
      train { steps: 40 batch_size: 16 }
      precision: f64
      seed: 3
    )" + optimizers + more) {}
};

std::string pareto(const std::string& options) {
  return "optimizer { id: 'pareto_da' params: 'features.*' options { lr: 0.1 " + options +
         " } } optimizer { id: 'sgd' options { lr: 0.1 } } ";
}
const std::string kThree = "objectives: 'source, domain, target' ";

}  // namespace

TEST_CASE("the weights solve the program of their mode, and harm no objective where Theorem 1 says so") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  int guided = 0, fallbacks = 0;
  for (int round = 0; round < 60; ++round) {
    Gradients x{{random_vector(rng, 5), random_vector(rng, 5), random_vector(rng, 5)},
                random_vector(rng, 5),
                round % 2 ? 0.7 : 0.0,
                {}};
    const double unit = round % 3 ? 1 : 1e-6;  // the unit of the gradients does not matter
    for (Vector* v : {&x.g[0], &x.g[1], &x.g[2], &x.guide})
      for (double& e : *v) e *= unit;
    const Weighed r = weigh(*rt, {}, x);
    CHECK(r.mode == (round % 2 ? "guidance" : "descent"));
    const double square = unit * unit, tiny = 1e-8 * square;
    Vector a;
    for (const Vector& g : x.g) a.push_back(dot(g, x.guide));
    const double top = *std::max_element(a.begin(), a.end());
    double least = 1, total = 0;
    for (double w : r.w) least = std::min(least, w), total += w;
    CHECK(least >= -1e-8);
    CHECK_THAT(total, WithinAbs(1, 1e-9));
    const auto feasible = [&](const Vector& w) {
      const Vector d = combined(x.g, w);
      for (size_t j = 0; j < 3; ++j) {
        double bound = 0;
        if (r.mode == "guidance") {
          if (a[j] > 0 && a[j] < top) continue;
          if (a[j] < top && top > 0) bound = a[j];
        }
        if (dot(d, x.g[j]) < bound - tiny) return false;
      }
      return r.mode == "guidance" || dot(w, a) >= std::min(top, 0.0) - tiny;
    };
    const auto value = [&](const Vector& w) {
      const Vector d = combined(x.g, w);
      double v = 0;
      for (const Vector& g : x.g) v += dot(d, g);
      return r.mode == "guidance" ? dot(w, a) : v;
    };
    double best = -HUGE_VAL;
    on_grid([&](const Vector& w) {
      if (feasible(w)) best = std::max(best, value(w));
    });
    if (r.fallback) {
      ++fallbacks;
      CHECK(best == -HUGE_VAL);
      for (double w : r.w) CHECK_THAT(w, WithinAbs(1.0 / 3, 1e-12));
      continue;
    }
    CHECK(feasible(r.w));
    CHECK(value(r.w) >= best - tiny);
    const Vector d = combined(x.g, r.w);
    // An objective that agrees with the guidance is needed for a step that does; without one, the step harms none.
    if (r.mode == "guidance" && top > 0)
      guided += dot(d, x.guide) > tiny;
    else
      for (const Vector& g : x.g) CHECK(dot(d, g) >= -tiny);
  }
  CHECK(guided > 5);
  CHECK(fallbacks < 30);
}

TEST_CASE("where the program has no solution the preference holds") {
  auto rt = runtime();
  // Both gradients turn against the guidance, and the restriction asks for the one that does so less, alone: which harms the other.
  const Gradients x{{{1, 0}, {-1, 0.1}}, {-1, -20.5}, 0, {}};
  const Weighed r = weigh(*rt, {{"preference", Vector{1, 3}}}, x);
  CHECK(r.fallback);
  CHECK(r.w == Vector{0.25, 0.75});
  const Weighed relaxed = weigh(*rt, {{"preference", Vector{1, 3}}, {"restrict", false}}, x);
  CHECK_FALSE(relaxed.fallback);
  CHECK(weigh(*rt, {{"solver", std::string("linear")}, {"preference", Vector{1, 3}}}, x).w == Vector{0.25, 0.75});
}

TEST_CASE("mgda finds the shortest combination of gradients") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const Options mgda = {{"solver", std::string("mgda")}};
  for (int round = 0; round < 20; ++round) {
    const Matrix g{random_vector(rng, 3), random_vector(rng, 3), random_vector(rng, 3)};
    const Vector d = combined(g, weigh(*rt, mgda, {g, {}, 1, {}}).w);
    on_grid([&](const Vector& w) {
      const Vector other = combined(g, w);
      CHECK(dot(other, other) >= dot(d, d) - 1e-9);
    });
    const double c11 = dot(g[0], g[0]), c12 = dot(g[0], g[1]), c22 = dot(g[1], g[1]);
    const double first = std::min(1.0, std::max(0.0, (c22 - c12) / (c11 + c22 - 2 * c12)));
    CHECK_THAT(weigh(*rt, mgda, {{g[0], g[1]}, {}, 1, {}}).w[0], WithinAbs(first, 1e-9));
  }
  // One that is zero, as behind a gradient reversal of 0, takes all the weight; equal ones are no trouble.
  CHECK(weigh(*rt, mgda, {{{1, 2}, {0, 0}, {3, 1}}, {}, 1, {}}).w == Vector{0, 1, 0});
  const Vector same = weigh(*rt, mgda, {{{1, 2}, {1, 2}}, {}, 1, {}}).w;
  CHECK_THAT(same[0] + same[1], WithinAbs(1, 1e-12));
}

TEST_CASE("exact Pareto search goes towards the ratio of losses that the preference asks for") {
  auto rt = runtime();
  const Matrix g{{1, 0.2}, {0.1, 1}};
  const auto epo = [&](const Vector& r, const Vector& losses) {
    return weigh(*rt, {{"solver", std::string("epo")}, {"preference", r}}, {g, {}, 1, losses});
  };
  CHECK(epo({1, 1}, {1, 1}).mode == "descent");
  CHECK(epo({1, 2}, {1, 0.5}).mode == "descent");
  // The loss that is too large is the one that is lowered.
  const Weighed first = epo({1, 1}, {2, 1}), second = epo({1, 1}, {1, 2});
  CHECK(first.mode == "guidance");
  CHECK(first.w[0] > 0.9);
  CHECK(second.w[1] > 0.9);
  CHECK_THAT(refusal_of(*rt, {{"solver", std::string("epo")}}, {g, {}, 1, {1, -0.5}}),
             ContainsSubstring("positive losses"));
  CHECK_THAT(refusal_of(*rt, {{"solver", std::string("epo")}}, {g, {}, 1, {}}), ContainsSubstring("needs the losses"));
}

TEST_CASE("derivatives of domain adaptation losses agree with finite differences to second order") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const Shape z{4, 3}, v{4, 3, 2};
  for (const char* refine : {"bayes", "code", "none"})
    check_derivatives(*rt,
                      {"target_class_mimicking",
                       {{"refine", std::string(refine)}},
                       {{"logits", random_array(rng, z)}, {"class_domain_logits", random_array(rng, v)}}},
                      "logits");
  const LossCall domains{"class_domain_discriminator",
                         {{"refine", std::string("none")}},
                         {{"class_domain_logits_source", random_array(rng, v)},
                          {"labels", numbers({0, 2, 1, 1})},
                          {"class_domain_logits_target", random_array(rng, v)},
                          {"logits_target", random_array(rng, z)}}};
  check_derivatives(*rt, domains, "class_domain_logits_source");
  check_derivatives(*rt, domains, "class_domain_logits_target");
  for (double g : loss_of(*rt, domains).grad("logits_target")) CHECK(g == 0);
  const LossCall dann{
      "domain_adversarial",
      {},
      {{"domain_logits_source", random_array(rng, {3})}, {"domain_logits_target", random_array(rng, {5})}}};
  check_derivatives(*rt, dann, "domain_logits_source");
  check_derivatives(*rt, dann, "domain_logits_target");
}

TEST_CASE("target-class mimicking is between -log K and 0, and nothing for one sample") {
  auto rt = runtime();
  const auto loss = [&](const HostArray& logits, const Options& more = {}) {
    Options o = more;
    o["refine"] = std::string("none");
    return loss_of(*rt, {"target_class_mimicking", o, {{"logits", logits}}});
  };
  const LossValues one = loss(reals({1, 3}, {1, 2, 3}));
  CHECK_THAT(one.loss(), WithinAbs(0, 1e-15));
  for (double g : one.grad("logits")) CHECK_THAT(g, WithinAbs(0, 1e-15));
  const HostArray sure = reals({3, 3}, {1e4, 0, 0, 0, 1e4, 0, 0, 0, 1e4}, DType::f32),
                  unsure = reals({2, 3}, {0, 0, 0, 0, 0, 0});
  CHECK_THAT(loss(sure).loss(), WithinAbs(-std::log(3), 1e-6));
  CHECK_THAT(loss(sure, {{"guidance_offset", std::string("log_k")}}).loss(), WithinAbs(0, 1e-6));
  CHECK_THAT(loss(unsure).loss(), WithinAbs(0, 1e-15));
  for (double g : loss(sure).grad("logits")) CHECK(std::isfinite(g));
}

TEST_CASE("a discriminator's gradient reaches the features reversed") {
  auto rt = runtime();
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  const HostArray fs = random_array(rng, {4, 5}), ft = random_array(rng, {3, 5}), zs = random_array(rng, {4, 3}),
                  zt = random_array(rng, {3, 3});
  for (const char* kind : {"dann", "cdan", "cdan_e"})
    for (int64_t random_dim : {0, 7}) {
      CAPTURE(kind, random_dim);
      const auto at = [&](double kappa, double moved) {
        HostArray f = fs;
        f.set(0, fs.at(0) + moved);
        const Options o = {{"kind", std::string(kind)},
                           {"grl_coefficient", kappa},
                           {"hidden", std::vector<double>{4, 3}},
                           {"random_dim", random_dim}};
        return loss_of(
            *rt, {"domain_adversarial",
                  o,
                  {{"features_source", f}, {"features_target", ft}, {"logits_source", zs}, {"logits_target", zt}}});
      };
      const double slope = (at(1, 1e-6).loss() - at(1, -1e-6).loss()) / 2e-6;
      CHECK_THAT(at(1, 0).grad("features_source")[0], WithinAbs(-slope, 1e-7));
      CHECK_THAT(at(0.25, 0).grad("features_source")[0], WithinAbs(-0.25 * slope, 1e-7));
      CHECK(at(0, 0).grad("features_target")[0] == 0);
    }
}

TEST_CASE("with linear weights and scale m a step is that of the sum of the losses") {
  Run joint(pareto("solver: 'linear' momentum: 0.5 nesterov: true weight_decay: 0.01 " + kThree));
  Run sum(
      "optimizer { id: 'sgd' params: 'features.*' options { lr: 0.1 momentum: 0.5 nesterov: true weight_decay: 0.01 } "
      "} optimizer { id: 'sgd' name: 'rest' options { lr: 0.1 } } ");
  // In the sum, the third loss has weight 1 for the features; its gradient on the head is what differs.
  Run three(pareto("solver: 'linear' objectives: 'source, domain' momentum: 0.5 nesterov: true weight_decay: 0.01 "));
  for (int64_t i = 0; i < 4; ++i) {
    const StepResult a = three.step(i), b = sum.step(i);
    CHECK_THAT(a.loss, WithinRel(b.loss, 1e-12));
    CHECK(a.parts.at("weight_domain") == 0.5);
    joint.step(i);
  }
  const auto x = three.saved(), y = sum.saved(), z = joint.saved();
  const std::string w = "features.net.linear0.weight";
  for (int64_t i = 0; i < x.at(w).numel(); ++i) CHECK_THAT(x.at(w).at(i), WithinAbs(y.at(w).at(i), 1e-12));
  CHECK(std::abs(z.at(w).at(0) - x.at(w).at(0)) > 1e-6);
}

TEST_CASE("features adapt with weighed gradients, and the same seed gives the same bits") {
  Run a(pareto(kThree)), b(pareto(kThree));
  double first = 0;
  for (int64_t i = 0; i < 40; ++i) {
    const StepResult r = a.step(i);
    CHECK(r.loss == b.step(i).loss);
    if (i == 0) first = r.parts.at("source");
    const double total = r.parts.at("weight_source") + r.parts.at("weight_domain") + r.parts.at("weight_target");
    CHECK_THAT(total, WithinAbs(1, 1e-6));
    CHECK(r.parts.at("validation") >= 0);
    if (i == 39) CHECK(r.parts.at("source") < 0.8 * first);
  }
  // The target's score comes from its own model, which has the statistics of all batches seen.
  const auto values = a.experiment->evaluate("test", 40);
  INFO(values.status().message());
  REQUIRE(values.is_ok());
  CHECK(values->at("test/accuracy") > 0.6);

  Run extra(pareto("extra_plain_gradient: true " + kThree)), one(pareto("scale: 'one' " + kThree)),
      plain(pareto(kThree));
  const std::string w = "features.net.linear0.weight";
  const double start = plain.saved().at(w).at(0), moved = (plain.step(0), plain.saved().at(w).at(0)) - start;
  CHECK_THAT((one.step(0), one.saved().at(w).at(0)) - start, WithinRel(moved / 3, 1e-9));
  CHECK(std::abs((extra.step(0), extra.saved().at(w).at(0)) - start - moved) > 1e-9);
}

TEST_CASE("what Pareto domain adaptation can't use is refused in a sentence") {
  auto rt = runtime();
  const Gradients fine{{{1, 0}, {0, 1}}, {1, 1}, 1, {}};
  CHECK(refusal_of(*rt, {}, fine) == "accepted");
  CHECK_THAT(refusal_of(*rt, {}, {{{1, 0}}, {1, 1}, 1, {}}), ContainsSubstring("at least 2"));
  CHECK_THAT(refusal_of(*rt, {}, {Matrix(9, {1, 0}), {1, 1}, 1, {}}), ContainsSubstring("at most 8"));
  CHECK_THAT(refusal_of(*rt, {}, {fine.g, {}, 1, {}}), ContainsSubstring("needs the gradient of a guidance loss"));
  CHECK_THAT(refusal_of(*rt, {}, {fine.g, {1, 1, 1}, 1, {}}), ContainsSubstring("different parameters"));
  CHECK_THAT(refusal_of(*rt, {}, {{{1, NAN}, {0, 1}}, {1, 1}, 1, {}}), ContainsSubstring("not finite"));
  CHECK_THAT(refusal_of(*rt, {}, {fine.g, {1, INFINITY}, 1, {}}), ContainsSubstring("not finite"));
  CHECK_THAT(refusal_of(*rt, {{"preference", Vector{1, 2, 3}}}, fine), ContainsSubstring("3 numbers"));
  CHECK_THAT(refusal_of(*rt, {{"preference", Vector{1, -2}}}, fine), ContainsSubstring("positive"));
  CHECK_THAT(refusal_of(*rt, {{"solver", std::string("lp")}}, fine), ContainsSubstring("'solver'"));
  CHECK_THAT(refusal_of(*rt, {{"guidance_eps", -1.0}}, fine), ContainsSubstring("'guidance_eps'"));

  CHECK_THAT(Run(pareto("objectives: 'source, domian'")).try_step(0).status().message(),
             ContainsSubstring("no loss named 'domian'; its losses are: source, domain"));
  CHECK_THAT(Run(pareto("guidance: 'held'")).try_step(0).status().message(), ContainsSubstring("no loss named 'held'"));
  CHECK_THAT(Run(pareto("objectives: 'source'")).try_step(0).status().message(), ContainsSubstring("at least 2"));

  const HostArray z = reals({2, 3}, {1, 2, 3, 4, 5, 6}), v = HostArray(DType::f64, Shape{2, 3, 2}),
                  f = reals({2, 2}, {1, 2, 3, 4});
  const auto tcm = [&](const Options& o, std::vector<std::pair<std::string, HostArray>> in) {
    return refusal(*rt, {"target_class_mimicking", o, std::move(in)});
  };
  CHECK(tcm({}, {{"logits", z}, {"class_domain_logits", v}}) == "accepted");
  CHECK_THAT(tcm({}, {{"logits", z}}), ContainsSubstring("say refine: none"));
  CHECK_THAT(tcm({}, {{"logits", z}, {"class_domain_logits", HostArray(DType::f64, Shape{2, 3, 3})}}),
             ContainsSubstring("[N, K, 2]"));
  CHECK_THAT(tcm({{"refine", std::string("none")}}, {{"logits", HostArray(DType::f64, Shape{0, 3})}}),
             ContainsSubstring("has no rows"));
  CHECK_THAT(tcm({{"refine", std::string("none")}}, {{"logits", HostArray(DType::f64, Shape{3, 1})}}),
             ContainsSubstring("at least 2 are needed"));
  const auto adversarial = [&](const Options& o, std::vector<std::pair<std::string, HostArray>> in) {
    return refusal(*rt, {"domain_adversarial", o, std::move(in)});
  };
  CHECK_THAT(adversarial({}, {}), ContainsSubstring("bind features_source"));
  CHECK_THAT(adversarial({}, {{"features_source", f}, {"features_target", z}}),
             ContainsSubstring("source has 2 features, target 3"));
  CHECK_THAT(adversarial({}, {{"features_source", f}, {"features_target", HostArray(DType::f64, Shape{0, 2})}}),
             ContainsSubstring("has no rows"));
  CHECK_THAT(adversarial({{"kind", std::string("cdan")}}, {{"features_source", f}, {"features_target", f}}),
             ContainsSubstring("logits_source"));
  CHECK_THAT(adversarial({{"kind", std::string("cdan")}}, {{"domain_logits_source", f}, {"domain_logits_target", f}}),
             ContainsSubstring("can't take domain_logits"));
  CHECK_THAT(adversarial({{"hidden", std::vector<double>{0}}}, {{"features_source", f}, {"features_target", f}}),
             ContainsSubstring("at least 1"));
  CHECK_THAT(adversarial({{"grl_max_iters", int64_t{0}}}, {}), ContainsSubstring("'grl_max_iters'"));
  const auto classes = [&](const HostArray& labels) {
    return refusal(*rt, {"class_domain_discriminator",
                         {{"refine", std::string("none")}},
                         {{"class_domain_logits_source", v},
                          {"labels", labels},
                          {"class_domain_logits_target", v},
                          {"logits_target", z}}});
  };
  CHECK(classes(numbers({0, 2})) == "accepted");
  CHECK_THAT(classes(numbers({0, 3})), ContainsSubstring("not the number of a class"));
  CHECK_THAT(classes(numbers({0})), ContainsSubstring("1 labels for 2 source rows"));
}

}  // namespace tenon::test
