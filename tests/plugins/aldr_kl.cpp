// aldr_kl: what it says of its temperatures where it is known which labels are wrong.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {

TEST_CASE("lambda_auc is the share of pairs in which the wrong label has the larger temperature") {
  auto rt = runtime();
  // The flatter a row, the larger its lambda: 0 > 1 > 2 > 3.
  LossCall call{"aldr_kl", {{"lambda0", 1.0}, {"normalize", std::string("none")}, {"num_samples", int64_t{4}}},
                {{"logits", reals({4, 3}, {0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0})}, {"labels", numbers({0, 1, 2, 0})}, {"sample_ids", numbers({2, 0, 3, 1})}}};
  const auto auc = [&](const std::vector<double>& wrong) {
    LossCall with = call;
    with.input("wrong") = reals({4}, wrong);
    return loss_of(*rt, with).emitted_values("lambda_auc")[0];
  };
  CHECK(auc({1, 1, 0, 0}) == 1);
  CHECK(auc({0, 0, 1, 1}) == 0);
  CHECK_THAT(auc({1, 0, 1, 0}), Catch::Matchers::WithinAbs(0.75, 1e-15));  // of 4 pairs, (2, 1) is the wrong way
  CHECK(auc({0, 0, 0, 0}) == 0.5);
  CHECK(auc({1, 1, 1, 1}) == 0.5);
  CHECK(!loss_of(*rt, call).emitted.contains("lambda_auc"));
}

}  // namespace tenon::test
