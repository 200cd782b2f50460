#include "core/golden/run.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "core/plugin/probe.h"

namespace tenon::golden {
namespace {

constexpr std::string_view kEach[] = {"_per_call", "_per_step", "_per_round"};

// "x" of "x_per_step", and of "x_per_step/0"; "" when the name is not of that form.
std::string each_of(const std::string& name) {
  for (std::string_view suffix : kEach)
    if (name.size() > suffix.size() && name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  return {};
}

// k and the rest of "step<k>:rest".
struct Numbered {
  size_t step;
  std::string rest;
};
std::optional<Numbered> numbered(const std::string& name) {
  if (!name.starts_with("step")) return std::nullopt;
  Numbered n{};
  const char *first = name.data() + 4, *last = name.data() + name.size();
  const auto [end, error] = std::from_chars(first, last, n.step);
  if (error != std::errc() || end == first || end == last || *end != ':') return std::nullopt;
  n.rest.assign(end + 1, last);
  return n;
}

// The name that all calls' values of `key` lie under.
std::string stacked_name(const std::string& key) {
  if (const std::string each = each_of(key); !each.empty()) return each;
  constexpr std::string_view sequence = "_sequence";
  if (key.ends_with(sequence)) return key.substr(0, key.size() - sequence.size());
  if (const size_t at = key.find("_sequence:"); at != std::string::npos) return key.substr(0, at) + key.substr(at + sequence.size());
  return {};
}

std::string without_prefix(const std::string& key) {
  for (std::string_view prefix : {"aux:", "diagnostic:"})
    if (key.starts_with(prefix)) return key.substr(prefix.size());
  return key;
}

// Every name that an expected key may be found under.
std::vector<std::string> names_for(const std::string& expected) {
  std::vector<std::string> out;
  const auto add = [&](const std::string& s) {
    if (!s.empty() && std::find(out.begin(), out.end(), s) == out.end()) out.push_back(s);
  };
  const auto n = numbered(expected);
  for (const std::string& key : {expected, n ? n->rest : std::string()}) {
    if (key.empty()) continue;
    add(key);
    add(role_of(key));
    add(without_prefix(key));
    add(stacked_name(without_prefix(key)));
    if (key.ends_with("_final")) add(key.substr(0, key.size() - 6));
  }
  return out;
}

}  // namespace

HostArray row(const HostArray& a, int64_t i) {
  Shape shape;
  for (int d = 1; d < a.shape().rank(); ++d) shape.push_back(a.shape()[d]);
  HostArray out(a.dtype(), shape);
  if (out.size_bytes() > 0) std::memcpy(out.data(), a.data() + static_cast<size_t>(i) * out.size_bytes(), out.size_bytes());
  return out;
}

Result<std::vector<Inputs>> calls_of(const Case& c) {
  size_t n = 0;
  for (const auto& [name, a] : c.inputs) {
    if (const auto at = numbered(name)) n = std::max(n, at->step + 1);
    if (each_of(name).empty()) continue;
    if (a.shape().rank() == 0) return invalid("input '" + name + "' must have a row for each call");
    const auto rows = static_cast<size_t>(a.shape()[0]);
    if (n != 0 && rows != n) return invalid("input '" + name + "' has " + std::to_string(rows) + " rows, the others say " + std::to_string(n) + " calls");
    n = rows;
  }
  if (n > 1000000) return invalid("there are more than a million calls");
  std::vector<Inputs> out(n == 0 ? static_cast<size_t>(c.repeat) : n);
  for (const auto& [name, a] : c.inputs) {
    const auto at = numbered(name);
    const std::string each = each_of(name);
    for (size_t i = 0; i < out.size(); ++i) {
      if (!each.empty()) out[i].emplace_back(each, row(a, static_cast<int64_t>(i)));
      else if (!at) out[i].emplace_back(name, a);
      else if (at->step == i) out[i].emplace_back(at->rest, a);
    }
  }
  return out;
}

Result<Tensor> upload(Graph& graph, const HostArray& a) {
  TN_ASSIGN(const Array array, Array::from_host(graph.backend(), a));
  return graph.input(array);
}

Value value_of(const EmittedValue& v) {
  return std::visit(
      [](const auto& x) -> Value {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>) return x;
        else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, int64_t>) return HostArray::of<T>(std::span<const T>(&x, 1), Shape{});
        else return HostArray::of(x);
      },
      v);
}

Status Record::evaluate(Graph& graph, const std::function<Tensor(const std::string& key)>& find, std::span<const Update> updates,
                        const std::vector<NamedTensor>& checks) {
  std::vector<std::string> keys;
  std::vector<Tensor> tensors;
  for (const auto& [expected, unused] : case_.expected)
    for (const std::string& key : names_for(expected)) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      const Tensor t = find(key);
      if (!t.valid()) continue;
      keys.push_back(key);
      tensors.push_back(t);
    }
  TN_RETURN_IF_ERROR(graph.status());
  for (const NamedTensor& check : checks) tensors.push_back(check.value);
  TN_ASSIGN(const auto arrays, graph.eval(tensors, updates));
  TN_RETURN_IF_ERROR(verify(checks, std::span(arrays).subspan(keys.size())));
  for (size_t i = 0; i < keys.size(); ++i) {
    TN_ASSIGN(HostArray h, arrays[i].to_host());
    add(keys[i], std::move(h));
  }
  return Status::ok();
}

const Value* Record::at(size_t call, const std::string& key) const {
  if (call >= calls_.size()) return nullptr;
  const auto it = calls_[call].find(key);
  return it == calls_[call].end() ? nullptr : &it->second;
}

Result<Value> Record::stacked(const std::string& key) const {
  std::vector<const HostArray*> parts;
  for (size_t i = 0; i < calls_.size(); ++i)
    if (const Value* v = at(i, key)) {
      const auto* a = std::get_if<HostArray>(v);
      if (!a || (!parts.empty() && (a->shape() != parts[0]->shape() || a->dtype() != parts[0]->dtype())))
        return not_found("'" + key + "' can't be put together from all calls");
      parts.push_back(a);
    }
  if (parts.empty() || parts[0]->shape().rank() == kMaxRank) return not_found("the plugin does not give '" + key + "'");
  Shape shape{static_cast<int64_t>(parts.size())};
  for (int64_t d : parts[0]->shape()) shape.push_back(d);
  HostArray out(parts[0]->dtype(), shape);
  const size_t bytes = parts[0]->size_bytes();
  for (size_t i = 0; i < parts.size() && bytes > 0; ++i) std::memcpy(out.data() + i * bytes, parts[i]->data(), bytes);
  return Value(std::move(out));
}

Result<Value> Record::lookup(const std::string& expected_key, const Expected& expected) const {
  if (const auto n = numbered(expected_key)) {
    for (const std::string& key : {n->rest, role_of(n->rest), without_prefix(n->rest)})
      if (const Value* v = at(n->step, key)) return *v;
  }
  const auto fits = [&](const Value& v) {
    const auto *a = std::get_if<HostArray>(&v), *e = std::get_if<HostArray>(&expected.value);
    return !a || !e || a->shape() == e->shape();
  };
  const Value* latest = nullptr;
  for (const std::string& key : {expected_key, role_of(expected_key), without_prefix(expected_key)}) {
    for (size_t i = calls_.size(); !latest && i-- > 0;) latest = at(i, key);
    if (latest && fits(*latest)) return *latest;
    if (auto all = stacked(key); all && fits(*all)) return all;
  }
  if (const std::string key = stacked_name(without_prefix(expected_key)); !key.empty())
    if (auto all = stacked(key)) return all;
  if (expected_key.ends_with("_final")) {
    const std::string key = expected_key.substr(0, expected_key.size() - 6);
    for (size_t i = calls_.size(); i-- > 0;)
      if (const Value* v = at(i, key)) return *v;
  }
  if (latest) return *latest;
  return not_found("the plugin does not give it");
}

std::vector<Comparison> Record::compare() const {
  std::vector<Comparison> out;
  for (const auto& [key, expected] : case_.expected) {
    auto got = lookup(key, expected);
    if (got) {
      out.push_back(golden::compare(key, *got, expected, case_.rtol, case_.atol));
    } else {
      out.push_back({});
      out.back().key = key;
      out.back().problem = got.status().message();
    }
  }
  return out;
}

namespace {

// A case is written to its kind's convention when it has one of these inputs ("param:": one that begins so), or when all
// its inputs are roles of the plugin.
struct Runner {
  std::string_view kind;
  std::array<std::string_view, 2> inputs;
  Status (*run)(Bench&, const Case&, Record&);

  bool follows(const Case& c, const tn_descriptor& d) const {
    for (const auto& [name, unused] : c.inputs)
      for (std::string_view known : inputs)
        if (!known.empty() && (known.back() == ':' ? name.starts_with(known) : name == known)) return true;
    const auto calls = calls_of(c);
    return !calls || check_roles(d, "", (*calls)[0]).is_ok();
  }
};
constexpr Runner kRunners[] = {
    {"loss", {}, run_loss},
    {"optimizer", {"param:"}, run_optimizer},
    {"reweighter", {"losses", "logits"}, run_reweighter},
    {"parametrization", {"raw", "initial_weight"}, run_parametrization},
    {"router", {"logits"}, run_router},
    {"attack", {"x"}, run_attack},
    {"quantizer", {"x"}, run_quantizer},
    {"aggregator", {"participation"}, run_aggregator},
    {"module", {"x"}, run_module},
};

// The kind's own convention where the case follows it; a named probe, or else the plugin's default probe.
Status run_case(Bench& bench, const Case& c, Record& record) {
  if (!c.probe.empty()) return run_probe(bench, c, record);
  TN_ASSIGN(const tn_descriptor* d, bench.catalog.find("tenon." + c.kind + "/1", c.id));
  for (const Runner& r : kRunners)
    if (r.kind == c.kind && (r.follows(c, *d) || !find_probe(*d, "default"))) return r.run(bench, c, record);
  return run_probe(bench, c, record);
}

}  // namespace

CaseResult run(Runtime& runtime, Catalog& catalog, const Case& c) {
  CaseResult result{.name = c.name, .target = c.target, .status = {}, .values = {}};
  Bench bench{runtime, catalog};
  Record record(c);
  result.status = run_case(bench, c, record);
  if (result.status.is_ok()) result.values = record.compare();
  return result;
}

}  // namespace tenon::golden
