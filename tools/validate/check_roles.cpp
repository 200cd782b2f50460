// Inputs that are not bound, not of the type, or not of the plugin at all.
#include <algorithm>

#include "tools/validate/check.h"

namespace tenon::validate {
namespace {

bool is_role(const tn_descriptor& d, const std::string& name) {
  return std::any_of(d.roles, d.roles + d.n_roles, [&](const tn_role* r) { return name.starts_with(r->name); });
}

// A refusal says what of the inputs it minds.
bool names_a_role(const tn_descriptor& d, const std::string& message) {
  return std::any_of(d.roles, d.roles + d.n_roles, [&](const tn_role* r) { return message.find(r->name) != std::string::npos; });
}

HostArray with_rank(const HostArray& a, int rank) {
  Shape shape = a.shape();
  while (shape.rank() > rank) shape.pop_back();
  while (shape.rank() < rank) shape.push_back(2);
  HostArray out(a.dtype(), shape);
  for (int64_t i = 0; i < out.numel() && a.numel() > 0; ++i) out.set(i, a.at(i % a.numel()));
  return out;
}

HostArray with_type(const HostArray& a, DType t) {
  HostArray out(t, a.shape());
  for (int64_t i = 0; i < a.numel(); ++i) out.set(i, a.at(i));
  return out;
}

}  // namespace

Verdict check_roles(const Bench& bench) {
  const tn_descriptor& d = bench.descriptor;
  if (bench.is_procedure() || !TN_COVERS(&d, n_roles) || d.n_roles == 0) return not_applicable("it declares no inputs");
  const Inputs all = bench.inputs();
  const auto call = [&](const Inputs& inputs) -> Result<Inputs> {
    TN_ASSIGN(const auto subject, bench.make());
    return bench.step(*subject, inputs, 0);
  };
  int tried = 0;
  for (uint32_t r = 0; r < d.n_roles; ++r) {
    const tn_role& role = *d.roles[r];
    const std::string name = role.name;
    const bool needed = !(role.flags & (TN_ROLE_OPTIONAL | TN_ROLE_MANY));
    bench.doing("without the input '" + name + "'");
    Inputs without = all;
    std::erase_if(without, [&](const auto& in) { return role.flags & TN_ROLE_MANY ? in.first.starts_with(name) : in.first == name; });
    const auto result = call(without);
    if (needed && result) return failed("it goes on without the input '" + name + "', which it says it needs");
    if (!result && !names_a_role(d, result.status().message()))
      return failed("without the input '" + name + "' the message names no input: " + result.status().message());
    ++tried;
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i].first != name) continue;
      const HostArray& given = all[i].second;
      const bool classed = TN_COVERS(&role, dtype_class) && role.dtype_class != TN_CLASS_ANY, ranked = TN_HAS(&role, ranks);
      for (const DType t : {DType::f64, DType::i64, DType::boolean}) {
        if (t == given.dtype()) continue;
        Inputs other = all;
        other[i].second = with_type(given, t);
        bench.doing("with '" + name + "' of the type " + std::string(name_of(t)));
        if (call(other) && classed) return failed("it takes '" + name + "' of the type " + std::string(name_of(t)) + ", which it says it does not");
        ++tried;
      }
      for (const int rank : {0, given.shape().rank() + 1, given.shape().rank() + 2}) {
        Inputs other = all;
        other[i].second = with_rank(given, rank);
        bench.doing("with '" + name + "' of rank " + std::to_string(rank));
        const bool taken = call(other).is_ok();
        if (taken && ranked && !(role.ranks & TN_RANK(rank))) return failed("it takes '" + name + "' of rank " + std::to_string(rank) + ", which it says it does not");
        ++tried;
      }
    }
  }
  bench.doing("with an input that it does not have");
  Inputs more = all;
  more.emplace_back("no_such_input", HostArray(DType::f64, Shape{3}));
  const auto expected = call(all), got = call(more);
  if (is_role(d, "no_such_input")) return not_applicable("it has an input of any name");
  if (!expected || !got) return failed("with an extra input it stops: " + (expected ? got : expected).status().message());
  if (const std::string what = difference(*got, *expected); !what.empty() && !(d.caps & TN_CAP_NONDETERMINISTIC) && difference(*call(all), *expected).empty())
    return failed("an extra input changes the result: " + what);
  return ok(std::to_string(tried) + " cases");
}

}  // namespace tenon::validate
