// The built-in optimizers through the mini host, against scalar loops that follow PyTorch's documented update
// rules.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <random>

#include "tests/abi/mini_host.h"

using namespace abi_test;
using Catch::Approx;

namespace {

using Options = std::map<std::string, tn_value>;
// State of one element, by name.
using Slots = std::map<std::string, double>;
using Rule = std::function<double(double p, double g, int64_t t, double lr, Slots& s)>;

// Runs five steps with a changing rate on two parameters, and the rule on each element.
void compare(const std::string& id, const Options& options, const Rule& rule) {
  const unsigned seed = std::random_device{}();
  CAPTURE(id, seed);
  MiniHost host;
  const Loaded loaded(TENON_BINARY_DIR "/plugins/" + id + ".so", host);
  INFO(loaded.error);
  REQUIRE(loaded.error.empty());
  const tn_descriptor* d = loaded.plugin->descriptors[0];
  REQUIRE(std::string(d->id) == id);
  REQUIRE(static_cast<const tn_optimizer*>(d->vtable)->flags == TN_OPT_ELEMENTWISE);

  std::mt19937 rng(seed);
  std::normal_distribution<double> normal(0, 1);
  const std::vector<Shape> shapes = {{2, 3}, {}};
  for (const Shape& s : shapes) {
    std::vector<double> v(static_cast<size_t>(numel(s)));
    for (double& x : v) x = normal(rng);
    host.params.push_back(tensor(s, v));
  }
  std::vector<std::vector<double>> expected = {host.params[0].data, host.params[1].data};
  std::vector<std::vector<Slots>> slots = {std::vector<Slots>(6), std::vector<Slots>(1)};

  Instance optimizer(host, d, options);
  INFO(optimizer.created.message);
  REQUIRE(optimizer.created.code == TN_STATUS_OK);
  std::vector<std::string> structure;
  for (int64_t t = 1; t <= 5; ++t) {
    const double lr = 0.1 / static_cast<double>(t);
    std::vector<Value> grads;
    for (size_t i = 0; i < shapes.size(); ++i) {
      Value g = host.params[i];
      for (size_t k = 0; k < g.data.size(); ++k) {
        g.data[k] = normal(rng);
        expected[i][k] = rule(expected[i][k], g.data[k], t, lr, slots[i][k]);
      }
      grads.push_back(g);
    }
    const Outcome o = optimizer.step(grads, t, lr);
    INFO(o.message);
    REQUIRE(o.code == TN_STATUS_OK);
    if (t == 1) structure = host.runtime_structure;
    CHECK(host.runtime_structure == structure);  // the same plan in every step
    for (size_t i = 0; i < shapes.size(); ++i)
      for (size_t k = 0; k < expected[i].size(); ++k)
        // Errors are of the size of the values that were added up: a parameter may end near zero.
        CHECK(host.params[i].data[k] == Approx(expected[i][k]).epsilon(1e-12).scale(1));
  }
}

}  // namespace

TEST_CASE("sgd: plain, weight decay, momentum with dampening, Nesterov") {
  for (const auto& [momentum, dampening, decay, nesterov] : {std::tuple{0.0, 0.0, 0.0, false},
                                                             {0.0, 0.0, 0.1, false},
                                                             {0.9, 0.3, 0.01, false},
                                                             {0.8, 0.0, 0.0, true}}) {
    CAPTURE(momentum, dampening, decay, nesterov);
    const double mu = momentum, tau = dampening, wd = decay;
    const bool look_ahead = nesterov;
    compare("sgd",
            {{"momentum", real(mu)},
             {"dampening", real(tau)},
             {"weight_decay", real(wd)},
             {"nesterov", boolean(look_ahead)}},
            [=](double p, double g, int64_t t, double lr, Slots& s) {
              g += wd * p;
              if (mu != 0) {
                s["b"] = t == 1 ? g : mu * s["b"] + (1 - tau) * g;
                g = look_ahead ? g + mu * s["b"] : s["b"];
              }
              return p - lr * g;
            });
  }
}

TEST_CASE("sgd refuses Nesterov without momentum") {
  MiniHost host;
  const Loaded loaded(TENON_BINARY_DIR "/plugins/sgd.so", host);
  REQUIRE(loaded.error.empty());
  const Instance i(host, loaded.plugin->descriptors[0], {{"nesterov", boolean(true)}});
  CHECK(i.created.code == TN_STATUS_INVALID);
  CHECK(i.created.message == "nesterov needs momentum > 0 and dampening = 0");
}

TEST_CASE("adam and adamw: bias correction, both kinds of weight decay, amsgrad") {
  for (const bool decoupled : {false, true})
    for (const bool amsgrad : {false, true})
      for (const double decay : {0.0, 0.1}) {
        CAPTURE(decoupled, amsgrad, decay);
        const bool w = decoupled, ams = amsgrad;
        const double wd = decay;
        compare(w ? "adamw" : "adam",
                {{"weight_decay", real(wd)},
                 {"amsgrad", boolean(ams)},
                 {"beta1", real(0.8)},
                 {"eps", real(1e-3)}},
                [=](double p, double g, int64_t step, double lr, Slots& s) {
                  const double t = static_cast<double>(step);
                  if (w)
                    p -= lr * wd * p;
                  else
                    g += wd * p;
                  s["m"] = 0.8 * s["m"] + 0.2 * g;
                  s["v"] = 0.999 * s["v"] + (1 - 0.999) * g * g;
                  s["max"] = std::max(s["max"], s["v"]);
                  const double m_hat = s["m"] / (1 - std::pow(0.8, t));
                  const double v_hat = (ams ? s["max"] : s["v"]) / (1 - std::pow(0.999, t));
                  return p - lr * m_hat / (std::sqrt(v_hat) + 1e-3);
                });
      }
}

TEST_CASE("rmsprop: centered, momentum, weight decay") {
  for (const bool centered : {false, true})
    for (const double momentum : {0.0, 0.9}) {
      CAPTURE(centered, momentum);
      const bool c = centered;
      const double mu = momentum;
      compare("rmsprop",
              {{"centered", boolean(c)},
               {"momentum", real(mu)},
               {"weight_decay", real(0.05)},
               {"eps", real(1e-4)}},
              [=](double p, double g, int64_t, double lr, Slots& s) {
                g += 0.05 * p;
                s["v"] = 0.99 * s["v"] + (1 - 0.99) * g * g;
                s["a"] = 0.99 * s["a"] + (1 - 0.99) * g;
                const double avg = std::sqrt(c ? s["v"] - s["a"] * s["a"] : s["v"]) + 1e-4;
                s["b"] = mu * s["b"] + g / avg;
                return p - lr * s["b"];
              });
    }
}

TEST_CASE("adagrad: initial accumulator, decaying rate, weight decay") {
  compare("adagrad",
          {{"initial_accumulator", real(0.5)}, {"lr_decay", real(0.1)}, {"weight_decay", real(0.02)}},
          [](double p, double g, int64_t t, double lr, Slots& s) {
            if (t == 1) s["h"] = 0.5;
            g += 0.02 * p;
            s["h"] += g * g;
            return p - lr / (1 + static_cast<double>(t - 1) * 0.1) * g / (std::sqrt(s["h"]) + 1e-10);
          });
}
