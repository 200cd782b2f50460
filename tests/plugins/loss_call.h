// One call of a shipped loss with inputs by role: its values, its refusals, its derivatives against finite differences.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/data/options.h"
#include "core/plugin/catalog.h"
#include "core/runtime.h"
#include "core/tensor/host_array.h"

namespace tenon::test {

// The plugins that ship, loaded once.
Catalog& shipped();

struct LossCall {
  std::string id;
  Options options;
  std::vector<std::pair<std::string, HostArray>> inputs;  // by role
  HostArray& input(const std::string& role);
};

HostArray reals(const Shape& shape, const std::vector<double>& values, DType dtype = DType::f64);
HostArray numbers(const std::vector<int64_t>& values);  // i64 [n]

struct LossValues {
  std::map<std::string, HostArray> emitted;  // "loss": what is differentiated
  std::map<std::string, HostArray> grads;    // by role, of the floating ones
  double loss() const { return emitted.at("loss").at(0); }
  std::vector<double> emitted_values(const std::string& name) const;
  std::vector<double> grad(const std::string& role) const;
};

// Builds and evaluates with all checks; the error is the plugin's or the host's.
Result<LossValues> try_loss(Runtime& runtime, const LossCall& call);
// The same where it must succeed.
LossValues loss_of(Runtime& runtime, const LossCall& call);
// Why it is refused; "accepted" if it is not.
std::string refusal(Runtime& runtime, const LossCall& call);

// Checks in f64 d loss/d role against central differences, and the derivative of its projection on fixed directions
// against differences of that projection. Inputs must lie farther than 1e-5 from every kink.
void check_derivatives(Runtime& runtime, LossCall call, const std::string& role, bool second_order = true);

}  // namespace tenon::test
