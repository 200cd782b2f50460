// The loss-based reweighters: when they are uniform, how the temperature falls, both forms of the loss, and refusals.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "core/ops/elementwise.h"
#include "core/plugin/reweighter.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

using Inputs = std::vector<std::pair<std::string, HostArray>>;

const HostArray kLosses = HostArray::of<double>({1, 3, 2, 5});

Result<std::unique_ptr<Instance>> make(const std::string& id, const Options& options, Catalog& catalog = shipped()) {
  return Instance::create(catalog, TN_KIND_REWEIGHTER, id, id, options);
}

// The factors of the losses in one step, the first of its epoch; the plugin's state moves on.
Result<std::vector<double>> try_factors(Runtime& runtime, Instance& reweighter, const Inputs& inputs, const CallInfo& info = {.train = true}) {
  Graph graph(runtime);
  TN_RETURN_IF_ERROR(reweighter.on_epoch(graph, info, nullptr));
  std::vector<NamedTensor> in;
  for (const auto& [role, a] : inputs) {
    TN_ASSIGN(const Array array, Array::from_host(runtime.backend(), a));
    in.push_back({role, graph.input(array)});
  }
  TN_ASSIGN(const SampleWeights w, weigh_samples(reweighter, graph, info, in, nullptr));
  const std::vector<NamedTensor> checks = w.emitted.checks(reweighter.name());
  std::vector<Tensor> wanted = {w.factors};
  for (const NamedTensor& c : checks) wanted.push_back(c.value);
  TN_ASSIGN(const auto arrays, graph.eval(wanted, reweighter.take_updates()));
  TN_RETURN_IF_ERROR(verify(checks, std::span(arrays).subspan(1)));
  TN_ASSIGN(const HostArray h, arrays[0].to_host());
  std::vector<double> out;
  for (int64_t i = 0; i < h.numel(); ++i) out.push_back(h.at(i));
  return out;
}

std::vector<double> factors(Runtime& runtime, const std::string& id, const Options& options, const Inputs& inputs,
                            const CallInfo& info = {.train = true}) {
  auto made = make(id, options);
  INFO(id << ": " << made.status().message());
  REQUIRE(made.is_ok());
  auto r = try_factors(runtime, **made, inputs, info);
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  return *r;
}

std::string refusal(Runtime& runtime, const std::string& id, const Options& options, const Inputs& inputs) {
  auto made = make(id, options);
  if (!made) return made.status().message();
  const auto r = try_factors(runtime, **made, inputs);
  return r ? "accepted" : r.status().message();
}

}  // namespace

TEST_CASE("weights are softmax(f(h) / r) of the normalised losses") {
  auto rt = runtime();
  const auto check = [&](const std::string& id, std::vector<double> f, double r, const Options& options) {
    CAPTURE(id);
    double total = 0;
    for (double& v : f) total += v = std::exp(v / r);
    const auto w = factors(*rt, id, options, {{"losses", kLosses}});
    for (size_t i = 0; i < f.size(); ++i) CHECK_THAT(w[i], WithinRel(f[i] / total, 1e-12));
  };
  // h = 2 (-1, 0, -0.5, 1) with delta 2.
  const Options two = {{"delta", 2.0}};
  check("linupper", {0, 2, 1, 2}, 0.4, two);
  check("quadratic", {0, 1, 0.75, 0}, 1, two);
  check("extremes", {2, 0, 1, 2}, 0.4, two);
  check("upper", {0, 1, 0.5, 2}, 0.4, two);
  check("kl_dro", {1, 3, 2, 5}, 0.7, {{"r", 0.7}});
  check("uniform", {0, 0, 0, 0}, 1, {});
}

TEST_CASE("weights are uniform in evaluation, at first, and of losses that hardly differ") {
  auto rt = runtime();
  const std::vector<double> uniform(4, 0.25);
  for (const char* id : {"linupper", "quadratic", "extremes", "upper", "kl_dro", "uniform"}) {
    CAPTURE(id);
    CHECK(factors(*rt, id, {}, {{"losses", kLosses}}, {.train = false}) == uniform);
    CHECK(factors(*rt, id, {}, {{"losses", reals({1}, {3})}}) == std::vector<double>{1});
  }
  for (const char* id : {"linupper", "quadratic", "extremes", "upper", "kl_dro"}) {
    CAPTURE(id);
    const Options burn_in = {{"burn_in", int64_t{3}}};
    CHECK(factors(*rt, id, burn_in, {{"losses", kLosses}}, {.step = 2, .train = true}) == uniform);
    CHECK(factors(*rt, id, burn_in, {{"losses", kLosses}}, {.step = 3, .train = true}) != uniform);
  }
  for (const char* id : {"linupper", "quadratic", "extremes", "upper"}) {
    CAPTURE(id);
    CHECK(factors(*rt, id, {}, {{"losses", reals({4}, {7, 7, 7, 7}, DType::f32)}}) == uniform);
    CHECK(factors(*rt, id, {{"min_range", 0.0}}, {{"losses", reals({4}, {7, 7, 7, 7})}}) == uniform);
    CHECK(factors(*rt, id, {{"min_range", 10.0}}, {{"losses", kLosses}}) == uniform);
  }
  // One step of f32 apart is noise, and counts as no difference.
  const double next = std::nextafter(3.0f, 4.0f);
  CHECK(factors(*rt, "linupper", {}, {{"losses", reals({4}, {3, next, 3, next}, DType::f32)}}) == uniform);
}

TEST_CASE("the temperature may fall linearly after the first steps") {
  auto rt = runtime();
  const Options falling = {{"r", 0.5}, {"burn_in", int64_t{10}}, {"r_schedule", std::string("linear")}, {"r_start", 4.5}, {"r_steps", int64_t{4}}};
  for (const auto& [step, r] : {std::pair<int64_t, double>{10, 4.5}, {11, 3.5}, {14, 0.5}, {99, 0.5}}) {
    CAPTURE(step);
    const auto w = factors(*rt, "upper", falling, {{"losses", kLosses}}, {.step = step, .train = true});
    CHECK_THAT(w[3] / w[0], WithinRel(std::exp(1 / r), 1e-12));
  }
}

TEST_CASE("in the token form uniform weights give the mean over tokens") {
  auto rt = runtime();
  const Options token = {{"normalize", std::string("token")}};
  HostArray labels(DType::i64, {2, 3});
  for (int64_t i : {1, 2}) labels.set(i, -100);  // n = 1, 3
  const Inputs by_label = {{"losses", reals({2}, {1, 2})}, {"labels", labels}}, by_count = {{"losses", reals({2}, {1, 2})}, {"counts", numbers({1, 3})}};
  CHECK(factors(*rt, "uniform", token, by_label) == std::vector<double>{0.25, 0.75});
  CHECK(factors(*rt, "uniform", token, by_count) == std::vector<double>{0.25, 0.75});
  // w = exp(0, 1/r), normalised; c = 2 w n / 4.
  const auto c = factors(*rt, "linupper", {{"normalize", std::string("token")}, {"r", 1.0}}, by_label);
  CHECK_THAT(c[0], WithinRel(0.5 / (1 + std::exp(1.0)), 1e-12));
  CHECK_THAT(c[1], WithinRel(1.5 / (1 + std::exp(-1.0)), 1e-12));
}

TEST_CASE("batches and options that have no weights are refused with a reason") {
  auto rt = runtime();
  const Inputs losses = {{"losses", kLosses}};
  CHECK_THAT(refusal(*rt, "linupper", {{"r", 0.0}}, losses), ContainsSubstring("'r'") && ContainsSubstring("> 0"));
  CHECK_THAT(refusal(*rt, "kl_dro", {{"r", HUGE_VAL}}, losses), ContainsSubstring("'r'") && ContainsSubstring("finite"));
  CHECK_THAT(refusal(*rt, "upper", {{"delta", -1.0}}, losses), ContainsSubstring("'delta'") && ContainsSubstring("> 0"));
  CHECK_THAT(refusal(*rt, "linupper", {{"burn_in", int64_t{-1}}}, losses), ContainsSubstring("'burn_in'"));
  CHECK_THAT(refusal(*rt, "kl_dro", {{"tracking", 0.0}}, losses), ContainsSubstring("'tracking'"));
  CHECK_THAT(refusal(*rt, "uniform", {}, {{"losses", HostArray(DType::f64, {0})}}), ContainsSubstring("the batch is empty"));
  CHECK_THAT(refusal(*rt, "uniform", {}, {{"losses", reals({2, 2}, {1, 2, 3, 4})}}), ContainsSubstring("role 'losses'") && ContainsSubstring("rank 1"));
  for (const double bad : {HUGE_VAL, std::nan("")})
    CHECK_THAT(refusal(*rt, "quadratic", {}, {{"losses", reals({3}, {1, 2, bad})}}), ContainsSubstring("NaN or infinite (sample 2 of the batch)"));
  const Options token = {{"normalize", std::string("token")}};
  CHECK_THAT(refusal(*rt, "linupper", token, losses), ContainsSubstring("needs the role 'counts'"));
  CHECK_THAT(refusal(*rt, "linupper", token, {{"losses", kLosses}, {"labels", kLosses}}), ContainsSubstring("needs the role 'counts'"));
  CHECK_THAT(refusal(*rt, "linupper", token, {{"losses", kLosses}, {"counts", numbers({1, 2})}}), ContainsSubstring("4 losses") && ContainsSubstring("[2]"));
  HostArray labels(DType::i64, {4, 2});
  for (int64_t i : {2, 3}) labels.set(i, -100);
  CHECK_THAT(refusal(*rt, "linupper", {}, {{"losses", kLosses}, {"labels", labels}}), ContainsSubstring("no token that counts (sample 1 of the batch)"));
}

TEST_CASE("kl_dro warns at the end of an epoch in which one sample had nearly all the weight") {
  auto rt = runtime();
  const auto warnings = [&](double r) {
    std::vector<std::string> said;
    Catalog catalog({.log = [&](int32_t level, const std::string& text) { if (level == TN_LOG_WARNING) said.push_back(text); }, .cancelled = {}});
    REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
    auto made = make("kl_dro", {{"r", r}}, catalog);
    REQUIRE(made.is_ok());
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      const HostArray losses = epoch == 0 ? kLosses : reals({2}, {1, 1});
      const auto w = try_factors(*rt, **made, {{"losses", losses}}, {.epoch = epoch, .train = true});
      INFO(w.status().message());
      REQUIRE(w.is_ok());
    }
    return said;
  };
  CHECK(warnings(10).empty());
  const auto said = warnings(0.1);
  REQUIRE(said.size() == 1);
  CHECK_THAT(said[0], ContainsSubstring("r is too small"));
}

}  // namespace tenon::test
