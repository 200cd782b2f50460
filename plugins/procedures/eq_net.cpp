// EQ-Net: training one set of weights for all quantised forms, and choosing a form for a bit budget.
//
//   Xu, Han, Tian, Yang, Zhang 2023, "EQ-Net: Elastic Quantization Neural Networks", ICCV 2023, arXiv 2308.07650
//
// eq_net         the recipe's training, in which each step begins in a form of the most bits with granularity and symmetry drawn
//                site by site (the loss group_progressive_guidance applies the others); then the accuracy with b bits in all
//                elastic layers, for the 8 styles: weights per tensor or channel, weights and activations symmetric or not.
//                Reported: mean and worst over the styles, and that of the static one; before training with "start_" in front,
//                which is post-training quantisation, and the gain over it. Batch norm is re-calibrated for each form.
//
// eq_net_search  trains likewise, then
//                1. measures configurations: `configurations` of each style, accuracy on "val";
//                2. fits the accuracy predictor (CQAP): an MLP of the feature vector of a configuration, smooth L1 loss, Adam;
//                3. searches among configurations of the static style with C - 0.5 < average bits <= C, weights and activations
//                   each, by a genetic algorithm on the predicted accuracy, and measures the winner on "test".
//                Average bits = sum of bits times size over sum of sizes of the elastic layers. Sizes: of weights their
//                numbers of elements; of activations act_sizes, or the columns of the (linear) layer's weight.
//                Configurations are drawn by `draw`: table, from P(bits of a layer | average) of 500,000 random ones at an
//                average uniform in [2.4, 7.6]; dirichlet, from a mixture over bits that is uniform in the simplex.
//
// Feature vector: per channel, not; weights symmetric, not; activations symmetric, not; then for each layer its weight bits
// one-hot (7), then for each layer its activation bits. First and last layer stay zero.
#include <Eigen/Dense>
#include <cmath>
#include <functional>
#include <numeric>

#include "../quantizers/elastic_forms.hpp"

namespace {

using elastic::Style;

constexpr int64_t kWidths = elastic::kMaxBits - elastic::kMinBits + 1;

// Numbers of one key, in order.
class Random {
 public:
  Random(const tn::Ctx& c, const char* label) : api_(c.extension<tn_rng_api>(TN_EXT_RNG)), key_(api_.key(c.raw, label)) {}
  double uniform() {
    if (at_ % buffer_.size() == 0) api_.uniform(key_, at_, buffer_.data(), buffer_.size());
    return buffer_[at_++ % buffer_.size()];
  }
  size_t below(size_t n) { return static_cast<size_t>(uniform() * static_cast<double>(n)); }
  template <class T>
  void shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[below(i)]);
  }

 private:
  const tn_rng_api& api_;
  uint64_t key_, at_ = 0;
  std::vector<double> buffer_ = std::vector<double>(1024);
};

// Bits of every layer.
struct Configuration {
  std::vector<int64_t> weight, act;
};

// --- features and averages ---

std::vector<double> feature(const Style& style, const Configuration& bits) {
  std::vector<double> out;
  for (const bool flag : {style.per_channel, style.weight_symmetric, style.act_symmetric}) {
    out.push_back(flag ? 1 : 0);
    out.push_back(flag ? 0 : 1);
  }
  for (const auto* list : {&bits.weight, &bits.act})
    for (size_t l = 0; l < list->size(); ++l)
      for (int64_t b = elastic::kMinBits; b <= elastic::kMaxBits; ++b)
        out.push_back(l > 0 && l + 1 < list->size() && (*list)[l] == b ? 1 : 0);
  return out;
}

// Over all layers but the first and the last.
double average_bits(const std::vector<int64_t>& bits, const std::vector<double>& size) {
  double sum = 0, total = 0;
  for (size_t l = 1; l + 1 < bits.size(); ++l) {
    sum += static_cast<double>(bits[l]) * size[l];
    total += size[l];
  }
  return sum / total;
}

// --- drawing bits ---

// Bits of the inner layers, one list of sizes at a time.
class BitDraw {
 public:
  BitDraw(std::vector<double> size, Random& random) : size_(std::move(size)), random_(random) {}

  std::vector<int64_t> uniform() {
    std::vector<int64_t> bits(size_.size(), elastic::kMaxBits);
    for (size_t l = 1; l + 1 < bits.size(); ++l) bits[l] = any();
    return bits;
  }
  std::vector<int64_t> dirichlet() {
    double share[kWidths], total = 0;
    for (double& s : share) total += s = -std::log1p(-random_.uniform());
    std::vector<int64_t> bits(size_.size(), elastic::kMaxBits);
    for (size_t l = 1; l + 1 < bits.size(); ++l) bits[l] = pick(share, total);
    return bits;
  }
  // Of about this average.
  std::vector<int64_t> at_average(double average) {
    if (table_.empty()) fill_table();
    auto at = table_.lower_bound(bin(average));
    if (at == table_.end() || (at != table_.begin() && at->first - bin(average) > bin(average) - std::prev(at)->first)) --at;
    std::vector<int64_t> bits(size_.size(), elastic::kMaxBits);
    for (size_t l = 1; l + 1 < bits.size(); ++l) {
      const double* counts = at->second.data() + l * kWidths;
      bits[l] = pick(counts, std::accumulate(counts, counts + kWidths, 0.0));
    }
    return bits;
  }
  // With low < average <= high; by chance, so that it may give up.
  std::vector<int64_t> between(double low, double high) {
    for (int tries = 0; tries < 100000; ++tries) {
      std::vector<int64_t> bits = at_average(low + (high - low) * random_.uniform());
      const double average = average_bits(bits, size_);
      if (average > low && average <= high) return bits;
    }
    throw tn::Error("no configuration with average bits above " + std::to_string(low) + " and at most " + std::to_string(high) +
                    " was found; averages from " + std::to_string(elastic::kMinBits) + " to " + std::to_string(elastic::kMaxBits) + " can be reached");
  }
  int64_t any() { return elastic::kMinBits + static_cast<int64_t>(random_.below(kWidths)); }

 private:
  int64_t pick(const double* share, double total) {
    double at = random_.uniform() * total;
    int64_t k = 0;
    while (k + 1 < kWidths && at >= share[k]) at -= share[k++];
    return elastic::kMinBits + k;
  }
  static int64_t bin(double average) { return std::llround(average / 0.2); }
  void fill_table() {
    for (int i = 0; i < 500000; ++i) {
      const std::vector<int64_t> bits = uniform();
      std::vector<double>& counts = table_[bin(average_bits(bits, size_))];
      counts.resize(size_.size() * kWidths);
      for (size_t l = 1; l + 1 < bits.size(); ++l) counts[l * kWidths + static_cast<size_t>(bits[l] - elastic::kMinBits)] += 1;
    }
  }

  std::vector<double> size_;
  Random& random_;
  std::map<int64_t, std::vector<double>> table_;  // of an average: how often each layer had each width
};

// --- the accuracy predictor ---

struct PredictorOptions {
  int64_t depth, width, epochs, batch;
  double lr, weight_decay;
  bool base_is_mean;

  explicit PredictorOptions(tn::Setup& s)
      : depth(s.integer("depth", 7, "hidden layers of the predictor").at_least(1)),
        width(s.integer("width", 200, "of its hidden layers").at_least(1)),
        epochs(s.integer("epochs", 100, "of its training").at_least(1)),
        batch(s.integer("batch", 256, "of its training").at_least(1)),
        lr(s.real("predictor_lr", 4e-4, "of its training").above(0).finite()),
        weight_decay(s.real("predictor_weight_decay", 1e-5, "of its training").at_least(0).finite()),
        base_is_mean(s.text("base", "mean", "what its output is added to: the mean accuracy, or zero", {"mean", "zero"}).current == "mean") {}
};

// ReLU layers with biases, then a linear one without; rows are samples.
class Predictor {
 public:
  using Matrix = Eigen::MatrixXd;

  Predictor(const PredictorOptions& o, Eigen::Index features, Random& random) : o_(o) {
    Eigen::Index in = features;
    for (int64_t l = 0; l <= o.depth; ++l) {
      const Eigen::Index out = l < o.depth ? o.width : 1;
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      for (const Eigen::Index rows : {in, Eigen::Index{1}}) {
        if (rows == 1 && l == o.depth) continue;
        params_.push_back(Matrix::NullaryExpr(rows, out, [&] { return bound * (2 * random.uniform() - 1); }));
      }
      in = out;
    }
  }

  Eigen::VectorXd operator()(const Matrix& x) const { return forward(x).back().col(0).array() + base_; }

  void train(const Matrix& x, const Eigen::VectorXd& y, Random& random) {
    base_ = o_.base_is_mean ? y.mean() : 0;
    std::vector<Matrix> m, v;
    for (const Matrix& p : params_) m.push_back(Matrix::Zero(p.rows(), p.cols()));
    v = m;
    std::vector<Eigen::Index> order(static_cast<size_t>(x.rows()));
    std::iota(order.begin(), order.end(), Eigen::Index{0});
    int64_t t = 0;
    for (int64_t epoch = 0; epoch < o_.epochs; ++epoch) {
      random.shuffle(order);
      for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(o_.batch)) {
        const std::vector<Eigen::Index> rows(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                             order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), begin + static_cast<size_t>(o_.batch))));
        const std::vector<Matrix> grads = gradients(x(rows, Eigen::all), y(rows));
        const double correct1 = 1 - std::pow(0.9, static_cast<double>(++t)), correct2 = 1 - std::pow(0.999, static_cast<double>(t));
        for (size_t i = 0; i < params_.size(); ++i) {
          const Matrix g = grads[i] + o_.weight_decay * params_[i];
          m[i] = 0.9 * m[i] + 0.1 * g;
          v[i] = 0.999 * v[i] + 0.001 * g.cwiseProduct(g);
          params_[i].array() -= o_.lr / correct1 * m[i].array() / ((v[i].array() / correct2).sqrt() + 1e-8);
        }
      }
    }
  }

 private:
  // Activations after each layer, the input first.
  std::vector<Matrix> forward(const Matrix& x) const {
    std::vector<Matrix> h = {x};
    for (size_t l = 0; 2 * l + 1 < params_.size(); ++l)
      h.push_back(((h.back() * params_[2 * l]).rowwise() + params_[2 * l + 1].row(0)).cwiseMax(0));
    h.push_back(h.back() * params_.back());
    return h;
  }
  // Of the mean smooth L1 loss.
  std::vector<Matrix> gradients(const Matrix& x, const Eigen::VectorXd& y) const {
    const std::vector<Matrix> h = forward(x);
    Matrix d = ((h.back().col(0).array() + base_ - y.array()).cwiseMin(1).cwiseMax(-1) / static_cast<double>(x.rows())).matrix();
    std::vector<Matrix> out(params_.size());
    out.back() = h[h.size() - 2].transpose() * d;
    d = d * params_.back().transpose();
    for (size_t l = params_.size() / 2; l-- > 0;) {
      d = d.cwiseProduct((h[l + 1].array() > 0).cast<double>().matrix());
      out[2 * l] = h[l].transpose() * d;
      out[2 * l + 1] = d.colwise().sum();
      d = d * params_[2 * l].transpose();
    }
    return out;
  }

  PredictorOptions o_;
  std::vector<Matrix> params_;  // weight, bias, .., weight
  double base_ = 0;
};

// Kendall's tau-b: the rank correlation, with ties.
double kendall_tau(const Eigen::VectorXd& a, const Eigen::VectorXd& b) {
  double agree = 0, a_differs = 0, b_differs = 0;
  const auto sign = [](double v) { return (v > 0) - (v < 0); };
  for (Eigen::Index i = 0; i < a.size(); ++i)
    for (Eigen::Index j = 0; j < i; ++j) {
      const int x = sign(a[i] - a[j]), y = sign(b[i] - b[j]);
      agree += x * y;
      a_differs += x != 0;
      b_differs += y != 0;
    }
  return agree / std::sqrt(a_differs * b_differs);
}

// --- training and measuring ---

// What both procedures have.
class Supernet {
 public:
  explicit Supernet(tn::Setup& s)
      : recalibration_(s.integer("recalibration", 10, "training batches that batch norm is re-calibrated on").at_least(1)),
        style_{s.flag("per_channel", true, "static style: weights have a step for each channel"),
               s.flag("weight_symmetric", true, "static style: weights have no offset"),
               s.flag("act_symmetric", false, "static style: activations have no offset")} {}

  void init(tn::Init& i) const { i.state("trained", {}, 0, TN_F64); }

 protected:
  int64_t trained(const tn::Ctx& c) const {
    tn::Session s(c, 0);
    return static_cast<int64_t>(value(s.state("trained")));
  }

  void train(tn::Ctx& c) const {
    const tn::Supernet net{c};
    const tn::Fit fit{c};
    const elastic::Sites sites(net);
    const auto& random = c.extension<tn_rng_api>(TN_EXT_RNG);
    const uint64_t key = random.key(c.raw, "highest");
    for (int64_t k = trained(c); k < c.total_steps(); ++k) {
      net.configure(sites.draw(c, random.split(key, static_cast<uint64_t>(k)), elastic::Bits::highest));
      const double loss = fit.train(k, 1);
      if ((k + 1) % 100 != 0 && k + 1 != c.total_steps()) continue;
      c.report("train/loss", loss);
      c.progress(k + 1, c.total_steps(), "steps");
      {
        tn::Session s(c);
        s.state("trained") = s.constant(static_cast<double>(k + 1), TN_F64);
        s.run();
      }
      if (c.extension<tn_session_api>(TN_EXT_SESSION).checkpoint(c.raw, 0)) throw tn::Error("the checkpoint could not be written");
    }
  }

  double accuracy(tn::Ctx& c, const std::vector<int64_t>& form, const char* split) const {
    const tn::Supernet net{c};
    net.configure(form);
    net.recalibrate(recalibration_);
    return tn::Fit{c}.metric(split, "accuracy");
  }

  int64_t recalibration_;
  Style style_;
};

class EqNet : public Supernet {
 public:
  explicit EqNet(tn::Setup& s)
      : Supernet(s),
        bits_(s.integers("bits", "bit widths that are measured", {2, 3, 4, 8}).at_least(elastic::kMinBits).at_most(elastic::kMaxBits)),
        start_(s.flag("start", true, "measure before training, too")) {}

  void run(tn::Ctx& c) {
    if (start_ && trained(c) == 0) before_ = measure(c);
    train(c);
    const Figures after = measure(c);
    for (size_t i = 0; i < after.size(); ++i) {
      const std::string name = name_of(i);
      c.report(("test/" + name).c_str(), after[i]);
      if (!start_) continue;
      c.report(("test/start_" + name).c_str(), before_.at(i));
      c.report(("test/gain_" + name).c_str(), after[i] - before_.at(i));
    }
  }

  // What was measured before training.
  static constexpr uint32_t version = 1;
  void save(tn::Bytes& b) const {
    b.put(static_cast<uint64_t>(before_.size()));
    for (const double v : before_) b.put(v);
  }
  void load(tn::Bytes& b, uint32_t stored) {
    if (stored != version) throw tn::Error("stored state has the unknown version " + std::to_string(stored));
    Figures before;
    for (uint64_t n = b.get<uint64_t>(); n > 0; --n) before.push_back(b.get<double>());
    if (!before.empty() && before.size() != 3 * bits_.size()) throw tn::Error("stored state is of other bit widths");
    before_ = std::move(before);
  }

 private:
  using Figures = std::vector<double>;  // for each of bits_: mean and worst of the styles, and the static one

  std::string name_of(size_t i) const {
    constexpr const char* kinds[] = {"mean_", "worst_", "static_"};
    return kinds[i % 3] + std::to_string(bits_[i / 3]) + "_bits";
  }

  Figures measure(tn::Ctx& c) const {
    const elastic::Sites sites(tn::Supernet{c});
    Figures out;
    for (const int64_t bits : bits_) {
      double sum = 0, worst = 1;
      for (const Style& style : Style::all()) {
        const double a = accuracy(c, sites.of(style, bits), "test");
        sum += a;
        worst = std::fmin(worst, a);
      }
      out.insert(out.end(), {sum / 8, worst, accuracy(c, sites.of(style_, bits), "test")});
    }
    return out;
  }

  std::vector<int64_t> bits_;
  bool start_;
  Figures before_;
};

class EqNetSearch : public Supernet {
 public:
  // The feature vector and the average bits of one configuration.
  struct Default {
    static constexpr const char* name = "default";
    Style style;
    explicit Default(tn::Setup& s)
        : style{s.flag("per_channel", true, "weights"), s.flag("weight_symmetric", true, "weights"), s.flag("act_symmetric", true, "activations")} {
      s.integers("bit_choices", "bit widths; all of 2 to 8", {2, 3, 4, 5, 6, 7, 8});
      s.input("weight_bits", "[n]", tn::integer).rank(1);
      s.input("act_bits", "[n]", tn::integer).rank(1);
      s.input("size", "[n] of the layers", tn::anything).rank(1);
    }
    void run(tn::Build& b) const {
      const auto bits = [&](const char* role) {
        std::vector<int64_t> out;
        for (const double v : to_host(b[role])) out.push_back(static_cast<int64_t>(v));
        return out;
      };
      const Configuration c{bits("weight_bits"), bits("act_bits")};
      const std::vector<double> f = feature(style, c);
      b.emit("feature", b.from_host(f.data(), {static_cast<int64_t>(f.size())}));
      b.emit("average_weight_bits", average_bits(c.weight, to_host(b["size"])));
    }
  };
  using Probes = tn::List<Default>;

  explicit EqNetSearch(tn::Setup& s)
      : Supernet(s),
        configurations_(s.integer("configurations", 1000, "that are measured of each of the 8 styles").at_least(2)),
        draw_(s.text("draw", "table", "how their bits are drawn", {"table", "dirichlet"})),
        predictor_(s),
        budget_(s.real("average_bits", 3, "C: largest average of weights and of activations").finite()),
        population_(s.integer("population", 100, "of the genetic search").at_least(4)),
        generations_(s.integer("generations", 500, "of the genetic search").at_least(1)),
        mutate_prob_(s.real("mutate_prob", 0.1, "of each entry of a mutant").at_least(0).at_most(1)),
        random_(s.integer("random", 30, "feasible configurations that the winner is compared with").at_least(1)),
        act_sizes_(s.reals("act_sizes", "sizes of the layers' inputs; empty: the columns of their weights").above(0).finite()) {}

  void run(tn::Ctx& c) const {
    const Layers layers = find_layers(c);
    if (layers.weight.size() < 3)
      throw tn::Error("the model has " + std::to_string(layers.weight.size()) + " quantised layers; a search needs at least 3");
    if (budget_ < elastic::kMinBits || budget_ - 0.5 >= elastic::kMaxBits)
      throw tn::Error("average_bits is " + std::to_string(budget_) + "; averages from " + std::to_string(elastic::kMinBits) + " to " +
                      std::to_string(elastic::kMaxBits) + " can be reached");
    train(c);
    Random random(c, "search");
    BitDraw weight(layers.weight_size, random), act(layers.act_size, random);
    const Predictor predict = fit_predictor(c, layers, weight, act, random);
    compare(c, layers, search(predict, weight, act, layers, random), weight, act);
  }

 private:
  // For each layer, its weight's and its input's place among the sites, and their sizes.
  struct Layers {
    std::vector<size_t> weight, act;
    std::vector<double> weight_size, act_size;
    size_t n_sites = 0;
  };

  Layers find_layers(tn::Ctx& c) const {
    Layers out;
    const elastic::Sites sites(tn::Supernet{c});
    out.n_sites = sites.list().size();
    for (size_t i = 0; i < out.n_sites; ++i) (sites.list()[i].weight ? out.weight : out.act).push_back(i);
    if (out.weight.size() != out.act.size()) throw tn::Error("the search needs layers whose weights and inputs are quantised; leave out activations: false");
    for (size_t l = 1; l + 1 < out.weight.size(); ++l)
      for (const size_t i : {out.weight[l], out.act[l]})
        if (sites.list()[i].forms.front().bits != elastic::kMinBits || sites.list()[i].forms.back().bits != elastic::kMaxBits)
          throw tn::Error("the site '" + sites.list()[i].name + "' does not have all bit widths from 2 to 8, which the search needs");
    tn::Session s(c, 0);
    std::vector<tn_named> params(1);
    uint32_t n = 0;
    const auto& models = s.extension<tn_model_api>(TN_EXT_MODEL);
    models.parameters(s.raw, nullptr, nullptr, 0, &n);
    params.resize(n);
    models.parameters(s.raw, nullptr, params.data(), n, &n);
    for (const size_t i : out.weight)
      for (const tn_named& p : params)
        if (sites.list()[i].name == p.name) {
          const tn::Tensor w{s.raw, p.tensor};
          out.weight_size.push_back(static_cast<double>(w.numel()));
          out.act_size.push_back(static_cast<double>(w.dim(1)));
          if (w.rank() != 2 && act_sizes_.empty()) throw tn::Error("'" + sites.list()[i].name + "' is no linear layer; give act_sizes, the size of each layer's input");
        }
    if (!act_sizes_.empty()) out.act_size = act_sizes_;
    if (out.act_size.size() != out.weight.size())
      throw tn::Error("act_sizes has " + std::to_string(out.act_size.size()) + " numbers for " + std::to_string(out.weight.size()) + " quantised layers");
    return out;
  }

  double accuracy_of(tn::Ctx& c, const Layers& layers, const Style& style, const Configuration& bits, const char* split) const {
    std::vector<int64_t> by_site(layers.n_sites);
    for (size_t l = 0; l < layers.weight.size(); ++l) {
      by_site[layers.weight[l]] = bits.weight[l];
      by_site[layers.act[l]] = bits.act[l];
    }
    return accuracy(c, elastic::Sites(tn::Supernet{c}).of(style, by_site), split);
  }

  Predictor fit_predictor(tn::Ctx& c, const Layers& layers, BitDraw& weight, BitDraw& act, Random& random) const {
    struct Measured {
      std::vector<double> feature;
      double accuracy;
    };
    std::vector<Measured> data;
    for (const Style& style : Style::all())
      for (int64_t k = 0; k < configurations_; ++k) {
        const auto bits = [&](BitDraw& d) { return draw_ == "dirichlet" ? d.dirichlet() : d.at_average(2.4 + 5.2 * random.uniform()); };
        const Configuration drawn{bits(weight), bits(act)};
        data.push_back({feature(style, drawn), accuracy_of(c, layers, style, drawn, "val")});
        if (data.size() % 100 == 0) c.progress(static_cast<int64_t>(data.size()), 8 * configurations_, "configurations");
        if (c.cancelled()) throw tn::Error("stopped", TN_STATUS_CANCELLED);
      }
    random.shuffle(data);
    const auto n = static_cast<Eigen::Index>(data.size()), train = n * 4 / 5, features = static_cast<Eigen::Index>(data[0].feature.size());
    Predictor::Matrix x(n, features);
    Eigen::VectorXd y(n);
    for (Eigen::Index i = 0; i < n; ++i) {
      const Measured& m = data[static_cast<size_t>(i)];
      x.row(i) = Eigen::Map<const Eigen::RowVectorXd>(m.feature.data(), features);
      y[i] = m.accuracy;
    }
    Predictor predict(predictor_, features, random);
    predict.train(x.topRows(train), y.head(train), random);
    const Eigen::VectorXd guess = predict(x.bottomRows(n - train)), truth = y.tail(n - train);
    c.report("val/kendall_tau", kendall_tau(guess, truth));
    c.report("val/rmse_points", 100 * std::sqrt((guess - truth).squaredNorm() / static_cast<double>(n - train)));
    c.report("val/deviation_points", 100 * std::sqrt((truth.array() - truth.mean()).square().mean()));
    return predict;
  }

  Configuration search(const Predictor& predict, BitDraw& weight, BitDraw& act, const Layers& layers, Random& random) const {
    const double low = budget_ - 0.5;
    const auto fresh = [&] { return Configuration{weight.between(low, budget_), act.between(low, budget_)}; };
    const auto feasible = [&](const Configuration& c) {
      const double w = average_bits(c.weight, layers.weight_size), a = average_bits(c.act, layers.act_size);
      return w > low && w <= budget_ && a > low && a <= budget_;
    };
    // Changes inner entries until the child is feasible, or for long.
    const auto child = [&](const std::function<void(Configuration&)>& change, const Configuration& parent) {
      for (int tries = 0; tries < 1000; ++tries) {
        Configuration c = parent;
        change(c);
        if (feasible(c)) return c;
      }
      return fresh();
    };
    const auto each = [](Configuration& c, const std::function<void(int64_t&, bool, size_t)>& f) {
      for (const bool is_weight : {true, false}) {
        std::vector<int64_t>& bits = is_weight ? c.weight : c.act;
        for (size_t l = 1; l + 1 < bits.size(); ++l) f(bits[l], is_weight, l);
      }
    };
    std::vector<Configuration> population;
    for (int64_t k = 0; k < population_; ++k) population.push_back(fresh());
    for (int64_t generation = 0;; ++generation) {
      const std::vector<Configuration> parents = best(predict, population, static_cast<size_t>(population_ / 4));
      if (generation == generations_) return parents[0];
      population = parents;
      const auto any_parent = [&]() -> const Configuration& { return parents[random.below(parents.size())]; };
      for (int64_t k = 0; k < population_ / 2; ++k) {
        population.push_back(child([&](Configuration& c) {
          each(c, [&](int64_t& bits, bool, size_t) { if (random.uniform() < mutate_prob_) bits = weight.any(); });
        }, any_parent()));
        const Configuration& other = any_parent();
        population.push_back(child([&](Configuration& c) {
          each(c, [&](int64_t& bits, bool is_weight, size_t l) { if (random.uniform() < 0.5) bits = (is_weight ? other.weight : other.act)[l]; });
        }, any_parent()));
      }
    }
  }

  // The n of the highest predicted accuracy, from the best on.
  std::vector<Configuration> best(const Predictor& predict, const std::vector<Configuration>& of, size_t n) const {
    const auto features = static_cast<Eigen::Index>(feature(style_, of[0]).size());
    Predictor::Matrix x(static_cast<Eigen::Index>(of.size()), features);
    for (size_t i = 0; i < of.size(); ++i) {
      const std::vector<double> f = feature(style_, of[i]);
      x.row(static_cast<Eigen::Index>(i)) = Eigen::Map<const Eigen::RowVectorXd>(f.data(), features);
    }
    const Eigen::VectorXd predicted = predict(x);
    std::vector<size_t> order(of.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return predicted[static_cast<Eigen::Index>(a)] > predicted[static_cast<Eigen::Index>(b)]; });
    std::vector<Configuration> out;
    for (size_t i = 0; i < n; ++i) out.push_back(of[order[i]]);
    return out;
  }

  // The winner beside random configurations within the budget and the same bits everywhere.
  void compare(tn::Ctx& c, const Layers& layers, const Configuration& winner, BitDraw& weight, BitDraw& act) const {
    const double found = accuracy_of(c, layers, style_, winner, "test");
    c.report("test/winner", found);
    c.report("winner/average_weight_bits", average_bits(winner.weight, layers.weight_size));
    c.report("winner/average_act_bits", average_bits(winner.act, layers.act_size));
    double sum = 0, most = 0;
    for (int64_t k = 0; k < random_; ++k) {
      const Configuration drawn{weight.between(budget_ - 0.5, budget_), act.between(budget_ - 0.5, budget_)};
      const double a = accuracy_of(c, layers, style_, drawn, "test");
      sum += a;
      most = std::fmax(most, a);
    }
    c.report("test/random_mean", sum / static_cast<double>(random_));
    c.report("test/random_best", most);
    c.report("test/winner_gain", found - sum / static_cast<double>(random_));
    const std::vector<int64_t> same(layers.weight.size(), static_cast<int64_t>(std::fmin(budget_, elastic::kMaxBits)));
    c.report("test/same_bits", accuracy_of(c, layers, style_, {same, same}, "test"));
  }

  int64_t configurations_;
  std::string draw_;
  PredictorOptions predictor_;
  double budget_;
  int64_t population_, generations_;
  double mutate_prob_;
  int64_t random_;
  std::vector<double> act_sizes_;
};

constexpr const char* kPaper = "Xu et al. 2023, arXiv 2308.07650";

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::procedure<EqNet>("eq_net", "Trains a model for all its quantised forms, and measures these", kPaper),
          tn::procedure<EqNetSearch>("eq_net_search", "Predicts the accuracy of quantised forms, and searches for the best of a bit budget", kPaper))
