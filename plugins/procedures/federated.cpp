// Federated training: rounds in which some clients train locally and a server aggregates what they send.
// Wang & Ji 2024, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Averaging", ICLR 2024,
// arXiv 2306.03401, and its program.
//
// N clients share the training data. In round t each active client n starts from the global x(t), takes I steps of plain SGD on
// batches of b of its samples, drawn with replacement, and sends delta_n = y_n,I - x(t); the aggregator makes x(t+1) of them.
// Every client counts alike, whatever its size. The recipe gives model, loss (of logits and labels) and metrics.
//
// Partition: kappa*_n ~ Dirichlet(data_alpha), the samples of each class c, in the order of the data, are cut into
// consecutive pieces of sizes in proportion to kappa*_n[c]. Clients with fewer than min_samples are left out.
// Who takes part when: participation.hpp. Partition, class multipliers, participation and batches each have a key of their own,
// made from the recipe's seed, so that aggregators are compared on the same clients, rounds and batches.
#include <numeric>

#include "participation.hpp"

namespace {

using namespace federated;

// The aggregators' options, by the names of the recipe; each plugin gets those that it has.
class Aggregation {
 public:
  explicit Aggregation(tn::Setup& s)
      : id_(s.text("aggregator", "fed_au", "the server's rule", {"fed_au", "fed_avg", "fed_varp", "mifa"})),
        cutoff_(s.integer("cutoff", 50, "fed_au: K, the longest interval; 0: none").at_least(0)),
        weighting_(s.text("weighting", "average_participating", "fed_avg: what an update counts",
                          {"average_participating", "average_all", "known_prob"})),
        lr_(s.real("lr_global", 1, "eta, the server's step").above(0).finite()) {}

  tn::Plugin make(const tn::Ctx& c) const {
    std::vector<tn_attr> options{tn::attr("lr_global", lr_)};
    if (id_ == "fed_au") options.push_back(tn::attr("cutoff", cutoff_));
    if (id_ == "fed_avg") {
      tn_attr weighting{"weighting", {TN_VALUE_STR, static_cast<uint32_t>(weighting_.size()), {}}};
      weighting.value.as.str = weighting_.c_str();
      options.push_back(weighting);
    }
    return {c, TN_KIND_AGGREGATOR, id_.c_str(), options};
  }

 private:
  std::string id_;
  int64_t cutoff_;
  std::string weighting_;
  double lr_;
};

// Rows of Dirichlet(alpha, .., alpha): [n][classes].
Numbers dirichlet(const tn::Ctx& run, const char* label, int64_t n, int64_t classes, double alpha) {
  tn::Session s(run, 0);
  const auto& rng = run.extension<tn_rng_api>(TN_EXT_RNG);
  const Tensor key{s.raw, rng.tensor(s.raw, rng.key(run.raw, label))};
  Numbers g = to_host(tn::Op{"random_gamma/1"}({key, broadcast_to(s.scalar(alpha, TN_F64), {n, classes})}));
  for (auto row = g.begin(); row != g.end(); row += classes) {
    const double total = std::accumulate(row, row + classes, 0.0);
    for (auto v = row; v != row + classes; ++v) *v = total > 0 ? *v / total : 1.0 / static_cast<double>(classes);
  }
  return g;
}

class FederatedRounds {
 public:
  explicit FederatedRounds(tn::Setup& s)
      : aggregation_(s),
        participation_(s, "participation"),
        mean_prob_(s.real("mean_prob", 0.1, "mean of the probabilities of taking part").above(0).at_most(1)),
        min_prob_(s.real("min_prob", 0.02, "smallest probability of taking part").above(0).at_most(1)),
        participation_alpha_(s.real("participation_alpha", 0.1, "Dirichlet parameter of q").above(0).finite()),
        data_alpha_(s.real("data_alpha", 0.1, "Dirichlet parameter of the partition").above(0).finite()),
        clients_(s.integer("clients", 100, "N, before those with too few samples are left out").at_least(1)),
        min_samples_(s.integer("min_samples", 1, "clients with fewer are left out").at_least(1)),
        rounds_(s.integer("rounds", 0, "T; 0: train.steps of the recipe").at_least(0)),
        lr_(s.real("lr", 0.03, "gamma, of the local steps").above(0).finite()),
        local_steps_(s.integer("local_steps", 5, "I").at_least(1)),
        batch_size_(s.integer("batch_size", 16, "b").at_least(1)),
        eval_every_(s.integer("eval_every", 10, "rounds between evaluations, at which checkpoints are made, too").at_least(1)),
        eval_last_(s.integer("eval_last", 100, "evaluations of the last so many rounds are averaged").at_least(1)),
        curve_(s.flag("curve", true, "evaluate on the way there, too")),
        metric_(s.text("metric", "accuracy", "of the test part, beside the loss of both parts")) {}

  void run(tn::Ctx& c) {
    const int64_t rounds = rounds_ > 0 ? rounds_ : c.total_steps();
    const Clients clients = partition(c);
    const Trace trace = participation_.trace(c, clients.probabilities, rounds);
    const tn::Plugin aggregator = aggregation_.make(c), loss(c, TN_KIND_LOSS);
    while (done_ < rounds) {
      if (c.cancelled()) throw tn::Error("stopped", TN_STATUS_CANCELLED);
      const Round round(done_, trace[static_cast<size_t>(done_)]);
      aggregate(c, aggregator, clients, round, updates(c, loss, clients, round));
      ++done_;
      if (done_ % eval_every_ != 0 && done_ < rounds) continue;
      if (curve_ || done_ > rounds - eval_last_) evaluate(c, rounds);
      if (done_ == rounds) break;
      checkpoint(c, false);
    }
    report_means(c);
    checkpoint(c, true);
  }

  // Rounds that are done and the sums of the last evaluations; the rest are slots, the model, and what the seed makes.
  static constexpr uint32_t version = 1;
  void save(tn::Bytes& b) const {
    b.put(done_);
    b.put(means_);
  }
  void load(tn::Bytes& b, uint32_t stored) {
    if (stored != version) throw tn::Error("stored state has the unknown version " + std::to_string(stored));
    const auto done = b.get<int64_t>();
    means_ = b.get<Means>();
    done_ = done;
  }

  // The clients' objectives are 0.5 |x - b_n|^2 and their steps see the whole gradient: params, b, participation ->
  // params_per_round.
  struct Default {
    static constexpr const char* name = "default";
    explicit Default(tn::Setup& s)
        : aggregation(s),
          lr(s.real("lr", 0.03, "gamma, of the local steps").above(0).finite()),
          local_steps(s.integer("local_steps", 5, "I").at_least(1)),
          rounds(s.integer("rounds", 0, "T; 0: all of participation").at_least(0)) {
      s.text("objective", "0.5*sum((x-b_n)^2)", "of client n", {"0.5*sum((x-b_n)^2)"});
      s.input("params", "[P]").rank(1);
      s.input("b", "[N, P]").rank(2);
      s.input("participation", "[T, N]", tn::anything).rank(2);
    }
    void run(tn::Build& b) const {
      const Tensor mask = b["participation"], targets = b["b"];
      Tensor x = b["params"];
      const int64_t n = targets.dim(0), given = mask.dim(0), wanted = rounds > 0 ? rounds : given;
      if (mask.dim(1) != n || wanted > given)
        throw tn::Error("participation is " + text(mask.shape()) + ", there are " + std::to_string(n) + " clients and " +
                        std::to_string(wanted) + " rounds");
      const Numbers active = to_host(mask);
      const tn::Plugin aggregator = aggregation.make(b);
      std::vector<Tensor> history;
      for (int64_t t = 0; t < wanted; ++t) {
        const auto row = active.begin() + t * n;
        const std::vector<uint8_t> now(row, row + n);
        Round round(t, now);
        std::vector<Tensor> deltas;
        for (int64_t client : round.active) {
          const Tensor target = squeeze(tn::narrow(targets, 0, client, 1), 0);
          Tensor y = x;
          for (int64_t i = 0; i < local_steps; ++i) y = y - grad(sum(square(y - target)) * 0.5, y) * lr;
          deltas.push_back(unsqueeze(y - x, 0));
        }
        round.raw.params = x.id;
        round.raw.deltas = deltas.empty() ? TN_NULL : concat(deltas).id;
        x = aggregator.aggregate(b, round.raw);
        history.push_back(unsqueeze(x, 0));
      }
      b.emit("params_per_round", concat(history));
    }
    Aggregation aggregation;
    double lr;
    int64_t local_steps, rounds;
  };
  using Probes = tn::List<Default>;

 private:
  struct Clients {
    std::vector<std::vector<int64_t>> rows;  // of the training part
    Numbers probabilities;
  };
  struct Means {
    double count = 0, train_loss = 0, test_loss = 0, metric = 0;
  };

  Clients partition(const tn::Ctx& c) const {
    const Numbers labels = tn::Data{c}.values("train", "y");
    int64_t classes = 0;
    for (double y : labels) {
      if (!(y >= 0) || y != std::floor(y)) throw tn::Error("the partition needs class numbers in the column y");
      classes = std::max(classes, static_cast<int64_t>(y) + 1);
    }
    const Numbers kappa = dirichlet(c, "partition", clients_, classes, data_alpha_);
    const Numbers q = dirichlet(c, "classes", 1, classes, participation_alpha_);
    std::vector<std::vector<int64_t>> rows(static_cast<size_t>(clients_));
    for (int64_t k = 0; k < classes; ++k) {
      std::vector<int64_t> of_class;
      for (size_t i = 0; i < labels.size(); ++i)
        if (labels[i] == static_cast<double>(k)) of_class.push_back(static_cast<int64_t>(i));
      double total = 0, so_far = 0;
      for (int64_t n = 0; n < clients_; ++n) total += kappa[static_cast<size_t>(n * classes + k)];
      const auto size = static_cast<int64_t>(of_class.size());
      for (int64_t n = 0, begin = 0; n < clients_; ++n) {
        so_far += kappa[static_cast<size_t>(n * classes + k)];
        const int64_t end = n + 1 == clients_ ? size : std::min(size, rounded(static_cast<double>(size) * so_far / total));
        rows[static_cast<size_t>(n)].insert(rows[static_cast<size_t>(n)].end(), of_class.begin() + begin, of_class.begin() + end);
        begin = end;
      }
    }
    Clients out;
    for (std::vector<int64_t>& own : rows) {
      if (static_cast<int64_t>(own.size()) < min_samples_) continue;
      Numbers shares(static_cast<size_t>(classes));
      for (int64_t i : own) shares[static_cast<size_t>(labels[static_cast<size_t>(i)])] += 1.0 / static_cast<double>(own.size());
      out.probabilities.push_back(probability(shares.data(), q, mean_prob_, min_prob_));
      out.rows.push_back(std::move(own));
    }
    if (out.rows.empty())
      throw tn::Error("no client has " + std::to_string(min_samples_) + " samples; there are " + std::to_string(labels.size()) +
                      " in all");
    if (out.rows.size() < rows.size()) {
      const std::string message = "federated_rounds: " + std::to_string(rows.size() - out.rows.size()) +
                                  " clients have too few samples; " + std::to_string(out.rows.size()) + " remain";
      c.raw->host->log(c.raw->host, TN_LOG_INFO, message.c_str());
    }
    return out;
  }

  static void checkpoint(const tn::Ctx& c, bool force) {
    if (c.extension<tn_session_api>(TN_EXT_SESSION).checkpoint(c.raw, force))
      throw tn::Error("the checkpoint could not be written");
  }

  // The updates of the active clients, row by row. All clients' graphs are alike: one plan.
  Numbers updates(const tn::Ctx& c, const tn::Plugin& loss, const Clients& clients, const Round& round) const {
    const auto& rng = c.extension<tn_rng_api>(TN_EXT_RNG);
    const uint64_t key = rng.split(rng.key(c.raw, "batches"), static_cast<uint64_t>(round.raw.round));
    Numbers out, u(static_cast<size_t>(local_steps_ * batch_size_));
    for (int64_t client : round.active) {
      const std::vector<int64_t>& own = clients.rows[static_cast<size_t>(client)];
      rng.uniform(rng.split(key, static_cast<uint64_t>(client)), 0, u.data(), u.size());
      std::vector<int64_t> drawn;
      for (double v : u) drawn.push_back(own[std::min(own.size() - 1, static_cast<size_t>(v * static_cast<double>(own.size())))]);

      tn::Session s(c, TN_CTX_TRAIN, round.raw.round * round.raw.n_clients + client);
      const tn::Model model{s};
      const tn::Data data{c};
      const Tensor x = data.rows(s, "train", "x", drawn), y = data.rows(s, "train", "y", drawn), start = model.flat();
      std::vector<Tensor> w = model.parameters();
      for (int64_t i = 0; i < local_steps_; ++i) {
        const auto batch = [&](Tensor t) { return tn::narrow(t, 0, i * batch_size_, batch_size_); };
        const Tensor output = model(batch(x), TN_MODEL_FREEZE_STATS, w);
        const std::vector<Tensor> g = grad(loss.build(s, {{"logits", output.id}, {"labels", batch(y).id}}, "loss"), w);
        for (size_t k = 0; k < w.size(); ++k) w[k] = w[k] - g[k] * lr_;
      }
      for (Tensor& t : w) t = flatten(t);
      const Tensor delta = concat(w) - start;
      s.run({delta});
      const Numbers sent = to_host(delta);
      out.insert(out.end(), sent.begin(), sent.end());
    }
    return out;
  }

  static void aggregate(const tn::Ctx& c, const tn::Plugin& aggregator, const Clients& clients, Round round, const Numbers& deltas) {
    tn::Session s(c, TN_CTX_TRAIN, round.raw.round);
    const tn::Model model{s};
    const Tensor x = model.flat(), p = s.from_host(clients.probabilities.data(), {round.raw.n_clients});
    const tn_named probabilities{"probabilities", p.id};
    round.raw.params = x.id;
    const auto n_active = static_cast<int64_t>(round.raw.n_active);
    if (n_active) round.raw.deltas = s.from_host(deltas.data(), {n_active, x.dim(0)}, x.dtype()).id;
    round.raw.in = &probabilities;
    round.raw.n_in = 1;
    model.assign_flat(aggregator.aggregate(s, round.raw));
    s.run();
  }

  void evaluate(const tn::Ctx& c, int64_t rounds) {
    const tn::Fit fit{c};
    const double train_loss = fit.metric("train", "loss"), test_loss = fit.metric("test", "loss");
    const double metric = fit.metric("test", metric_.c_str());
    c.report("train/loss", train_loss);
    c.report("test/loss", test_loss);
    c.report(("test/" + metric_).c_str(), metric);
    c.progress(done_, rounds, "rounds");
    if (done_ <= rounds - eval_last_) return;
    means_.count += 1;
    means_.train_loss += train_loss;
    means_.test_loss += test_loss;
    means_.metric += metric;
  }
  // A single global model fluctuates.
  void report_means(const tn::Ctx& c) const {
    if (means_.count == 0) return;
    c.report("train/loss", means_.train_loss / means_.count);
    c.report("test/loss", means_.test_loss / means_.count);
    c.report(("test/" + metric_).c_str(), means_.metric / means_.count);
  }

  Aggregation aggregation_;
  Participation participation_;
  double mean_prob_, min_prob_, participation_alpha_, data_alpha_;
  int64_t clients_, min_samples_, rounds_;
  double lr_;
  int64_t local_steps_, batch_size_, eval_every_, eval_last_;
  bool curve_;
  std::string metric_;
  int64_t done_ = 0;
  Means means_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::procedure<FederatedRounds>("federated_rounds", "Federated training with clients that come and go", kPaper))
