// One plugin with a member of every kind, small but real: what the C++ layer can express, as a test of it.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

// A stateful loss whose value differs from what is differentiated, with a probe, saved bytes and a custom
// gradient.
struct RunningLoss {
  struct Transform {
    static constexpr const char* name = "transform";
    double power;
    explicit Transform(tn::Setup& s) : power(s.real("power", 2, "of the square").above(0)) {
      s.input("x", "[..]");
    }
    void run(tn::Build& b) const {
      b.emit("y", square(b["x"]) * power);
      b.emit("note", "done");
    }
  };
  using Probes = tn::List<Transform>;
  static constexpr const char* first_order_reason = "its surrogate is linear in the model's output";
  static constexpr uint32_t caps = TN_CAP_WHOLE_BATCH;
  static constexpr uint32_t version = 3;

  double decay;
  int64_t epochs = 0;
  explicit RunningLoss(tn::Setup& s)
      : decay(s.real("decay", 0.5, "of the running mean").at_least(0).below(1)) {
    s.input("prediction", "[B]").rank(1);
    s.input("part", "any number of further terms").many();
  }
  void init(tn::Init& i) const { i.state("mean", {}, 1.0, TN_F64); }
  void build(tn::Build& b) const {
    const tn::Tensor x = b["prediction"], now = mean(square(x));
    b.state("mean") = b.state("mean") * decay + cast(now, TN_F64) * (1 - decay);
    tn::Tensor surrogate = mean(x * stop_gradient(x));
    for (const tn::Tensor& t : b.all("part")) surrogate = surrogate + mean(t);
    b.loss(custom_gradient(surrogate, {x}, [](tn::Vjp& v) { v[0] = v.x(0) * v.cotangent * 2.0; }));
    b.report(now);
  }
  void on_epoch(tn::Ctx&) { ++epochs; }
  void save(tn::Bytes& b) const { b.put(epochs); }
  void load(tn::Bytes& b, uint32_t stored) {
    if (stored != version) throw tn::Error("state of an unknown version");
    epochs = b.get<int64_t>();
  }
};

struct Normalised {
  explicit Normalised(tn::Setup& s) { s.input("losses", "[B]"); }
  void build(tn::Build& b) const { b.emit("weights", b["losses"] / sum(b["losses"])); }
};

struct Scaled {
  explicit Scaled(tn::Setup& s) { s.input("raw", "the stored weight"); }
  void init(tn::Init& i) const { i.trainable("scale", {}, 2.0, TN_F64); }
  void build(tn::Build& b) const { b.emit("weight", b["raw"] * b.state("scale")); }
  void invert(tn::Build& b) const { b.emit("raw", b["weight"] / b.state("scale")); }
};

struct Balanced {
  explicit Balanced(tn::Setup& s) { s.input("logits", "[T, E]"); }
  void init(tn::Init& i) const { i.state("bias", {2}); }
  void build(tn::Build& b) const { b.emit("gates", b["logits"]); }
  void after_step(tn::Ctx& c) { c.state("bias") = c.state("bias") + 1.0; }
};

struct Sign {
  double epsilon;
  explicit Sign(tn::Setup& s) : epsilon(s.real("epsilon", 0.1, "size").above(0)) {
    s.input("input", "[B, ..]");
  }
  void build(tn::Build& b, const tn::Target& target) const {
    const tn::Tensor x = b["input"];
    b.emit("x_adv", x + target(x).per_sample * epsilon);
  }
};

struct Bits {
  std::vector<int64_t> widths;
  explicit Bits(tn::Setup& s) : widths(s.integers("bits", "widths to choose from", {2, 4, 8})) {
    s.input("x", "[..]");
  }
  void init(tn::Init& i, const tn_site&) const { i.trainable("scale", {}, 1.0); }
  void build(tn::Build& b, const tn_site& site) const {
    b.emit("y", b["x"] * static_cast<double>(widths.at(static_cast<size_t>(site.choice))));
  }
  const std::vector<int64_t>& choices(const tn_site&) const { return widths; }
};

struct Average {
  explicit Average(tn::Setup&) {}
  void aggregate(tn::Ctx& c, const tn_round& r) const {
    c.emit("params", tn::Tensor{c.raw, r.params} + mean(tn::Tensor{c.raw, r.deltas}, 0));
  }
};

struct Loop {
  explicit Loop(tn::Setup&) {}
  void run(tn::Ctx& c) const {
    tn::Session session(c);
    session.run({session.scalar(1)});
  }
};

struct Searching {
  explicit Searching(tn::Setup& s) { s.real("lr", 0.1, "learning rate"); }
  void step(tn::Step& s, const tn::Closure& f) const {
    const std::vector<tn::Tensor> at = f.params();
    const tn::Tensor loss = f.loss(at);
    for (tn::Param p : s) p.update(p.value() - loss * s.lr());
    s.metric("loss", loss);
  }
  void step(tn::Step& s, const tn::Objectives& o) const {
    for (uint32_t i = 0; i < s.size(); ++i) s[i].update(s[i].value() - o.grad(0, i) * o.weight(0));
  }
  void project(tn::Step& s) const {
    for (tn::Param p : s) p.update(minimum(p.value(), 1.0));
  }
};

struct Double {
  static constexpr int32_t n_in = 1, n_out = 1, device = TN_DEVICE_CPU;
  explicit Double(tn::Setup&) {}
  void infer(const tn_type* const* in, uint32_t, tn_type* const* out, uint32_t) const { *out[0] = *in[0]; }
  std::vector<tn::Tensor> compose(const std::vector<tn::Tensor>& in) const { return {in[0] + in[0]}; }
  int32_t run(const tn_kernel_call& call) const {
    if (call.in[0]->dtype != TN_F64 || call.in[0]->rank != 1) return TN_STATUS_UNSUPPORTED;
    const auto* x = static_cast<const double*>(call.in[0]->data);
    auto* y = static_cast<double*>(call.out[0]->data);
    for (int64_t i = 0; i < call.in[0]->shape[0]; ++i) y[i] = 2 * x[i * call.in[0]->strides[0]];
    return TN_STATUS_OK;
  }
};

struct Throwing {
  explicit Throwing(tn::Setup& s) { s.input("x", "[B]"); }
  void build(tn::Build&) const { throw 42; }
};

}  // namespace

TN_PLUGIN("Test", "1.0", tn::loss<RunningLoss>("running", "help"), tn::loss<Throwing>("throwing", "help"),
          tn::reweighter<Normalised>("normalised", "help"), tn::parametrization<Scaled>("scaled", "help"),
          tn::router<Balanced>("balanced", "help"), tn::attack<Sign>("sign", "help"),
          tn::quantizer<Bits>("bits", "help"), tn::aggregator<Average>("average", "help"),
          tn::procedure<Loop>("loop", "help"), tn::optimizer<Searching>("searching", "help"),
          tn::kernel<Double>("org.example.double/1", "help"))
