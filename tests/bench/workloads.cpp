// The workloads of `tenon bench` give what PyTorch gives, and make their plans once.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <string_view>

#include "tests/support/device.h"
#include "tools/bench/check.h"
#include "tools/bench/values.h"

namespace tenon::bench {
namespace {

void check(std::string_view name, std::string_view precision = "f32") {
  const auto info = find_workload(name);
  REQUIRE(info.is_ok());
  const auto runtime = test::runtime();
  Catalog catalog;
  REQUIRE(catalog.add_folder(TENON_BINARY_DIR "/plugins").is_ok());
  auto workload = (*info)->make({*runtime, catalog, std::string(precision)});
  INFO(workload.status().message());
  REQUIRE(workload.is_ok());
  const Status status = check_against_torch(**info, **workload, precision);
  INFO(status.message());
  REQUIRE(status.is_ok());
  const int64_t misses = runtime->stats().plan_misses;
  REQUIRE((*workload)->step().is_ok());
  CHECK(runtime->stats().plan_misses == misses);
}

// Plain kernels take minutes for some of them.
void check_unless_plain(std::string_view name) {
  const char* device = std::getenv("TENON_TEST_DEVICE");
  if (device && std::string_view(device) == "reference") SKIP("too slow on plain kernels");
  check(name);
}

TEST_CASE("mlp_tabular agrees with PyTorch") { check("mlp_tabular"); }
TEST_CASE("grad_penalty agrees with PyTorch") { check("grad_penalty"); }
TEST_CASE("ldr_chain agrees with PyTorch") { check("ldr_chain"); }
TEST_CASE("mlp_mnist agrees with PyTorch") { check_unless_plain("mlp_mnist"); }
TEST_CASE("cnn_cifar agrees with PyTorch") { check_unless_plain("cnn_cifar"); }
TEST_CASE("gpt_char agrees with PyTorch") { check_unless_plain("gpt_char"); }
TEST_CASE("moe_gpt_char agrees with PyTorch") { check_unless_plain("moe_gpt_char"); }
TEST_CASE("adamw_25m agrees with PyTorch") { check_unless_plain("adamw_25m"); }

TEST_CASE("products in bf16 come near PyTorch's f32") { check("mlp_tabular", "bf16"); }
TEST_CASE("a convolution net in bf16 comes near PyTorch's f32") {
  const char* device = std::getenv("TENON_TEST_DEVICE");
  if (device && std::string_view(device) == "reference") SKIP("too slow on plain kernels");
  check("cnn_cifar", "bf16");
}

TEST_CASE("the optimizer's workload has no products to do in bf16") {
  const auto runtime = test::runtime();
  Catalog catalog;
  CHECK(adamw_25m({*runtime, catalog, "bf16"}).status().message() == "is measured in f32 only, not in bf16");
}

// A workload that goes wrong in its third step.
class Wrong final : public Workload {
 public:
  explicit Wrong(Workload& right) : right_(right) {}
  Status step() override { return ++steps_, right_.step(); }
  Result<std::vector<double>> outcome() override {
    TN_ASSIGN(std::vector<double> v, right_.outcome());
    if (steps_ == 3) v[0] *= 1.001;
    return v;
  }

 private:
  Workload& right_;
  int steps_ = 0;
};

TEST_CASE("a wrong loss is noticed") {
  const auto runtime = test::runtime();
  Catalog catalog;
  REQUIRE(catalog.add_folder(TENON_BINARY_DIR "/plugins").is_ok());
  auto right = mlp_tabular({*runtime, catalog});
  REQUIRE(right.is_ok());
  Wrong wrong(**right);
  const Status status = check_against_torch(**find_workload("mlp_tabular"), wrong);
  CHECK(status.code() == Code::state);
  CHECK(status.message().starts_with("mlp_tabular: step 3 gives 0."));
}

TEST_CASE("values are those of tools/peers/bench_peers.py") {
  const HostArray labels = integers("x", {2}, 1 << 24), reals = uniform("x", {2}, 0, 1);
  CHECK(labels.at(0) == 4574206);
  CHECK(labels.at(1) == 7553363);
  for (int64_t i = 0; i < 2; ++i) CHECK(reals.at(i) == labels.at(i) / (1 << 23) - 1);
}

}  // namespace
}  // namespace tenon::bench
