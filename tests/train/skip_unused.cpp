// Parameters that a step does not use stay as they are where the recipe says so, with their slots.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cstring>

#include "tests/support/opened.h"

namespace tenon {
namespace {

// Of two layers; the second loss is of the first layer's output alone, and from the third step on the only one.
std::string recipe(const std::string& group) {
  return "data { format: 'synthetic' options { kind: 'linear' n: 32 features: 3 } } "
         "model { layer { name: 'a' linear { units: 1 } } layer { name: 'b' linear { units: 1 } } } "
         "loss { id: 'mse' weight_schedule { id: 'linear' options { total_steps: 2 } } } "
         "loss { id: 'mse' name: 'first' bind { role: 'prediction' to: 'model.a' } } "
         "optimizer { id: 'adam' options { lr: 0.01 } " + group + "} train { steps: 4 batch_size: 32 } seed: 3 precision: f64";
}

// Parameters and slots after each of four steps.
std::vector<std::map<std::string, HostArray>> course(const std::string& group) {
  const auto catalog = test::load_plugins();
  test::Opened run(*catalog, recipe(group));
  std::vector<std::map<std::string, HostArray>> out;
  for (int64_t k = 0; k < 4; ++k) {
    run.step(k);
    out.push_back(run.saved());
  }
  return out;
}

// Names of what is different.
std::vector<std::string> changed(const std::map<std::string, HostArray>& a, const std::map<std::string, HostArray>& b) {
  std::vector<std::string> out;
  for (const auto& [name, value] : a)
    if (std::memcmp(value.data(), b.at(name).data(), value.size_bytes()) != 0) out.push_back(name);
  return out;
}

bool moved(const std::vector<std::string>& names, const std::string& what) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return n.find(what) != std::string::npos; });
}

}  // namespace

TEST_CASE("a group may leave alone what a step does not use") {
  const auto plain = course("group { params: '.*b[.].*' } "), kept = course("group { params: '.*b[.].*' skip_unused: true } ");
  CHECK(changed(plain[1], kept[1]).empty());  // all is used
  CHECK(moved(changed(plain[1], plain[2]), "model.b.weight"));
  const auto names = changed(kept[1], kept[2]);
  CHECK(moved(names, "model.a.weight"));
  CHECK_FALSE(moved(names, "model.b."));
  CHECK_FALSE(moved(names, "adam.0/"));  // the group's slots
  CHECK(moved(names, "adam.1/"));
}

TEST_CASE("of a flat group only the unused parameters are left alone") {
  const auto plain = course(""), kept = course("group { params: '.*' skip_unused: true } ");
  const auto names = changed(kept[1], kept[2]);
  CHECK(moved(names, "model.a.weight"));
  CHECK_FALSE(moved(names, "model.b."));
  // What is used moves as if there were no such rule.
  for (const char* name : {"model.a.weight", "model.a.bias"})
    for (const auto& [full, value] : kept[3])
      if (full.find(name) != std::string::npos && full.find("/") == std::string::npos)
        CHECK(std::memcmp(value.data(), plain[3].at(full).data(), value.size_bytes()) == 0);
}

}  // namespace tenon
