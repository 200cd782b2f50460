// The losses of EQ-Net, which trains one set of weights for many quantised forms.
//
//   Xu, Han, Tian, Yang, Zhang 2023, "EQ-Net: Elastic Quantization Neural Networks", ICCV 2023, arXiv 2308.07650
//
// weight_distribution_regularization   float weights W of L layers, each of n elements, z = (W - mean) / std with the unbiased std,
//   Skew = mean z^3, Kurt = mean z^4, over all layers but the first:
//
//     L_WDR = 1/(L - 1) sum [ skewness_rate Skew^2 + kurtosis_rate (Kurt - kurtosis_target)^2 ]
//
//   1.8 is the kurtosis of a uniform law: such weights suit all bit widths, symmetric as well as asymmetric grids.
//
// group_progressive_guidance   logits z_0, z_1, .. of sub-networks from the most bits to the fewest, each guided by the one before
//   it, which is constant:
//
//     L_GPG = CE(z_0, y) + sum over j > 0 of  alpha KL(softmax z_{j-1} || softmax z_j) + (1 - alpha) CE(z_j, y)
//
//   guide: previous; highest: by z_0; none: CE alone. In training the model's own output is z_0, and the model is applied
//   again in num_subnet - 1 forms: random ones, then one of the fewest bits. In evaluation it is the cross-entropy.
#include "../quantizers/elastic_forms.hpp"

namespace {

using tn::Tensor;

class WeightDistribution {
 public:
  explicit WeightDistribution(tn::Setup& s)
      : kurtosis_rate_(s.real("kurtosis_rate", 0.015, "weight of the kurtosis").at_least(0).finite()),
        skewness_rate_(s.real("skewness_rate", 1, "weight of the skewness").at_least(0).finite()),
        target_(s.real("kurtosis_target", 1.8, "kurtosis that is aimed at; 1.8 is a uniform law's").at_least(1).finite()),
        skip_first_(s.flag("skip_first", true, "leave out the first weight")) {
    s.input("weight", "[..] the float weight of each layer, in their order").many();
  }

  void build(tn::Build& b) const {
    std::vector<Tensor> weights = b.all("weight"), variances, skewness, kurtosis;
    if (skip_first_ && !weights.empty()) weights.erase(weights.begin());
    if (weights.empty()) throw tn::Error(skip_first_ ? "two weights are needed, since the first is left out" : "a weight is needed");
    for (const Tensor& w : weights) {
      if (w.numel() < 2) throw tn::Error("a weight of " + std::to_string(w.numel()) + " elements has no distribution; at least 2 are needed");
      const Tensor centred = w - mean(w), variance = sum(square(centred)) / static_cast<double>(w.numel() - 1);
      variances.push_back(unsqueeze(variance, 0));
      const Tensor z = centred * rsqrt(variance), z2 = square(z);
      skewness.push_back(unsqueeze(mean(z2 * z), 0));
      kurtosis.push_back(unsqueeze(mean(square(z2)), 0));
    }
    b.check(min(tn::concat(variances)) > 0.0, "a weight is constant: its distribution has no skewness and no kurtosis");
    const Tensor skew = tn::concat(skewness), kurt = tn::concat(kurtosis);
    b.emit("skewness", skew);
    b.emit("kurtosis", kurt);
    b.metric("mean_kurtosis", mean(kurt));
    b.loss(mean(square(skew)) * skewness_rate_ + mean(square(kurt - target_)) * kurtosis_rate_);
  }

 private:
  double kurtosis_rate_, skewness_rate_, target_;
  bool skip_first_;
};

class ProgressiveGuidance {
 public:
  static constexpr uint32_t caps = TN_CAP_USES_MODEL;

  explicit ProgressiveGuidance(tn::Setup& s)
      : alpha_(s.real("alpha", 0.5, "weight of the guidance against the labels").at_least(0).at_most(1)),
        guide_(s.text("guide", "previous", "what guides a sub-network", {"previous", "highest", "none"})),
        num_subnet_(s.integer("num_subnet", 3, "sub-networks of a step").at_least(2)) {
    s.input("logits", "[B, C] of the model; or of several sub-networks, from the most bits to the fewest").many().rank(2);
    s.input("labels", "[B] class numbers", tn::integer).rank(1);
    s.input("input", "[B, ..] of the model, to apply it again").optional();
  }

  void build(tn::Build& b) const {
    std::vector<Tensor> z = b.all("logits");
    if (z.empty()) z = sub_networks(b, b["logits"]);
    std::vector<Tensor> losses;
    for (size_t j = 0; j < z.size(); ++j) {
      const Tensor ce = mean(cross_entropy(z[j], b["labels"]));
      if (j == 0 || guide_ == "none") {
        losses.push_back(ce);
        continue;
      }
      const Tensor teacher = stop_gradient(z[guide_ == "highest" ? 0 : j - 1]);
      const Tensor kl = mean(sum(softmax(teacher) * (log_softmax(teacher) - log_softmax(z[j])), -1));
      losses.push_back(kl * alpha_ + ce * (1 - alpha_));
    }
    for (Tensor& l : losses) l = unsqueeze(l, 0);
    const Tensor all = tn::concat(losses), total = sum(all);
    b.emit("losses", all);
    b.emit("total", total);
    b.loss(total);
  }

 private:
  std::vector<Tensor> sub_networks(const tn::Build& b, Tensor highest) const {
    std::vector<Tensor> z = {highest};
    if (!b.train()) return z;
    if (!b.has("input")) throw tn::Error("the role 'input' is not bound: the sub-networks have nothing to be applied to");
    const tn::Supernet net{b};
    const tn::Model model{b};
    const elastic::Sites sites(net);
    const auto& random = b.extension<tn_rng_api>(TN_EXT_RNG);
    std::vector<int64_t> present;
    for (const tn_site& s : net.sites()) present.push_back(s.choice);
    for (int64_t j = 1; j < num_subnet_; ++j) {
      const uint64_t key = random.split(random.key(b.raw, "forms"), static_cast<uint64_t>(j));
      net.configure(sites.draw(b, key, j + 1 < num_subnet_ ? elastic::Bits::any : elastic::Bits::lowest));
      z.push_back(model(b["input"]));
    }
    net.configure(present);
    return z;
  }

  double alpha_;
  std::string guide_;
  int64_t num_subnet_;
};

constexpr const char* kPaper = "Xu et al. 2023, arXiv 2308.07650";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<WeightDistribution>("weight_distribution_regularization", "Pulls the weights of layers towards a uniform law", kPaper),
          tn::loss<ProgressiveGuidance>("group_progressive_guidance", "Sub-networks of falling bit width, each guided by the one before it", kPaper))
