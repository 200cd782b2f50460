#include "core/train/schedule.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

using namespace tenon;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

namespace {
Schedule made(std::string_view id, const Options& options = {}) {
  auto s = Schedule::make(id, options);
  INFO(s.status().message());
  REQUIRE(s);
  return std::move(s).value();
}
std::string error_of(std::string_view id, const Options& options = {}) {
  return Schedule::make(id, options).status().message();
}
}  // namespace

TEST_CASE("constant is 1, after a warm-up if asked", "[schedule]") {
  CHECK(Schedule().factor(5, 10) == 1);
  CHECK(made("constant").factor(0, 10) == 1);
  const Schedule s = made("constant", {{"warmup_steps", int64_t{4}}});
  CHECK(s.factor(0, 10) == Approx(0.2));
  CHECK(s.factor(3, 10) == Approx(0.8));
  CHECK(s.factor(4, 10) == 1);
}

TEST_CASE("linear and cosine fall to min_factor", "[schedule]") {
  const Schedule linear = made("linear", {{"min_factor", 0.1}});
  CHECK(linear.factor(0, 100) == 1);
  CHECK(linear.factor(50, 100) == Approx(0.55));
  CHECK(linear.factor(100, 100) == Approx(0.1));
  CHECK(linear.factor(1000, 100) == Approx(0.1));
  // nanoGPT: 100 steps of warm-up, then a cosine down to a tenth at step 2000.
  const Schedule cosine = made("cosine", {{"min_factor", 0.1}, {"warmup_steps", int64_t{100}}});
  CHECK(cosine.factor(0, 2000) == Approx(1.0 / 101));
  CHECK(cosine.factor(100, 2000) == 1);
  CHECK(cosine.factor(1050, 2000) == Approx(0.55));
  CHECK(cosine.factor(2000, 2000) == Approx(0.1));
  CHECK(made("cosine", {{"total_steps", int64_t{10}}}).factor(10, 1000) == Approx(0).margin(1e-15));
  // A run shorter than its warm-up.
  CHECK(std::isfinite(cosine.factor(7, 5)));
  CHECK(made("cosine").factor(0, 0) == Approx(0).margin(1e-15));
}

TEST_CASE("step falls by gamma", "[schedule]") {
  const Schedule every = made("step", {{"every", int64_t{30}}});
  CHECK(every.factor(29, 90) == 1);
  CHECK(every.factor(30, 90) == Approx(0.1));
  CHECK(every.factor(60, 90) == Approx(0.01));
  const Schedule at = made("step", {{"milestones", std::vector<double>{10, 15}}, {"gamma", 0.5}});
  CHECK(at.factor(9, 20) == 1);
  CHECK(at.factor(10, 20) == 0.5);
  CHECK(at.factor(19, 20) == 0.25);
}

TEST_CASE("inverse decays as a power of the step", "[schedule]") {
  const Schedule s = made("inverse", {{"gamma", 0.5}, {"power", 2.0}, {"warmup_steps", int64_t{2}}});
  CHECK(s.factor(0, 10) == Approx(1.0 / 3));
  CHECK(s.factor(2, 10) == 1);
  CHECK(s.factor(4, 10) == Approx(0.25));
  CHECK(made("inverse").factor(500, 500) == Approx(std::pow(1.5, -0.75)));
  CHECK_THAT(error_of("inverse", {{"gamma", 0.0}}), ContainsSubstring("must be positive"));
}

TEST_CASE("one_cycle is PyTorch's", "[schedule]") {
  // torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1, total_steps=10): get_last_lr() before each step.
  const double expected[] = {0.040000000000000036,
                             0.52,
                             1.0,
                             0.9504846320134737,
                             0.8117456539497631,
                             0.6112620219362893,
                             0.38874197806371075,
                             0.18825834605023697,
                             0.049519367986526286,
                             4e-06};
  const Schedule s = made("one_cycle");
  for (int i = 0; i < 10; ++i) {
    CAPTURE(i);
    CHECK(s.factor(i, 10) == Approx(expected[i]).epsilon(1e-9));
  }
  CHECK(s.factor(20, 10) == Approx(expected[9]).epsilon(1e-9));
}

TEST_CASE("wrong schedules say what is wrong", "[schedule]") {
  CHECK_THAT(error_of("cosin"), ContainsSubstring("no schedule 'cosin' (did you mean 'cosine'?)"));
  CHECK_THAT(error_of("cosine", {{"min_lr", 0.1}}), ContainsSubstring("unknown option 'min_lr'"));
  CHECK_THAT(error_of("cosine", {{"min_factor", 2.0}}), ContainsSubstring("'min_factor' must be in 0 .. 1"));
  CHECK_THAT(error_of("cosine", {{"warmup_steps", int64_t{-1}}}), ContainsSubstring("can't be negative"));
  CHECK_THAT(error_of("step"), ContainsSubstring("needs either 'every'"));
  CHECK_THAT(error_of("step", {{"every", int64_t{3}}, {"gamma", -1.0}}),
             ContainsSubstring("'gamma' must be positive"));
  CHECK_THAT(error_of("one_cycle", {{"pct_start", 1.5}}), ContainsSubstring("'pct_start' must be in 0 .. 1"));
  CHECK_THAT(error_of("one_cycle", {{"warmup_steps", int64_t{3}}}),
             ContainsSubstring("unknown option 'warmup_steps'"));
}
