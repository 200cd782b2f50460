// Derivatives against central differences, in f64.
//
// What a plugin stops gradients through is a constant of its derivative by intent. So the differences are taken of the
// function as it is, or else of the one in which these values stay what they were.
#include <algorithm>
#include <cmath>

#include "core/base/random.h"
#include "core/graph/grad.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "tools/validate/check.h"

namespace tenon::validate {
namespace {

constexpr uint64_t kVariants = 3;     // of the inputs: one may lie at a kink
constexpr int64_t kElements = 24;     // compared, of each input
constexpr double kFirst = 2e-6, kSecond = 2e-5;  // relative, to the largest of a tensor

// Makes stop_gradient give what it gave in the recorded build.
class Stops {
 public:
  explicit Stops(Runtime& runtime) : state_(std::make_shared<State>()) {
    runtime.replace(*find_op("stop_gradient/1"), [s = state_](Graph& graph, std::span<const Tensor> in, const Attrs&) -> Tensor {
      if (s->mode == Mode::record) s->seen.push_back(in[0]);
      if (s->mode != Mode::replay || s->at >= s->values.size()) return {};
      const HostArray& value = s->values[s->at++];
      if (TensorType{value.dtype(), value.shape()} != TensorType{in[0].dtype(), in[0].shape()}) return {};
      auto array = Array::from_host(graph.backend(), value);
      return array ? graph.input(*array) : Tensor{};
    });
  }
  void record() { *state_ = State{.mode = Mode::record, .seen = {}, .values = {}}; }
  Status recorded(Graph& graph) {
    state_->mode = Mode::off;
    TN_ASSIGN(const auto arrays, graph.eval(state_->seen));
    for (const Array& a : arrays) {
      TN_ASSIGN(HostArray h, a.to_host());
      state_->values.push_back(std::move(h));
    }
    return Status::ok();
  }
  void replay() { state_->mode = Mode::replay, state_->at = 0; }
  void off() { state_->mode = Mode::off; }
  bool any() const { return !state_->values.empty(); }

 private:
  enum class Mode : uint8_t { off, record, replay };
  struct State {
    Mode mode = Mode::off;
    std::vector<Tensor> seen;
    std::vector<HostArray> values;
    size_t at = 0;
  };
  std::shared_ptr<State> state_;
};

struct Leaf {
  std::string name;
  Array array;
  HostArray value;
};

HostArray direction(const Shape& shape, uint64_t seed) {
  Philox random(seed);
  HostArray d(DType::f64, shape);
  for (int64_t i = 0; i < d.numel(); ++i) d.set(i, random.normal());
  return d;
}

// The objective at the leaves' values, its derivatives, and those of their projection on fixed directions.
struct At {
  double value = 0, projected = 0;
  std::vector<HostArray> first, second;
};

class Function {
 public:
  // The subject's slots are made, and the stops recorded, at the first call.
  static Result<std::unique_ptr<Function>> open(const Bench& bench, uint64_t variant) {
    auto f = std::make_unique<Function>(bench);
    TN_ASSIGN(f->subject_, bench.make());
    for (auto& [name, value] : bench.inputs(variant)) {
      TN_ASSIGN(Array array, Array::from_host(bench.host.runtime.backend(), value));
      f->inputs_.push_back({name, std::move(array), std::move(value)});
    }
    Graph graph(bench.host.runtime);
    f->stops_.record();
    TN_RETURN_IF_ERROR(f->objective(graph).status());
    TN_RETURN_IF_ERROR(f->stops_.recorded(graph));
    f->forget();
    for (size_t i = 0; i < f->inputs_.size(); ++i)
      if (is_floating(f->inputs_[i].value.dtype()) && !f->is_constant(f->inputs_[i].name)) f->leaves_.push_back(f->inputs_[i]);
    for (const auto& t : f->subject_->instance().trainable_parameters())
      if (t.parameter->value.dtype() == DType::f64) {
        TN_ASSIGN(HostArray h, t.parameter->value.to_host());
        f->leaves_.push_back({t.parameter->name, t.parameter->value, std::move(h)});
      }
    return f;
  }
  explicit Function(const Bench& bench) : bench_(bench), stops_(bench.host.runtime) {}

  std::vector<Leaf>& leaves() { return leaves_; }
  bool stops_any() const { return stops_.any(); }

  Result<At> at(bool held, bool second_order) {
    for (Leaf& l : leaves_) TN_RETURN_IF_ERROR(l.array.assign(l.value));
    Graph graph(bench_.host.runtime);
    if (held) stops_.replay();
    auto built = objective(graph);
    stops_.off();
    TN_ASSIGN(const Tensor value, std::move(built));
    std::vector<Tensor> xs;
    for (const Leaf& l : leaves_) xs.push_back(graph.input(l.array));
    const std::vector<Tensor> first = grad(value, xs);
    TN_RETURN_IF_ERROR(graph.status());
    Tensor projected;
    for (size_t i = 0; i < first.size(); ++i) {
      TN_ASSIGN(const Array d, Array::from_host(graph.backend(), direction(first[i].shape(), 7 + i)));
      const Tensor term = sum(cast(first[i], DType::f64) * graph.input(d));
      projected = projected.valid() ? projected + term : term;
    }
    std::vector<Tensor> wanted{value, projected};
    wanted.insert(wanted.end(), first.begin(), first.end());
    if (second_order)
      for (const Tensor& t : grad(projected, xs)) wanted.push_back(t);
    forget();
    TN_RETURN_IF_ERROR(graph.status());
    TN_ASSIGN(const auto arrays, graph.eval(wanted));
    At out;
    for (size_t i = 0; i < arrays.size(); ++i) {
      TN_ASSIGN(HostArray h, arrays[i].to_host());
      if (i == 0) out.value = h.at(0);
      else if (i == 1) out.projected = h.at(0);
      else (i < 2 + first.size() ? out.first : out.second).push_back(std::move(h));
    }
    return out;
  }

 private:
  void forget() {  // what a step would change
    subject_->instance().forget_step();
    subject_->own_updates();
  }
  bool is_constant(const std::string& name) const {
    const tn_descriptor& d = bench_.descriptor;
    for (uint32_t i = 0; TN_COVERS(&d, n_roles) && i < d.n_roles; ++i)
      if (name == d.roles[i]->name) return (d.roles[i]->flags & TN_ROLE_CONSTANT) != 0;
    return false;
  }
  Result<Tensor> objective(Graph& graph) {
    std::vector<NamedTensor> in;
    for (const Leaf& l : inputs_) in.push_back({l.name, graph.input(l.array)});
    TN_ASSIGN(const Built built, subject_->build(graph, {.total_steps = 10, .lr = 0.05, .key = bench_.seed, .train = true}, in));
    if (!built.objective.valid()) return internal_error("there is no objective");
    return built.objective;
  }

  const Bench& bench_;
  Stops stops_;
  std::unique_ptr<Subject> subject_;
  std::vector<Leaf> inputs_, leaves_;
};

double largest(const HostArray& a) {
  double m = 0;
  for (int64_t i = 0; i < a.numel(); ++i) m = std::max(m, std::abs(a.at(i)));
  return m;
}
bool near(double got, double expected, double scale, double tolerance) { return std::abs(got - expected) <= tolerance * (1 + scale); }

std::string apart(const std::string& what, double got, double expected) {
  char text[96];
  std::snprintf(text, sizeof text, " is %.9g, differences show %.9g", got, expected);
  return what + text;
}

// What is wrong with the first derivatives; "" when nothing is.
Result<std::string> first_order(Function& f, bool held) {
  TN_ASSIGN(const At here, f.at(held, false));
  for (size_t l = 0; l < f.leaves().size(); ++l) {
    Leaf& leaf = f.leaves()[l];
    const int64_t n = leaf.value.numel();
    for (int64_t i = 0; i < n; i += std::max<int64_t>(1, n / kElements)) {
      const double x = leaf.value.at(i), h = 1e-5 * std::max(1.0, std::abs(x));
      leaf.value.set(i, x + h);
      TN_ASSIGN(const At up, f.at(held, false));
      leaf.value.set(i, x - h);
      TN_ASSIGN(const At down, f.at(held, false));
      leaf.value.set(i, x);
      const double expected = (up.value - down.value) / (2 * h), got = here.first[l].at(i);
      if (!near(got, expected, std::max(largest(here.first[l]), std::abs(here.value)), kFirst))
        return apart("the derivative by element " + std::to_string(i) + " of '" + leaf.name + "'", got, expected);
    }
  }
  return std::string();
}

Result<std::string> second_order(Function& f, bool held) {
  TN_ASSIGN(const At here, f.at(held, true));
  for (size_t l = 0; l < f.leaves().size(); ++l)
    for (uint64_t trial = 0; trial < 2; ++trial) {
      Leaf& leaf = f.leaves()[l];
      const HostArray middle = leaf.value, d = direction(middle.shape(), 50 + trial);
      const double h = 2e-5;
      const auto move = [&](double by) {
        for (int64_t i = 0; i < middle.numel(); ++i) leaf.value.set(i, middle.at(i) + by * d.at(i));
        return f.at(held, false);
      };
      const auto up = move(h), down = move(-h);
      leaf.value = middle;
      if (!up || !down) return (up ? down : up).status();
      double got = 0;
      for (int64_t i = 0; i < middle.numel(); ++i) got += here.second[l].at(i) * d.at(i);
      const double expected = (up->projected - down->projected) / (2 * h);
      if (!near(got, expected, std::max(largest(here.second[l]), std::abs(here.projected)), kSecond))
        return apart("the second derivative by '" + leaf.name + "' along a direction", got, expected);
    }
  return std::string();
}

const char* kHeld = "with what it stops gradients through held constant";

// Whether the derivatives of some variant of the inputs are right; `order` 1 or 2.
Verdict compare(const Bench& bench, int order) {
  std::string wrong;
  for (uint64_t variant = 0; variant < kVariants; ++variant) {
    auto opened = Function::open(bench, variant);
    if (!opened) return failed(opened.status().message());
    Function& f = **opened;
    if (f.leaves().empty()) return not_applicable("none of its inputs is differentiated");
    for (const bool held : {false, true}) {
      if (held && !f.stops_any()) continue;
      auto what = first_order(f, held);
      if (what && what->empty() && order == 2) what = second_order(f, held);
      if (!what) return failed(what.status().message());
      if (what->empty()) return ok(held ? kHeld : "");
      if (wrong.empty() || !held) wrong = *what;
    }
  }
  return failed(wrong);
}

Verdict none_taken(const Bench& bench) {
  return not_applicable(bench.is_procedure() ? "a procedure is no function of tensors" : bench.kind->no_derivative);
}

}  // namespace

Verdict check_first_derivative(const Bench& bench) {
  if (bench.is_procedure() || bench.kind->no_derivative) return none_taken(bench);
  return compare(bench, 1);
}

Verdict check_second_derivative(const Bench& bench) {
  if (bench.is_procedure() || bench.kind->no_derivative) return none_taken(bench);
  const tn_descriptor& d = bench.descriptor;
  if (d.caps & TN_CAP_FIRST_ORDER) {
    if (!TN_HAS(&d, second_order_reason) || !*d.second_order_reason) return failed("it says that it has no second derivative, but not why");
    const std::string reason = d.second_order_reason;
    if (std::string_view(d.kind) != TN_KIND_LOSS) return not_applicable("it has none: " + reason);
    auto f = Function::open(bench, 0);
    if (!f) return failed(f.status().message());
    const auto refused = (*f)->at(false, true);
    if (refused) return failed("a second derivative was to be refused, and is not");
    if (refused.status().message().find(reason) == std::string::npos) return failed("the refusal does not give the reason: " + refused.status().message());
    return ok("refused: " + reason);
  }
  const Verdict first = compare(bench, 1);
  if (first.outcome == Outcome::failed) return not_applicable("the first derivative is wrong already");
  return first.outcome == Outcome::ok ? compare(bench, 2) : first;
}

}  // namespace tenon::validate
