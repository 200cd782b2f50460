// The same again: from the same key, beside another instance, and from what was saved.
#include <algorithm>

#include "core/plugin/options.h"
#include "tools/validate/check.h"
#include "tools/validate/procedure.h"

namespace tenon::validate {
namespace {

constexpr int64_t kSteps = 6, kSavedAfter = 3;

// What is different between two runs; "" when nothing is.
std::string difference_of(const std::vector<Inputs>& a, const std::vector<Inputs>& b) {
  for (size_t k = 0; k < b.size(); ++k)
    if (const std::string what = difference(a[k], b[k]); !what.empty()) return "in step " + std::to_string(k) + " " + what;
  return {};
}

bool may_differ(const Bench& bench) { return (bench.descriptor.caps & TN_CAP_NONDETERMINISTIC) != 0; }
constexpr const char* kMayDiffer = "it says that its results are not deterministic";

// The reference of the checks that need one: two runs alone that agree.
Result<std::vector<Inputs>> reference(const Bench& bench) {
  TN_ASSIGN(auto first, bench.steps({}, kSteps));
  TN_ASSIGN(const auto again, bench.steps({}, kSteps));
  if (!difference_of(again, first).empty()) return bad_state("alone it does not give the same results twice");
  return first;
}

std::vector<std::pair<std::string, Array>> state_of(Subject& s) {
  auto all = s.instance().saved_slots();
  for (auto& a : s.own_arrays()) all.push_back(std::move(a));
  return all;
}

// A stored state that is none must be refused, and change nothing.
std::string takes_garbage(Instance& instance, const std::string& bytes) {
  const std::string version = bytes.substr(0, std::min<size_t>(bytes.size(), 4));
  const std::string unknown_version(4, '\xff');
  for (const auto& [what, garbage] : {std::pair("of an unknown version", unknown_version + bytes.substr(version.size())),
                                      std::pair("that ends early", bytes.substr(0, bytes.size() - std::min<size_t>(bytes.size() - version.size(), 1)))}) {
    if (garbage == bytes) continue;
    if (instance.load_bytes(garbage).is_ok()) return std::string("it takes a stored state ") + what;
    const auto after = instance.save_bytes();
    if (!after || *after != bytes) return std::string("it refuses a stored state ") + what + ", but is not as it was";
  }
  return {};
}

}  // namespace

Verdict check_same_key(const Bench& bench) {
  if (may_differ(bench)) return not_applicable(kMayDiffer);
  bench.doing("twice from the same key");
  const auto first = bench.steps({}, kSteps), second = bench.steps({}, kSteps);
  if (!first || !second) return failed((first ? second : first).status().message());
  const std::string what = difference_of(*second, *first);
  return what.empty() ? ok() : failed("the second time " + what);
}

Verdict check_instances(const Bench& bench) {
  if (may_differ(bench)) return not_applicable(kMayDiffer);
  const auto expected = reference(bench);
  if (!expected) return expected.status().code() == Code::state ? not_applicable(expected.status().message()) : failed(expected.status().message());
  if (bench.is_procedure()) return check_procedure_instances(bench, expected->front());
  bench.doing("beside another instance");
  const auto subject = bench.make();
  if (!subject) return failed(subject.status().message());
  std::vector<Inputs> got;
  std::unique_ptr<Subject> other;
  for (int64_t k = 0; k < kSteps; ++k) {
    if (k % 2 == 0) {  // made, used and destroyed in turn
      auto made = bench.make();
      if (!made) return failed(made.status().message());
      other = std::move(*made);
    }
    if (const auto r = bench.step(*other, bench.inputs(100 + static_cast<uint64_t>(k)), k % 2); !r) return failed(r.status().message());
    auto r = bench.step(**subject, bench.inputs(static_cast<uint64_t>(k)), k);
    if (!r) return failed("beside another instance it stops: " + r.status().message());
    got.push_back(std::move(*r));
  }
  const std::string what = difference_of(got, *expected);
  return what.empty() ? ok() : failed("beside another instance " + what);
}

Verdict check_resume(const Bench& bench) {
  if (may_differ(bench)) return not_applicable(kMayDiffer);
  const auto expected = reference(bench);
  if (!expected) return expected.status().code() == Code::state ? not_applicable(expected.status().message()) : failed(expected.status().message());
  if (bench.is_procedure()) return check_procedure_resume(bench, expected->front());
  const auto inputs = [&](int64_t k) { return bench.inputs(static_cast<uint64_t>(k)); };

  const auto continued = [&]() -> Result<Verdict> {
    bench.doing("saving");
    TN_ASSIGN(const auto before, bench.make());
    for (int64_t k = 0; k < kSavedAfter; ++k) TN_RETURN_IF_ERROR(bench.step(*before, inputs(k), k).status());
    std::vector<std::pair<std::string, HostArray>> stored;
    for (const auto& [name, array] : state_of(*before)) {
      TN_ASSIGN(HostArray h, array.to_host());
      stored.emplace_back(name, std::move(h));
    }
    TN_ASSIGN(const std::string bytes, before->instance().save_bytes());
    const bool keeps_state = !before->instance().slots().empty() || !bytes.empty();

    bench.doing("loading");
    TN_ASSIGN(const auto after, bench.make());
    {  // declares the slots, and is not evaluated
      Graph graph(bench.host.runtime);
      TN_ASSIGN(const auto leaves, present(graph, inputs(0), Layout::dense));
      TN_RETURN_IF_ERROR(after->build(graph, {.total_steps = 10, .lr = 0.05, .key = bench.seed, .train = true}, leaves).status());
      after->instance().forget_step();
      after->own_updates();
    }
    auto slots = state_of(*after);
    if (slots.size() != stored.size()) return failed("a new instance has other slots than the one that was saved");
    for (size_t i = 0; i < slots.size(); ++i) TN_RETURN_IF_ERROR(slots[i].second.assign(stored[i].second));
    if (!bytes.empty()) {
      TN_RETURN_IF_ERROR(after->instance().load_bytes(bytes));
      if (const std::string what = takes_garbage(after->instance(), bytes); !what.empty()) return failed(what);
    }
    bench.doing("continuing");
    for (int64_t k = kSavedAfter; k < kSteps; ++k) {
      TN_ASSIGN(const Inputs r, bench.step(*after, inputs(k), k));
      const std::string what = difference(r, (*expected)[static_cast<size_t>(k)]);
      if (!what.empty()) return failed("continued from what was saved, in step " + std::to_string(k) + " " + what);
    }
    return ok(keeps_state ? "" : "it keeps no state");
  };
  const auto verdict = continued();
  return verdict ? *verdict : failed(verdict.status().message());
}

}  // namespace tenon::validate
