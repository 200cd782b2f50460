// Federated aggregation with participation that nobody knows: the rules, the patterns, whole runs.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/plugin/aggregator.h"
#include "tests/io/temp_folder.h"
#include "tests/plugins/calls.h"
#include "tests/support/opened.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Mask = std::vector<uint8_t>;
using Reals = std::vector<double>;

// An aggregator with its global vector.
struct Server {
  std::unique_ptr<Runtime> runtime = test::runtime();
  std::unique_ptr<Instance> plugin;
  Array params;
  Status status;
  int64_t rounds = 0;

  Server(const std::string& id, const Options& options, const Reals& start) {
    auto made = Instance::create(shipped(), TN_KIND_AGGREGATOR, id, id, options);
    if (made) plugin = std::move(made).value();
    else status = made.status();
    params = Array::from_host(runtime->backend(), reals({static_cast<int64_t>(start.size())}, start)).value();
  }
  // deltas: row by row, of the active clients. What it emits under `wanted` comes out ("params": the new vector).
  Result<Reals> round(const Mask& mask, const Reals& deltas, const std::string& wanted = "params", const Reals& probabilities = {}) {
    Graph graph(*runtime);
    const auto input = [&](const Shape& shape, const Reals& v) {
      return graph.input(Array::from_host(graph.backend(), reals(shape, v)).value());
    };
    FederatedRound r{.round = rounds++, .participation = mask, .client_samples = {}, .params = graph.input(params), .deltas = {},
                     .inputs = {}};
    const int64_t size = params.shape()[0];
    if (!deltas.empty()) r.deltas = input({static_cast<int64_t>(deltas.size()) / size, size}, deltas);
    if (!probabilities.empty())
      r.inputs = {{"probabilities", input({static_cast<int64_t>(probabilities.size())}, probabilities)}};
    TN_ASSIGN(const AggregatedRound out, aggregate_round(*plugin, graph, {.step = r.round, .train = true}, r));
    std::vector<NamedTensor> all = out.emitted.checks(plugin->who());
    const size_t n_checks = all.size();
    all.push_back({wanted, wanted == "params" ? out.params : out.emitted.find(wanted)});
    std::vector<Tensor> tensors;
    for (const NamedTensor& t : all) tensors.push_back(t.value);
    std::vector<Update> updates = plugin->take_updates();
    updates.push_back({params, out.params});
    TN_ASSIGN(const auto arrays, graph.eval(tensors, updates));
    TN_RETURN_IF_ERROR(verify(std::span(all).first(n_checks), std::span(arrays).first(n_checks)));
    TN_ASSIGN(const HostArray h, arrays.back().to_host());
    Reals values;
    for (int64_t i = 0; i < h.numel(); ++i) values.push_back(h.at(i));
    return values;
  }
  std::string refusal(const Mask& mask, const Reals& deltas, const Reals& probabilities = {}) {
    if (!status.is_ok()) return status.message();
    const auto r = round(mask, deltas, "params", probabilities);
    return r ? "accepted" : r.status().message();
  }
};

const std::string kBlobs =
    "data { format: 'synthetic' options { kind: 'blobs' n: 240 features: 3 classes: 3 noise: 0.4 } test_split { count: 40 } } "
    "model { layer { linear { init: 'zeros' } } } loss { id: 'cross_entropy' } precision: f64 seed: 3 ";

std::string federated(const std::string& options, const std::string& lr = "0.1") {
  return kBlobs + "procedure { id: 'federated_rounds' options { clients: 8 mean_prob: 0.4 lr: " + lr + " " + options + " } }";
}

MetricValues run_of(Runtime& rt, const std::string& text) {
  const auto r = run_text(rt, text);
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  return *r;
}

}  // namespace

TEST_CASE("fed_au's weights are running means of intervals, and don't see the round they weigh") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  for (const int64_t cutoff : {int64_t{0}, int64_t{1}, int64_t{4}}) {
    CAPTURE(cutoff);
    const size_t clients = 6;
    Server server("fed_au", {{"cutoff", cutoff}, {"output", "weights"}}, {0});
    // The recursive form of the paper: w <- (M w + S) / (M + 1).
    Reals w(clients, 1), m(clients, 0), wait(clients, 0);
    for (int t = 0; t < 30; ++t) {
      Mask mask(clients);
      Reals deltas;
      for (size_t n = 0; n < clients; ++n)
        if ((mask[n] = rng() % (n + 2) == 0) != 0) deltas.push_back(1);
      const auto got = server.round(mask, deltas, "weights");
      INFO(got.status().message());
      REQUIRE(got.is_ok());
      for (size_t n = 0; n < clients; ++n) {
        CHECK_THAT((*got)[n], WithinAbs(w[n], 1e-12));
        if (cutoff == 1) CHECK((*got)[n] == 1);
        ++wait[n];
        if (!mask[n] && !(cutoff > 0 && wait[n] >= static_cast<double>(cutoff))) continue;
        w[n] = (m[n] * w[n] + wait[n]) / (m[n] + 1);
        ++m[n];
        wait[n] = 0;
      }
    }
  }
}

TEST_CASE("rounds in which nobody takes part") {
  const Mask nobody(3, 0), two{1, 0, 1};
  const Reals deltas{1, 2, 3, 4}, start{1, 1};
  for (const char* id : {"fed_au", "fed_avg", "fed_varp"}) {
    CAPTURE(id);
    Server server(id, {}, start);
    CHECK(server.round(nobody, {}).value() == start);
    const Reals moved = server.round(two, deltas).value();
    CHECK(moved != start);
    CHECK(server.round(nobody, {}).value() == moved);
  }
  // The mean of the last updates goes on.
  Server mifa("mifa", {}, start);
  CHECK(mifa.round(two, deltas).value() == Reals{1 + 4.0 / 3, 1 + 2.0});
  const Reals next = mifa.round(nobody, {}).value();
  CHECK_THAT(next[0], WithinAbs(1 + 8.0 / 3, 1e-12));
  CHECK_THAT(next[1], WithinAbs(5, 1e-12));
}

TEST_CASE("aggregators refuse what they can't use") {
  const Mask mask{1, 0, 1};
  const Reals deltas{1, 2, 3, 4}, start{0, 0};
  const auto options = [&](const char* id, const Options& o) { return Server(id, o, start).refusal(mask, deltas); };
  CHECK_THAT(options("fed_au", {{"cutoff", int64_t{-1}}}), ContainsSubstring("'cutoff' is -1; it must be >= 0"));
  CHECK_THAT(options("mifa", {{"lr_global", 0.0}}), ContainsSubstring("it must be > 0"));
  CHECK_THAT(options("fed_avg", {{"weighting", "average_al"}}), ContainsSubstring("did you mean 'average_all'"));
  CHECK_THAT(options("fed_avg", {{"weighting", "known_prob"}}), ContainsSubstring("needs the probabilities"));
  const auto known = [&](const Reals& p) { return Server("fed_avg", {{"weighting", "known_prob"}}, start).refusal(mask, deltas, p); };
  CHECK_THAT(known({0.5, 0.5}), ContainsSubstring("2 probabilities for 3 clients"));
  CHECK_THAT(known({0.5, 0, 1}), ContainsSubstring("not in (0, 1]"));
  CHECK_THAT(known({0.5, 1.5, 1}), ContainsSubstring("not in (0, 1]"));
  CHECK(known({0.5, 0.1, 1}) == "accepted");
  for (const char* id : {"fed_au", "fed_avg", "fed_varp", "mifa"}) {
    CAPTURE(id);
    CHECK_THAT(Server(id, {}, start).refusal(mask, {1, 2, NAN, 4}), ContainsSubstring("the update of client 2 is not finite"));
    CHECK_THAT(Server(id, {}, start).refusal(mask, {1, 2, 3, 4, 5, 6}), ContainsSubstring("a row for each active client"));
  }
  Server server("fed_au", {}, start);
  REQUIRE(server.round(mask, deltas).is_ok());
  CHECK_THAT(server.refusal({1, 1}, deltas), ContainsSubstring("the round has 2 clients, the ones before had 3"));
}

TEST_CASE("weights estimated from simulated participation") {
  auto rt = runtime();
  const auto study = [&](const std::string& options) {
    return run_of(*rt, "procedure { id: 'participation' options { " + options + " } } seed: 5");
  };
  CHECK(study("rounds: 4000").at("worst/weight") < 0.2);
  CHECK(study("rounds: 4000 cutoff: 10").at("worst/weight_with_cutoff") < 0.1);
  CHECK(study("rounds: 4000 cutoff: 10").at("worst/weight") > 0.3);  // of p = 0.05: the bias of the cut-off
  CHECK(study("rounds: 4000 pattern: 'markov'").at("worst/rate") < 0.2);
  CHECK(study("rounds: 4000 pattern: 'cyclic' cycle: 20").at("worst/rate") < 0.06);  // p = 1 starts with at most one round off
  CHECK(study("rounds: 50").at("weight/0") == study("rounds: 50").at("weight/0"));

  const auto refusal = [&](const std::string& options) {
    return run_refusal(*rt, "procedure { id: 'participation' options { " + options + " } }");
  };
  CHECK_THAT(refusal("max_to_active: 1.5"), ContainsSubstring("'max_to_active' is 1.5; it must be > 0 and <= 1"));
  CHECK_THAT(refusal("probabilities: [0.5, 0]"), ContainsSubstring("'probabilities' is 0; it must be > 0"));
  CHECK_THAT(refusal("cycle: 1"), ContainsSubstring("'cycle' is 1; it must be >= 2"));
}

TEST_CASE("one client that is always there trains as it would alone") {
  auto rt = runtime();
  // Its only sample fills every batch.
  const std::string data = "data { format: 'synthetic' options { kind: 'blobs' n: 2 features: 3 classes: 2 } test_split { count: 1 } } ";
  const std::string model = "model { layer { linear { units: 2 init: 'zeros' } } } loss { id: 'cross_entropy' } precision: f64 ";
  const std::string options = "clients: 1 mean_prob: 1 min_prob: 1 lr: 0.2 local_steps: 3 batch_size: 4 rounds: 5 eval_last: 1 ";
  const MetricValues rounds =
      run_of(*rt, data + model + "procedure { id: 'federated_rounds' options { " + options + "aggregator: 'fed_avg' } }");
  const MetricValues alone = run_of(*rt, data + model + "optimizer { id: 'sgd' options { lr: 0.2 } } train { steps: 15 batch_size: 1 }");
  CHECK_THAT(rounds.at("test/loss"), WithinAbs(alone.at("test/loss"), 1e-12));
}

TEST_CASE("federated rounds learn, on the same clients whatever the aggregator") {
  auto rt = runtime();
  for (const char* pattern : {"bernoulli", "markov", "cyclic"}) {
    CAPTURE(pattern);
    const std::string options = "rounds: 40 eval_every: 20 participation: '" + std::string(pattern) + "' cycle: 6 max_to_active: 0.3 ";
    const MetricValues au = run_of(*rt, federated(options + "cutoff: 1"));
    const MetricValues all = run_of(*rt, federated(options + "aggregator: 'fed_avg' weighting: 'average_all'"));
    CHECK(au.at("test/accuracy") > 0.6);
    // A cut-off of 1 makes all weights 1, which is average_all.
    CHECK_THAT(au.at("test/loss"), WithinAbs(all.at("test/loss"), 1e-12));
    CHECK(run_of(*rt, federated(options)) == run_of(*rt, federated(options)));
    CHECK(run_of(*rt, federated(options + "aggregator: 'mifa'")).at("test/loss") != au.at("test/loss"));
  }
  const MetricValues known = run_of(*rt, federated("rounds: 40 aggregator: 'fed_avg' weighting: 'known_prob'"));
  CHECK(known.at("test/accuracy") > 0.6);
  // The mean over the last evaluations, not the last of them.
  const MetricValues last = run_of(*rt, federated("rounds: 40 eval_last: 10"));
  CHECK(last.at("test/loss") != run_of(*rt, federated("rounds: 40 eval_last: 40")).at("test/loss"));
  CHECK(last.at("test/loss") == run_of(*rt, federated("rounds: 40 eval_last: 10 curve: false")).at("test/loss"));
}

TEST_CASE("federated rounds plan a client once") {
  auto rt = runtime();
  if (rt->options().eager) SKIP("plans of single nodes");
  run_of(*rt, federated("rounds: 10 curve: false eval_last: 1"));
  const int64_t before = rt->stats().plan_misses;
  run_of(*rt, federated("rounds: 80 curve: false eval_last: 1"));
  // New are only rounds with another number of active clients: at most 8 of them.
  CHECK(rt->stats().plan_misses - before <= 8);
  CHECK(rt->stats().plan_hits > 80);
}

TEST_CASE("federated rounds go on where they stopped, with what the server knows of the clients") {
  auto rt = runtime();
  for (const std::string aggregator : {"fed_au", "fed_varp", "mifa"}) {
    CAPTURE(aggregator);
    const TempFolder folder;
    const auto run = [&](int64_t rounds, bool resume) {
      auto e = open_recipe(*rt, federated("eval_last: 1000 aggregator: '" + aggregator + "' rounds: " + std::to_string(rounds)));
      REQUIRE(e.is_ok());
      return run_in_folder(**e, folder.file("run"), resume);
    };
    run(10, false);
    run(10, true);  // nothing is left to do; the aggregator is made, not used
    CHECK(run(30, true) == run_of(*rt, federated("eval_last: 1000 rounds: 30 aggregator: '" + aggregator + "'")));
  }
}

TEST_CASE("federated rounds refuse what can't be run") {
  auto rt = runtime();
  CHECK_THAT(run_refusal(*rt, federated("rounds: 5 min_samples: 1000")),
             ContainsSubstring("no client has 1000 samples; there are 200 in all"));
  CHECK_THAT(run_refusal(*rt, federated("participation: 'cycle'")), ContainsSubstring("did you mean 'cyclic'"));
  CHECK_THAT(run_refusal(*rt, federated("data_alpha: 0")), ContainsSubstring("'data_alpha' is 0; it must be > 0"));
  CHECK_THAT(run_refusal(*rt, federated("rounds: 30", "1e308")), ContainsSubstring("aggregator 'fed_au': the update of client"));
  const std::string numbers = "data { format: 'synthetic' options { kind: 'linear' n: 60 } test_split { count: 10 } } "
                              "model { layer { linear {} } } loss { id: 'mse' } procedure { id: 'federated_rounds' }";
  CHECK_THAT(run_refusal(*rt, numbers), ContainsSubstring("the partition needs class numbers"));
}

}  // namespace tenon::test
