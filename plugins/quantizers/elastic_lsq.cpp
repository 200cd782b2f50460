// The quantizer of EQ-Net: learned step sizes with offsets, for several bit widths, granularities and symmetries of one weight.
//
//   Xu, Han, Tian, Yang, Zhang 2023, "EQ-Net: Elastic Quantization Neural Networks", ICCV 2023, arXiv 2308.07650;
//   Esser et al. 2020, "Learned Step Size Quantization", arXiv 1902.08153
//
// b bits, step s, offset beta (0 when symmetric), r = round half to even:
//
//   S = |s| + 1e-6,  v = (x - beta) / S,  y = r(clamp(v, Qn, Qp)) S + beta
//   Qn = -2^(b-1), Qp = 2^(b-1) - 1;  for an input that was never negative at calibration Qn = 0, Qp = 2^b - 1
//
// With inside = (Qn <= v <= Qp), rounding passing gradients straight through, and g the gradient of y:
//
//   dx = g inside,  ds = c sign(s) sum g (r - inside v),  dbeta = c sum g (1 - inside)
//   c = 1 / sqrt(Qp n), n: elements that share s. grad_scale: official takes c = 2 / sqrt(Qp size / size of axis 1) for
//   per-channel steps, as the authors' program does.
//
// Initial s and beta: the range of x, shrunk by 1 - i/100, i = 0 .. 79, whichever gives the least mean |y - x|^2.4 first.
//
// One form is fixed by bits, symmetric and per_channel. With elastic: true the site offers all forms of weight_bits or
// act_bits, each with a trained step of its own: tables of steps [channels or 1, 2 widths], symmetric ones first, and of offsets
// [channels or 1, widths]. The first and the last layer keep 8 bits unless keep_first_last_8bit is false. All forms of a site
// are one graph with other numbers in it, so that a step in new forms needs no new plan.
#include <cmath>

#include "elastic_forms.hpp"

namespace {

using elastic::Form;
using tn::Tensor;

struct Range {
  double scale, offset;
};

// The search over n elements.
Range search_range(const double* x, int64_t n, int64_t bits, bool symmetric, bool is_unsigned) {
  const double half = std::pow(2, static_cast<double>(bits) - 1), qn = is_unsigned ? 0 : -half, qp = is_unsigned ? 2 * half - 1 : half - 1;
  double low = x[0], high = x[0];
  for (int64_t i = 1; i < n; ++i) low = std::fmin(low, x[i]), high = std::fmax(high, x[i]);
  if (symmetric) {
    high = std::fmax(std::fabs(low), std::fabs(high));
    low = is_unsigned ? 0 : -high;
  }
  Range best{0, 0};
  double least = HUGE_VAL;
  for (int i = 0; i < 80 && high > low; ++i) {
    const double shrink = 1 - 0.01 * i, s = (high - low) * shrink / (qp - qn), beta = symmetric ? 0 : low * shrink - s * qn;
    double error = 0;
    for (int64_t k = 0; k < n; ++k) {
      const double q = std::nearbyint(std::fmin(std::fmax((x[k] - beta) / s, qn), qp)) * s + beta;
      error += std::pow(std::fabs(q - x[k]), 2.4);
    }
    if (error < least) least = error, best = {s, beta};
  }
  return best;
}

class ElasticLsq {
 public:
  explicit ElasticLsq(tn::Setup& s) {
    fixed_.bits = s.integer("bits", 8, "bit width of a single form").at_least(elastic::kMinBits).at_most(elastic::kMaxBits);
    fixed_.symmetric = s.flag("symmetric", true, "no offset");
    asymmetric_activations_ = s.flag("asymmetric_activations", false, "an offset of activations, whatever the weights have");
    fixed_.per_channel = s.flag("per_channel", false, "weights: a step for each output channel");
    unsigned_ = s.flag("unsigned", false, "the values are not negative; activations are looked at");
    official_ = s.text("grad_scale", "lsq", "factor of the gradients of steps and offsets", {"lsq", "official"}).current == "official";
    elastic_ = s.flag("elastic", false, "all forms, one of which is chosen from step to step");
    const std::vector<int64_t> widths = {2, 3, 4, 5, 6, 7, 8};
    weight_bits_ = s.integers("weight_bits", "elastic: bit widths of weights", widths).at_least(elastic::kMinBits).at_most(elastic::kMaxBits);
    act_bits_ = s.integers("act_bits", "elastic: bit widths of activations", widths).at_least(elastic::kMinBits).at_most(elastic::kMaxBits);
    keep_ends_ = s.flag("keep_first_last_8bit", true, "elastic: the first and the last layer have 8 bits in all forms");
    s.input("x", "[O, ..] weight or [B, ..] activation");
    for (auto* bits : {&weight_bits_, &act_bits_}) {
      std::sort(bits->begin(), bits->end());
      bits->erase(std::unique(bits->begin(), bits->end()), bits->end());
      if (bits->empty()) throw tn::Error("weight_bits and act_bits need at least one bit width");
    }
  }

  const std::vector<int64_t>& choices(const tn_site& site) {
    choices_.clear();
    if (!elastic_) return choices_;
    const bool weight = site.flags & TN_SITE_WEIGHT;
    for (const int64_t bits : widths(site))
      for (const bool per_channel : {false, true})
        for (const bool symmetric : {false, true})
          if (weight || !per_channel) choices_.push_back(Form{bits, per_channel, symmetric}.code());
    return choices_;
  }

  void init(tn::Init& i, const tn_site& site) const {
    const Tensor x = i["x"];
    if (x.rank() < 1 || x.numel() == 0) throw tn::Error("there is nothing to find a range of: x has shape " + text(x.shape()));
    const std::vector<double> values = to_host(x);
    const bool weight = site.flags & TN_SITE_WEIGHT;
    const bool is_unsigned = unsigned_ || (!weight && *std::min_element(values.begin(), values.end()) >= -1e-9);
    i.state("unsigned", {}, is_unsigned ? 1 : 0, x.dtype());
    if (elastic_) {
      for (const bool per_channel : {false, true}) {
        if (per_channel && !weight) continue;
        std::vector<Form> forms;
        for (const bool symmetric : {true, false})
          for (const int64_t bits : widths(site)) forms.push_back({bits, per_channel, symmetric});
        const Table t = search(i, x, values, forms, is_unsigned);
        i.trainable(slot_name("scale", per_channel), i.from_host(t.scale.data(), {t.channels, t.columns}, x.dtype()));
        i.trainable(slot_name("offset", per_channel), tn::narrow(i.from_host(t.offset.data(), {t.channels, t.columns}, x.dtype()), 1, t.columns / 2, t.columns / 2));
      }
      return;
    }
    const Form form = fixed(weight);
    const Table t = search(i, x, values, {form}, is_unsigned);
    i.trainable("scale", i.from_host(t.scale.data(), {t.channels}, x.dtype()));
    if (form.symmetric) i.state("offset", {t.channels}, 0, x.dtype());
    else i.trainable("offset", i.from_host(t.offset.data(), {t.channels}, x.dtype()));
  }

  void build(tn::Build& b, const tn_site& site) {
    const Tensor x = b["x"];
    const bool weight = site.flags & TN_SITE_WEIGHT;
    const Form form = elastic_ ? Form::of(choices(site).at(static_cast<size_t>(site.choice))) : fixed(weight);
    const int64_t size = x.numel(), channels = form.per_channel ? x.dim(0) : 1;

    // 2^(b-1) (1 + u) - 1 and -2^(b-1) (1 - u), u = 1 where nothing is negative.
    const double half = std::pow(2, static_cast<double>(form.bits) - 1);
    const Tensor u = b.state("unsigned"), qp = (u + 1) * half - 1, qn = (u - 1) * half;
    const double axis1 = x.rank() > 1 ? static_cast<double>(x.dim(1)) : 1;
    const Tensor c = rsqrt(qp * (official_ && form.per_channel ? static_cast<double>(size) / axis1 / 4 : static_cast<double>(size / channels)));
    const auto read = [&](const char* slot) {
      const Tensor t = elastic_ ? selected(b, site, slot, form) : static_cast<Tensor>(b.state(slot));
      tn::Dims shape;  // [channels or 1, 1, ..], to go with x
      for (int k = 0; k < x.rank(); ++k) shape.at[shape.n++] = k == 0 ? t.numel() : 1;
      return reshape(scaled(t, c), shape);
    };
    const Tensor s = abs(read("scale")) + 1e-6;
    const Tensor beta = form.symmetric && !elastic_ ? Tensor{} : read("offset");
    const Tensor v = (beta ? x - beta : x) / s;
    const Tensor clamped = where(v < qn, qn, where(v > qp, qp, v));  // at the bounds the gradient passes
    const Tensor y = tn::round_ste(clamped) * s;
    b.emit("y", beta ? y + beta : y);
  }

 private:
  Form fixed(bool weight) const {
    return {fixed_.bits, fixed_.per_channel && weight, fixed_.symmetric && (weight || !asymmetric_activations_)};
  }
  const std::vector<int64_t>& widths(const tn_site& site) const {
    static const std::vector<int64_t> eight = {8};
    if (keep_ends_ && (site.flags & (TN_SITE_FIRST | TN_SITE_LAST))) return eight;
    return site.flags & TN_SITE_WEIGHT ? weight_bits_ : act_bits_;
  }
  int64_t column(const tn_site& site, int64_t bits) const {
    const std::vector<int64_t>& w = widths(site);
    return std::find(w.begin(), w.end(), bits) - w.begin();
  }
  static const char* slot_name(const std::string& slot, bool per_channel) {
    if (slot == "scale") return per_channel ? "scale_channel" : "scale_tensor";
    return per_channel ? "offset_channel" : "offset_tensor";
  }

  // The steps or offsets of a form, [channels or 1]; zero where it has none.
  Tensor selected(tn::Build& b, const tn_site& site, const std::string& slot, const Form& form) const {
    const auto n = static_cast<int64_t>(widths(site).size());
    const bool scale = slot == "scale";
    Tensor out;
    for (const bool per_channel : {false, true}) {
      if (per_channel && !(site.flags & TN_SITE_WEIGHT)) continue;
      const Tensor table = b.state(slot_name(slot, per_channel));
      double wanted = static_cast<double>(column(site, form.bits) + (scale && !form.symmetric ? n : 0));
      if (form.per_channel != per_channel || (!scale && form.symmetric)) wanted = -1;
      const Tensor one_hot = cast_like(equal(b.arange(table.dim(1), table.dtype()), wanted), table);
      const Tensor s = sum(table * one_hot, -1);
      out = out ? out + s : s;
    }
    return out;
  }

  // Steps and offsets of forms of one granularity: a row for each channel, or one.
  struct Table {
    int64_t channels, columns;
    std::vector<double> scale, offset;
  };
  static Table search(tn::Init& i, Tensor x, const std::vector<double>& values, const std::vector<Form>& forms, bool is_unsigned) {
    Table t{forms[0].per_channel ? x.dim(0) : 1, static_cast<int64_t>(forms.size()), {}, {}};
    const int64_t n = x.numel() / t.channels;
    for (int64_t row = 0; row < t.channels; ++row)
      for (const Form& f : forms) {
        const Range r = search_range(values.data() + row * n, n, f.bits, f.symmetric, is_unsigned);
        if (r.scale == 0)
          i.raw->host->log(i.raw->host, TN_LOG_WARNING, "elastic_lsq: a tensor or channel is constant; its step is a tiny number");
        t.scale.push_back(r.scale == 0 ? 1e-8 : r.scale);
        t.offset.push_back(r.offset);
      }
    return t;
  }

  // t, with its gradient times c.
  static Tensor scaled(Tensor t, Tensor c) {
    return tn::custom_gradient(t, {t, c}, [](tn::Vjp& v) { v[0] = v.cotangent * v.x(1); });
  }

  Form fixed_;
  bool asymmetric_activations_ = false, unsigned_ = false, official_ = false, elastic_ = false, keep_ends_ = true;
  std::vector<int64_t> weight_bits_, act_bits_, choices_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::quantizer<ElasticLsq>("elastic_lsq", "Learned steps and offsets for elastic bit width, granularity and symmetry",
                                    "Xu et al. 2023, arXiv 2308.07650"))
