// Sizes and layouts of the inputs, and their precision.
#include "tools/validate/check.h"
#include "tools/validate/procedure.h"

namespace tenon::validate {
namespace {

constexpr double kSameInF64 = 1e-9;  // another order of a sum
constexpr double kSameInF32 = 2e-4;

struct Case {
  const char* name;
  Sizes sizes;
};
std::vector<Case> cases_for(const Bench& bench) {
  const std::vector<int64_t>& usual = bench.sizes.others;
  const std::vector<int64_t> one{1, 1, 1, 1}, odd{9, 7, 5, 3}, none{0, 0, 0, 0};
  std::vector<Case> all{{"an empty batch", {.batch = 0, .others = usual}},
                        {"a single sample", {.batch = 1, .others = usual}},
                        {"sizes of 1", {.batch = 1, .others = one, .more = 1}},
                        {"a size of 1", {.batch = 5, .others = one, .more = 1}},
                        {"odd sizes", {.batch = 17, .others = odd, .more = 3}},
                        {"empty rows", {.batch = 3, .others = none, .more = 0}}};
  for (Case& c : all) c.sizes.fixed = bench.sizes.fixed;
  return all;
}

Inputs in_f32(const Inputs& inputs) {
  Inputs out;
  for (const auto& [name, a] : inputs) {
    HostArray h(a.dtype() == DType::f64 ? DType::f32 : a.dtype(), a.shape());
    for (int64_t i = 0; i < a.numel(); ++i) h.set(i, a.at(i));
    out.emplace_back(name, std::move(h));
  }
  return out;
}

}  // namespace

Verdict check_shapes(const Bench& bench) {
  if (bench.is_procedure()) return check_procedure_sizes(bench);
  std::string refused;
  for (const Case& c : cases_for(bench)) {
    bench.doing(std::string("with ") + c.name);
    const auto r = bench.steps({}, 2, c.sizes);
    if (r) continue;
    if (r.status().code() == Code::internal) return failed(std::string("with ") + c.name + ": " + r.status().message());
    refused += (refused.empty() ? "refused: " : ", ") + std::string(c.name);
  }
  const Inputs inputs = bench.inputs();
  const auto run = [&](Layout layout) -> Result<Inputs> {
    TN_ASSIGN(const auto subject, bench.make());
    return bench.step(*subject, inputs, 0, layout);
  };
  bench.doing("with inputs one row after another");
  const auto dense = run(Layout::dense);
  if (!dense) return failed(dense.status().message());
  for (const auto& [layout, name] : {std::pair(Layout::transposed, "transposed inputs"), std::pair(Layout::spread, "inputs of which every second element counts")}) {
    bench.doing(std::string("with ") + name);
    const auto r = run(layout);
    if (!r) return failed(std::string("with ") + name + " it stops: " + r.status().message());
    if (const std::string what = difference(*r, *dense, kSameInF64); !what.empty()) return failed(std::string("with ") + name + " " + what);
  }
  return ok(refused);
}

Verdict check_f32(const Bench& bench) {
  if (bench.is_procedure()) return not_applicable("a procedure has no inputs");
  // Numbers that both types hold.
  Inputs narrow = in_f32(bench.inputs()), wide = bench.inputs();
  for (size_t i = 0; i < narrow.size(); ++i)
    for (int64_t k = 0; k < narrow[i].second.numel(); ++k) wide[i].second.set(k, narrow[i].second.at(k));
  const auto run = [&](const Inputs& inputs) -> Result<Inputs> {
    TN_ASSIGN(const auto subject, bench.make());
    return bench.step(*subject, inputs, 0);
  };
  bench.doing("in f32");
  const auto expected = run(wide), got = run(narrow);
  if (!expected || !got) return failed("in " + std::string(expected ? "f32" : "f64") + " it stops: " + (expected ? got : expected).status().message());
  if (const std::string what = difference(*got, *expected, kSameInF32); !what.empty()) return failed("in f32 " + what);
  return ok();
}

}  // namespace tenon::validate
