// Losses of unsupervised domain adaptation: features of a labelled source and of an unlabelled target are made alike, and the
// target's predictions confident and balanced.
//
//   Lv et al. 2021, "Pareto Domain Adaptation", NeurIPS 2021, arXiv 2112.04137
//   Ganin & Lempitsky 2015, arXiv 1409.7495 (dann); Long et al. 2018, arXiv 1705.10667 (cdan)
//
// domain_adversarial            L_D: a discriminator D with logit u tells source (1) from target (0); the features learn the
//                               opposite, as the gradient that reaches them is multiplied by -kappa:
//   dann     L_D = (mean softplus(-u_s) + mean softplus(u_t)) / 2,  u = D(f)
//   cdan     u = D(g x f), g = softmax(z) without a gradient; index = class * q + feature. With random_dim, for large
//            products: D((R_f f) * (R_g g) / sqrt(random_dim)), R fixed and standard normal
//   cdan_e   cdan with rows weighted by 1 + exp(-H(g)), scaled to mean 1, without a gradient; H(g) = -sum g log(g + 1e-5)
//   kappa(i) = 2 hi / (1 + exp(-i / N)) - hi in step i, hi = grl_hi, N = grl_max_iters; or grl_coefficient
//   D is the loss's own: layers of `hidden` units with ReLU, PyTorch's initial values. If domain_logits are given, D lies
//   elsewhere, and nothing is reversed.
//
// target_class_mimicking        L_T: minus the mutual information of class and sample, of refined predictions rho (eq. 5):
//   L_T = sum_k r_k log r_k - mean_i sum_k rho_ik log rho_ik,  r = mean_i rho_i;  -log K <= L_T <= 0
//   refine: bayes (eq. 3)   rho_k ~ p(target | x, v_k) p(k | x), of class-wise discriminators v_k; no gradient through these
//           code            softmax(z_k p(target | x, v_k)), as in the authors' code
//           none            softmax(z)
//   guidance_offset: log_k adds log K, so that it is 0 only for confident and balanced predictions
//
// class_domain_discriminator    L_V, which trains the v_k (eq. 4); here the target is domain 1:
//   L_V = -mean_i log p(0 | x_i, v_y_i) over source rows - mean_i sum_k rho_ik log p(1 | x_i, v_k) over target rows, rho
//   without a gradient. The model that holds the v_k should not train the features: its first layer is stop_gradient.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// The identity; its derivative is multiplied by -kappa.
Tensor reversed(Tensor x, double kappa) {
  return tn::custom_gradient(x, {x}, [kappa](tn::Vjp& v) { v[0] = v.cotangent * -kappa; });
}

// Which discriminator, and how the features learn from it.
class Conditioning {
 public:
  explicit Conditioning(tn::Setup& s)
      : kind_(s.text("kind", "dann", "what the discriminator sees", {"dann", "cdan", "cdan_e"})),
        iterations_(s.integer("grl_max_iters", 1000, "N of kappa").at_least(1)),
        high_(s.real("grl_hi", 1, "kappa in the end").above(0).finite()),
        fixed_(s.optional_real("grl_coefficient", "kappa in every step").at_least(0).finite()) {}

  bool on_classes() const { return kind_ != "dann"; }
  double kappa(int64_t step) const {
    const double progress = static_cast<double>(step) / static_cast<double>(iterations_);
    return fixed_ ? *fixed_ : 2 * high_ / (1 + std::exp(-progress)) - high_;
  }
  // [N, K] -> [N], null for equal weights.
  Tensor weights(Tensor g) const {
    if (kind_ != "cdan_e") return {};
    const Tensor w = 1 + exp(sum(g * log(g + 1e-5), -1));
    return stop_gradient(w / mean(w));
  }

 private:
  std::string kind_;
  int64_t iterations_;
  double high_;
  std::optional<double> fixed_;
};

Tensor outer(Tensor g, Tensor f) { return reshape(unsqueeze(g, 2) * unsqueeze(f, 1), {f.dim(0), g.dim(1) * f.dim(1)}); }

// weights [S + T], or null. Without, source and target count alike, however many rows they have.
Tensor adversarial_loss(Tensor u_source, Tensor u_target, Tensor weights) {
  const Tensor s = softplus(-u_source), t = softplus(u_target);
  return weights ? mean(tn::concat({s, t}) * weights) : (mean(s) + mean(t)) * 0.5;
}

void require_rows(Tensor x, const char* role) {
  if (x.dim(0) < 1)
    throw tn::Error(std::string("'") + role + "' has no rows: every batch needs source and target samples");
}

class DomainAdversarial {
 public:
  // cdan with a linear discriminator and equally many rows of source and target.
  struct Default {
    static constexpr const char* name = "default";
    Conditioning conditioning;
    explicit Default(tn::Setup& s) : conditioning(s) {
      s.input("features", "[N, q], source first").rank(2);
      s.input("logits", "[N, K]").rank(2);
      s.input("discriminator_weight", "[K q]").rank(1);
    }
    void run(tn::Build& b) const {
      const Tensor f = b["features"], g = stop_gradient(softmax(b["logits"])),
                   w = unsqueeze(b["discriminator_weight"], 1);
      const Tensor u = squeeze(matmul(outer(g, reversed(f, conditioning.kappa(0))), w), 1);
      const int64_t half = f.dim(0) / 2;
      const Tensor loss = adversarial_loss(narrow(u, 0, 0, half), narrow(u, 0, half, half), conditioning.weights(g));
      b.emit("loss", loss);
      b.emit("grad:features_before_reversal", grad(loss, f));
    }
  };
  using Probes = tn::List<Default>;

  explicit DomainAdversarial(tn::Setup& s)
      : conditioning_(s),
        hidden_(s.integers("hidden", "units of the discriminator's hidden layers", {64})),
        random_dim_(
            s.integer("random_dim", 0, "of cdan: size of the random map in place of the product; 0: the product")
                .at_least(0)
                .at_most(1 << 20)) {
    for (int64_t n : hidden_)
      if (n < 1) throw tn::Error("hidden must hold numbers of units of at least 1");
    s.input("features_source", "[S, q]").optional().rank(2);
    s.input("features_target", "[T, q]").optional().rank(2);
    s.input("logits_source", "[S, K], of cdan").optional().rank(2);
    s.input("logits_target", "[T, K], of cdan").optional().rank(2);
    s.input("domain_logits_source", "[S], in place of the features, of a discriminator elsewhere").optional();
    s.input("domain_logits_target", "[T]").optional();
  }

  void init(tn::Init& i) const {
    if (i.has("domain_logits_source")) return;
    const Inputs in(*this, i);
    const tn_dtype t = in.features.dtype();
    int64_t width = in.features.dim(1);
    if (conditioning_.on_classes() && random_dim_ > 0) {
      const int64_t classes = in.classes.dim(1);
      i.state("random_features", normal(i, 1, {width, random_dim_}, t));
      i.state("random_classes", normal(i, 2, {classes, random_dim_}, t));
      width = random_dim_;
    } else if (conditioning_.on_classes()) {
      width *= in.classes.dim(1);
    }
    for (size_t k = 0; k <= hidden_.size(); ++k) {
      const int64_t units = k < hidden_.size() ? hidden_[k] : 1;
      const double bound = 1 / std::sqrt(static_cast<double>(width));
      const auto key = static_cast<int64_t>(10 + 2 * k);
      i.trainable(name("weight", k).c_str(), uniform(i, key, {width, units}, bound, t));
      i.trainable(name("bias", k).c_str(), uniform(i, key + 1, {units}, bound, t));
      width = units;
    }
  }

  void build(tn::Build& b) const {
    if (const Tensor u_s = b["domain_logits_source"]) {
      const Tensor u_t = b["domain_logits_target"];
      if (!u_t) throw tn::Error("'domain_logits_source' is bound, 'domain_logits_target' is not");
      if (conditioning_.on_classes()) throw tn::Error("kind: cdan builds on features, so it can't take domain_logits");
      emit(b, tn::flatten(u_s), tn::flatten(u_t), {});
      return;
    }
    const Inputs in(*this, b);
    const double kappa = conditioning_.kappa(b.step_number());
    Tensor h = reversed(in.features, kappa), weights;
    if (conditioning_.on_classes()) {
      const Tensor g = stop_gradient(softmax(in.classes));
      h = random_dim_ > 0 ? matmul(h, b.state("random_features")) * matmul(g, b.state("random_classes")) /
                                std::sqrt(static_cast<double>(random_dim_))
                          : outer(g, h);
      weights = conditioning_.weights(g);
    }
    for (size_t k = 0; k <= hidden_.size(); ++k) {
      h = matmul(h, b.state(name("weight", k).c_str())) + b.state(name("bias", k).c_str());
      if (k < hidden_.size()) h = relu(h);
    }
    const Tensor u = squeeze(h, 1);
    b.emit("kappa", kappa);
    emit(b, narrow(u, 0, 0, in.n_source), narrow(u, 0, in.n_source, u.dim(0) - in.n_source), weights);
  }

 private:
  // Source and target rows as one batch.
  struct Inputs {
    Tensor features, classes;
    int64_t n_source;
    Inputs(const DomainAdversarial& loss, const tn::Build& b) {
      const Tensor s = b["features_source"], t = b["features_target"];
      if (!s || !t)
        throw tn::Error("bind features_source and features_target, or domain_logits_source and domain_logits_target");
      require_rows(s, "features_source");
      require_rows(t, "features_target");
      if (s.dim(1) != t.dim(1))
        throw tn::Error("source has " + std::to_string(s.dim(1)) + " features, target " + std::to_string(t.dim(1)));
      features = tn::concat({s, t});
      n_source = s.dim(0);
      if (!loss.conditioning_.on_classes()) return;
      const Tensor zs = b["logits_source"], zt = b["logits_target"];
      if (!zs || !zt) throw tn::Error("kind: cdan needs the roles logits_source and logits_target");
      if (zs.dim(0) != s.dim(0) || zt.dim(0) != t.dim(0) || zs.dim(1) != zt.dim(1))
        throw tn::Error("logits " + text(zs.shape()) + " and " + text(zt.shape()) + " do not fit to features " +
                        text(s.shape()) + " and " + text(t.shape()));
      if (zs.dim(1) < 2) throw tn::Error("there is 1 class; at least 2 are needed");
      classes = tn::concat({zs, zt});
    }
  };

  static std::string name(const char* what, size_t layer) { return what + std::to_string(layer); }
  static Tensor normal(const tn::Init& i, int64_t n, const tn::Dims& shape, tn_dtype t) {
    return tn::random_normal(tn::fold_in(i.key(), n), shape, t);
  }
  static Tensor uniform(const tn::Init& i, int64_t n, const tn::Dims& shape, double bound, tn_dtype t) {
    return (tn::random_uniform(tn::fold_in(i.key(), n), shape, t) * 2.0 - 1.0) * bound;
  }

  static void emit(tn::Build& b, Tensor u_s, Tensor u_t, Tensor weights) {
    require_rows(u_s, "domain_logits_source");
    require_rows(u_t, "domain_logits_target");
    b.loss(adversarial_loss(u_s, u_t, weights));
    b.metric("domain_accuracy", (mean(cast_like(u_s > 0.0, u_s)) + mean(cast_like(u_t <= 0.0, u_t))) * 0.5);
  }

  Conditioning conditioning_;
  std::vector<int64_t> hidden_;
  int64_t random_dim_;
};

// log rho of the target's logits, [N, K].
class Refinement {
 public:
  explicit Refinement(tn::Setup& s)
      : how_(s.text("refine", "bayes", "what class-wise discriminators do to predictions", {"bayes", "none", "code"})) {
  }

  Tensor operator()(Tensor logits, Tensor class_domain_logits) const {
    if (logits.dim(1) < 2) throw tn::Error("there is 1 class; at least 2 are needed");
    if (how_ == "none") return log_softmax(logits);
    const Tensor v = class_domain_logits;
    if (!v)
      throw tn::Error("refine: " + how_ +
                      " needs the role with the logits of class-wise discriminators, [N, K, 2]; or say refine: none");
    if (v.dim(0) != logits.dim(0) || v.dim(1) != logits.dim(1) || v.dim(2) != 2)
      throw tn::Error("logits are " + text(logits.shape()) + ", the class-wise discriminators' " + text(v.shape()) +
                      "; they must be [N, K] and [N, K, 2]");
    const Tensor log_target = squeeze(narrow(log_softmax(stop_gradient(v)), 2, 1, 1), 2);
    return how_ == "bayes" ? log_softmax(log_softmax(logits) + log_target) : log_softmax(logits * exp(log_target));
  }

 private:
  std::string how_;
};

class TargetClassMimicking {
 public:
  explicit TargetClassMimicking(tn::Setup& s)
      : refine_(s),
        offset_(std::string(s.text("guidance_offset", "none", "added to the loss: log K, or nothing",
                                   {"none", "log_k"})) == "log_k") {
    s.input("logits", "[N, K] of target samples").rank(2);
    s.input("class_domain_logits", "[N, K, 2], index 1: target").optional().rank(3);
  }

  void build(tn::Build& b) const {
    const Tensor z = b["logits"];
    require_rows(z, "logits");
    const Tensor log_rho = refine_(z, b["class_domain_logits"]), rho = exp(log_rho);
    const Tensor log_mean = logsumexp(log_rho, 0) - std::log(static_cast<double>(z.dim(0)));
    const Tensor information = mean(sum(rho * log_rho, -1)) - sum(exp(log_mean) * log_mean);
    b.emit("refined_probabilities", rho);
    b.loss(offset_ ? std::log(static_cast<double>(z.dim(1))) - information : -information);
  }

 private:
  Refinement refine_;
  bool offset_;
};

class ClassDomainDiscriminator {
 public:
  explicit ClassDomainDiscriminator(tn::Setup& s) : refine_(s) {
    s.input("class_domain_logits_source", "[S, K, 2]").rank(3);
    s.input("labels", "[S] class numbers", tn::integer).rank(1);
    s.input("class_domain_logits_target", "[T, K, 2]").rank(3);
    s.input("logits_target", "[T, K]").rank(2);
  }

  void build(tn::Build& b) const {
    const Tensor v_s = b["class_domain_logits_source"], v_t = b["class_domain_logits_target"];
    require_rows(v_s, "class_domain_logits_source");
    require_rows(v_t, "class_domain_logits_target");
    const Tensor y = tn::class_numbers(b, b["labels"], v_s.dim(1)),
                 rho = exp(refine_(stop_gradient(b["logits_target"]), v_t));
    if (y.dim(0) != v_s.dim(0))
      throw tn::Error("there are " + std::to_string(y.dim(0)) + " labels for " + std::to_string(v_s.dim(0)) +
                      " source rows");
    const Tensor source = tn::pick(of_domain(v_s, 0), y), target = sum(rho * of_domain(v_t, 1), -1);
    b.loss(-(mean(source) + mean(target)));
  }

 private:
  static Tensor of_domain(Tensor v, int64_t d) { return squeeze(narrow(log_softmax(v), 2, d, 1), 2); }
  Refinement refine_;
};

constexpr const char* kPaper = "Lv et al. 2021, arXiv 2112.04137";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<DomainAdversarial>("domain_adversarial",
                                      "Features that a discriminator of source and target can't tell apart",
                                      "Ganin & Lempitsky 2015, arXiv 1409.7495; Long et al. 2018, arXiv 1705.10667"),
          tn::loss<TargetClassMimicking>("target_class_mimicking",
                                         "Confident and balanced predictions of an unlabelled target", kPaper),
          tn::loss<ClassDomainDiscriminator>("class_domain_discriminator",
                                             "Discriminators of source and target, one a class", kPaper))
