// Self-distillation: the identities of kernel ridge regression, the loss with a teacher, rounds of networks.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "tests/io/temp_folder.h"
#include "tests/plugins/calls.h"
#include "tests/support/opened.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
using Reals = std::vector<double>;

HostArray normal(std::mt19937& rng, const Shape& shape) {
  std::normal_distribution<double> draw;
  HostArray a(DType::f64, shape);
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, draw(rng));
  return a;
}

// 12 samples of 3 features with 2 targets, 9 held out, 5 to predict.
struct Krr {
  std::unique_ptr<Runtime> runtime = test::runtime();
  ProbeCall call{"procedure", "self_distillation_krr", "default", {}, {}};
  explicit Krr(unsigned seed) {
    std::mt19937 rng(seed);
    call.inputs = {{"x_train", normal(rng, {12, 3})}, {"y_train", normal(rng, {12, 2})}, {"x_valid", normal(rng, {9, 3})},
                   {"y_valid", normal(rng, {9, 2})}, {"x_test", normal(rng, {5, 3})}};
  }
  HostArray& input(const std::string& name) {
    for (auto& [key, a] : call.inputs)
      if (key == name) return a;
    throw std::out_of_range(name);
  }
  std::map<std::string, HostArray> operator()(Options options) {
    call.options = std::move(options);
    const auto r = try_probe(*runtime, call);
    INFO(r.status().message());
    REQUIRE(r.is_ok());
    return *r;
  }
  std::string refusal(Options options) {
    call.options = std::move(options);
    const auto r = try_probe(*runtime, call);
    return r ? "accepted" : r.status().message();
  }
};

void check_close(const HostArray& a, const HostArray& b, double tolerance) {
  REQUIRE(a.shape() == b.shape());
  for (int64_t i = 0; i < a.numel(); ++i) CHECK_THAT(a.at(i), WithinAbs(b.at(i), tolerance));
}

double square_sum(const HostArray& a) {
  double s = 0;
  for (int64_t i = 0; i < a.numel(); ++i) s += a.at(i) * a.at(i);
  return s;
}

const std::string kData =
    "data { format: 'synthetic' options { kind: 'linear' n: 60 features: 4 noise: 0.5 } test_split { count: 15 } val_split { count: 15 } } ";

// What a network learns with: y = <w, x> + noise.
std::string network(const std::string& procedure, const std::string& loss = "activation: 'none' teacher_activation: 'none'") {
  return kData + "model { layer { mlp { hidden: 8 activation: 'tanh' } } } "
         "loss { id: 'distillation_mse' options { " + loss + " } bind { role: 'targets' to: 'y' } } "
         "optimizer { id: 'adam' options { lr: 0.05 weight_decay: 0.01 } } "
         "procedure { id: 'self_distillation' options { activation: 'none' " + procedure + " } } "
         "train { steps: 25 batch_size: 100 } precision: f64 seed: 4";
}

MetricValues distilled(Runtime& rt, const std::string& procedure) {
  const auto r = run_text(rt, network(procedure));
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  return *r;
}

}  // namespace

TEST_CASE("iterated fits of kernel ridge regression are those of the closed forms") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  Krr krr(seed);
  // One target along each sample: the fits are then V diag(B) V^T itself, whose eigenvalues are the filter.
  HostArray eye(DType::f64, {12, 12});
  for (int64_t i = 0; i < 12; ++i) eye.set(i * 13, 1);
  krr.input("y_train") = eye;
  for (const char* kernel : {"rbf", "laplace", "linear"}) {
    CAPTURE(kernel);
    const auto out = krr({{"kernel", std::string(kernel)}, {"lambda", 0.3}, {"alphas", Reals{1, 0.2, 0.9, 0, 0.5}}});
    double trace = 0, sum = 0;
    const HostArray &fit = out.at("fit_step5"), &filter = out.at("filter_last_sorted_by_eigenvalue_descending");
    for (int64_t i = 0; i < 12; ++i) trace += fit.at(i * 13), sum += filter.at(i);
    CHECK_THAT(trace, WithinAbs(sum, 1e-9));
    CHECK_THAT(square_sum(fit), WithinAbs(square_sum(filter), 1e-9));
  }
  // Constant weights converge to the ridge lambda / alpha.
  const auto many = krr({{"lambda", 0.2}, {"alpha", 0.35}, {"steps", int64_t{200}}});
  const auto ridge = krr({{"lambda", 0.2 / 0.35}, {"steps", int64_t{1}}});
  check_close(many.at("fit_step200"), ridge.at("fit_step1"), 1e-8);
  check_close(many.at("pred_limit"), ridge.at("pred_last"), 1e-8);
  // Without the ground truth each fit shrinks, and the filter is a power.
  const auto none = krr({{"lambda", 0.2}, {"alpha", int64_t{0}}, {"steps", int64_t{4}}});
  const HostArray& powers = none.at("filter_last_sorted_by_eigenvalue_descending");
  const auto once = krr({{"lambda", 0.2}, {"steps", int64_t{1}}});
  const HostArray& a = once.at("filter_last_sorted_by_eigenvalue_descending");
  for (int64_t i = 0; i < 12; ++i) CHECK_THAT(powers.at(i), WithinAbs(std::pow(a.at(i), 4), 1e-12));
  for (char t = '2'; t <= '4'; ++t)
    CHECK(square_sum(none.at(std::string("fit_step") + t)) < square_sum(none.at(std::string("fit_step") + static_cast<char>(t - 1))));
  for (int64_t i = 0; i < none.at("pred_limit").numel(); ++i) CHECK(none.at("pred_limit").at(i) == 0);
  // Ground truth alone: every fit is the first.
  const auto all = krr({{"lambda", 0.2}, {"alpha", 1.0}, {"steps", int64_t{3}}});
  check_close(all.at("fit_step3"), all.at("fit_step1"), 1e-12);
}

TEST_CASE("the optimal weight is the best of a grid on the validation data") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  Krr krr(seed);
  krr.input("x_test") = krr.input("x_valid");
  const auto error = [&](const HostArray& prediction) {
    double s = 0;
    const HostArray& y = krr.input("y_valid");
    for (int64_t i = 0; i < y.numel(); ++i) s += (prediction.at(i) - y.at(i)) * (prediction.at(i) - y.at(i));
    return s;
  };
  const auto best = krr({{"alpha", std::string("optimal")}, {"steps", int64_t{2}}, {"clip_alpha", false}});
  const HostArray f = krr({{"alpha", 1.0}, {"steps", int64_t{2}}}).at("pred_last");
  const HostArray g = krr({{"alpha", 0.0}, {"steps", int64_t{2}}}).at("pred_last");
  for (int k = 0; k <= 300; ++k) {
    const double alpha = -1 + k / 100.0;
    HostArray mixed = f;
    for (int64_t i = 0; i < f.numel(); ++i) mixed.set(i, alpha * f.at(i) + (1 - alpha) * g.at(i));
    CHECK(error(best.at("pred_last")) <= error(mixed) + 1e-12);
  }
  const double free = best.at("alphas_step2_on").at(0);
  const double clipped = krr({{"alpha", std::string("optimal")}, {"steps", int64_t{2}}}).at("alphas_step2_on").at(0);
  CHECK(clipped == std::clamp(free, 0.0, 1.0));
}

TEST_CASE("kernel ridge regression takes a kernel as it is, and one target without a second axis") {
  Krr krr(3);
  HostArray gram(DType::f64, {12, 12}), cross(DType::f64, {5, 12});
  const HostArray x = krr.input("x_train"), z = krr.input("x_test");
  const auto product = [](const HostArray& a, int64_t i, const HostArray& b, int64_t j) {
    double s = 0;
    for (int64_t k = 0; k < 3; ++k) s += a.at(i * 3 + k) * b.at(j * 3 + k);
    return s;
  };
  for (int64_t j = 0; j < 12; ++j) {
    for (int64_t i = 0; i < 12; ++i) gram.set(i * 12 + j, product(x, i, x, j));
    for (int64_t i = 0; i < 5; ++i) cross.set(i * 12 + j, product(z, i, x, j));
  }
  const auto linear = krr({{"kernel", std::string("linear")}});
  Krr given(3);
  std::erase_if(given.call.inputs, [](const auto& in) { return in.first.ends_with("valid"); });
  given.input("x_train") = gram;
  given.input("x_test") = cross;
  const auto precomputed = given({{"kernel", std::string("precomputed")}});
  check_close(precomputed.at("pred_last"), linear.at("pred_last"), 1e-10);

  HostArray one(DType::f64, {12});
  for (int64_t i = 0; i < 12; ++i) one.set(i, krr.input("y_train").at(2 * i));
  std::erase_if(krr.call.inputs, [](const auto& in) { return in.first.ends_with("valid"); });
  krr.input("y_train") = one;
  const auto alone = krr({{"kernel", std::string("linear")}});
  REQUIRE(alone.at("pred_last").shape() == Shape{5});
  for (int64_t i = 0; i < 5; ++i) CHECK_THAT(alone.at("pred_last").at(i), WithinAbs(linear.at("pred_last").at(2 * i), 1e-12));

  gram.set(1, gram.at(1) + 1);
  given.input("x_train") = gram;
  CHECK_THAT(given.refusal({{"kernel", std::string("precomputed")}}), ContainsSubstring("is not symmetric"));
}

TEST_CASE("kernel ridge regression refuses what has no solution") {
  Krr krr(1);
  CHECK_THAT(krr.refusal({{"lambda", 0.0}}), ContainsSubstring("'lambda' is 0; it must be > 0"));
  CHECK_THAT(krr.refusal({{"alpha", 1.5}}), ContainsSubstring("'alpha' is '1.5'; it must be a number in [0, 1] or 'optimal'"));
  CHECK_THAT(krr.refusal({{"alpha", std::string("best")}}), ContainsSubstring("or 'optimal'"));
  CHECK_THAT(krr.refusal({{"alphas", Reals{1, -0.1}}}), ContainsSubstring("'alphas' is -0.1; it must be >= 0 and <= 1"));
  CHECK_THAT(krr.refusal({{"alphas", Reals{1, 0.5}}, {"steps", int64_t{3}}}), ContainsSubstring("alphas has 2 entries for 3 steps"));
  CHECK_THAT(krr.refusal({{"gamma", -1.0}}), ContainsSubstring("'gamma' is -1; it must be > 0"));
  CHECK_THAT(krr.refusal({{"kernel", std::string("rfb")}}), ContainsSubstring("did you mean 'rbf'"));
  Krr wide(1);
  wide.input("x_test") = reals({2, 2}, {1, 2, 3, 4});
  CHECK_THAT(wide.refusal({}), ContainsSubstring("2 features here, 3 in training"));
  Krr endless(1);
  endless.input("x_train").set(4, HUGE_VAL);
  CHECK_THAT(endless.refusal({}), ContainsSubstring("not finite"));
  std::erase_if(krr.call.inputs, [](const auto& in) { return in.first.ends_with("valid"); });
  CHECK_THAT(krr.refusal({{"alpha", std::string("optimal")}}), ContainsSubstring("'optimal' needs validation data"));
  Krr classes(1);
  classes.input("y_train") = numbers({0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1});
  CHECK_THAT(classes.refusal({}), ContainsSubstring("the targets are class numbers"));
}

TEST_CASE("kernel ridge regression runs on a recipe's data") {
  auto rt = runtime();
  const auto recipe = [](const std::string& options, const std::string& data = kData) {
    return data + "procedure { id: 'self_distillation_krr' options { " + options + " } } precision: f64";
  };
  const auto run = [&](const std::string& options) {
    const auto r = run_text(*rt, recipe(options));
    INFO(r.status().message());
    REQUIRE(r.is_ok());
    return *r;
  };
  const MetricValues ridge = run("lambda: 0.5 steps: 1"), amplified = run("lambda: 2 steps: 1");
  const MetricValues course = run("lambda: 0.5 alpha: 0.25 steps: 100");
  CHECK(course.at("test/first_mse") == ridge.at("test/mse"));
  CHECK_THAT(course.at("test/mse"), WithinAbs(amplified.at("test/mse"), 1e-9));
  CHECK_THAT(course.at("test/limit_mse"), WithinAbs(amplified.at("test/mse"), 1e-9));
  CHECK(course.at("alpha") == 0.25);
  CHECK_THAT(course.at("test/ratio"), WithinRel(course.at("test/mse") / ridge.at("test/mse"), 1e-12));
  CHECK(course.at("test/better") == (course.at("test/mse") < ridge.at("test/mse") ? 1 : 0));
  const MetricValues best = run("lambda: 0.01 alpha: 'optimal' steps: 5");
  CHECK(best.at("val/mse") <= best.at("val/first_mse"));
  const std::string no_validation = kData.substr(0, kData.find("val_split")) + "} ";
  CHECK_THAT(run_refusal(*rt, recipe("alpha: 'optimal'", no_validation)), ContainsSubstring("'optimal' needs validation data"));
  const std::string blobs = "data { format: 'synthetic' options { kind: 'blobs' n: 30 } } procedure { id: 'self_distillation_krr' }";
  CHECK_THAT(run_refusal(*rt, blobs), ContainsSubstring("class numbers"));
}

TEST_CASE("the loss with a teacher: derivatives, what its weight means, refusals") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const HostArray scores = normal(rng, {4, 3}), teacher = normal(rng, {4, 3});
  const HostArray truth = reals({4, 3}, {1, 0, 0, 0, 1, 0, 0.5, 0.5, 0, 0, 0, 1});
  const auto call = [&](Options options) {
    return LossCall{"distillation_mse", std::move(options), {{"scores", scores}, {"targets", truth}, {"teacher", teacher}}};
  };
  for (const char* activation : {"softmax", "none"})
    check_derivatives(*rt, call({{"alpha", 0.3}, {"activation", std::string(activation)}}), "scores");
  CHECK(loss_of(*rt, call({})).grad("teacher") == Reals(12, 0.0));

  // The gradient is that of one square loss to the mixture of targets and teacher.
  LossCall mixed = call({{"activation", std::string("none")}});
  LossCall two = call({{"alpha", 0.3}, {"activation", std::string("none")}, {"teacher_activation", std::string("none")}});
  for (int64_t i = 0; i < 12; ++i) mixed.input("targets").set(i, 0.3 * truth.at(i) + 0.7 * teacher.at(i));
  mixed.inputs.pop_back();
  const LossValues one = loss_of(*rt, mixed), both = loss_of(*rt, two);
  for (size_t i = 0; i < 12; ++i) CHECK_THAT(one.grad("scores")[i], WithinAbs(both.grad("scores")[i], 1e-12));
  CHECK(both.loss() > one.loss());  // two terms, not one

  // A weight for each sample; no teacher: the targets alone.
  LossCall each = call({{"alpha", 0.9}});
  each.inputs.push_back({"alpha", reals({4}, {0.3, 0.3, 0.3, 0.3})});
  CHECK_THAT(loss_of(*rt, each).loss(), WithinRel(loss_of(*rt, call({{"alpha", 0.3}})).loss(), 1e-12));
  LossCall alone = call({{"alpha", 0.2}});
  alone.inputs.pop_back();
  CHECK_THAT(loss_of(*rt, alone).loss(), WithinRel(loss_of(*rt, call({{"alpha", 1.0}})).loss(), 1e-12));

  CHECK_THAT(refusal(*rt, call({{"alpha", 1.2}})), ContainsSubstring("'alpha' is 1.2; it must be >= 0 and <= 1"));
  LossCall narrow = call({});
  narrow.input("teacher") = reals({4, 2}, Reals(8, 0));
  CHECK_THAT(refusal(*rt, narrow), ContainsSubstring("teacher has shape [4, 2], the scores [4, 3]"));
  LossCall classes = call({});
  classes.input("targets") = numbers({0, 1, 2, 1});
  CHECK_THAT(refusal(*rt, classes), ContainsSubstring("transform one_hot"));
}

TEST_CASE("rounds of self-distilled networks") {
  auto rt = runtime();
  // On the ground truth alone the second student is the first model again.
  const MetricValues copy = distilled(*rt, "steps: 2 estimate: 'fixed' alpha: 1");
  CHECK(copy.at("round1/test/mse") == copy.at("round0/test/mse"));
  CHECK(copy.at("test/ratio") == 1);
  // The estimate comes from two trainings and is one of the grid's best.
  const MetricValues two = distilled(*rt, "steps: 3 estimate: 'two_model'"), grid = distilled(*rt, "steps: 2 estimate: 'grid'");
  CHECK(two.at("round0/test/mse") == copy.at("round0/test/mse"));
  CHECK(two.at("round0/trainings") == 1);
  CHECK(two.at("round1/trainings") == 2);
  CHECK(grid.at("round1/trainings") == 12);
  CHECK(two.at("round1/alpha") == std::clamp(two.at("round1/alpha_estimate"), 0.0, 1.0));
  CHECK_THAT(two.at("round1/val/mse"), WithinRel(grid.at("round1/val/mse"), 0.05));
  // A given weight is the student's.
  const MetricValues fixed = distilled(*rt, "steps: 3 estimate: 'fixed' alpha: [1, 0.5, 0]");
  CHECK(fixed.at("round1/alpha") == 0.5);
  CHECK(fixed.at("round2/alpha") == 0);
  const MetricValues fresh = distilled(*rt, "steps: 2 estimate: 'fixed' alpha: 1 same_start: false");
  CHECK(fresh.at("round1/test/mse") != fresh.at("round0/test/mse"));

  CHECK_THAT(run_refusal(*rt, network("alpha: [1, 0.5]")), ContainsSubstring("alpha has 2 entries for 6 steps"));
  const std::string text = network("");
  const size_t val = text.find("val_split");
  CHECK_THAT(run_refusal(*rt, text.substr(0, val) + text.substr(text.find('}', val) + 1)), ContainsSubstring("needs validation data"));
}

TEST_CASE("rounds of self-distilled networks go on where they stopped") {
  auto rt = runtime();
  const TempFolder folder;
  const auto run = [&](int64_t steps, bool resume) {
    auto e = open_recipe(*rt, network("steps: " + std::to_string(steps)));
    REQUIRE(e.is_ok());
    return run_in_folder(**e, folder.file("run"), resume);
  };
  run(2, false);
  CHECK(run(4, true) == distilled(*rt, "steps: 4"));
}

}  // namespace tenon::test
