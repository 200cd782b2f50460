// tenon generate: text from a trained language model, one token at a time.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/base/random.h"
#include "core/data/readers.h"
#include "core/ops/shape.h"
#include "core/train/run_folder.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct GenerateFlags : RecipeFlags {
  std::string checkpoint, prompt = "\n";
  int64_t tokens = 500, top_k = 0;
  double temperature = 0.8;
  uint64_t seed = 0;
};

// Draws from softmax(logits / temperature) among the top_k largest; temperature 0 takes the largest.
int32_t sample(std::vector<double> logits, double temperature, int64_t top_k, Philox& random) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int32_t>(largest - logits.begin());
  const double top = *largest;
  if (top_k > 0 && top_k < static_cast<int64_t>(logits.size())) {
    std::vector<double> sorted = logits;
    std::nth_element(sorted.begin(), sorted.begin() + (top_k - 1), sorted.end(), std::greater<>());
    for (double& l : logits)
      if (l < sorted[static_cast<size_t>(top_k - 1)]) l = -INFINITY;
  }
  double total = 0;
  for (double& l : logits) total += l = std::exp((l - top) / temperature);
  double u = random.uniform() * total;
  for (size_t i = 0; i < logits.size(); ++i)
    if ((u -= logits[i]) < 0) return static_cast<int32_t>(i);
  return static_cast<int32_t>(logits.size()) - 1;
}

Status generate(const GenerateFlags& flags) {
  TN_ASSIGN(Session session, open_session(flags));
  Experiment& e = *session.experiment;
  const DataStream& stream = e.streams()[0];
  if (stream.context <= 0) return invalid("generate: the recipe's data is not a token stream, so its model makes no text");
  TN_RETURN_IF_ERROR(restore_checkpoint(flags.checkpoint, e, nullptr));
  TN_ASSIGN(std::vector<int32_t> tokens, encode_text(stream.train->schema, flags.prompt));
  if (tokens.empty()) return invalid("--prompt: must not be empty");
  std::fwrite(flags.prompt.data(), 1, flags.prompt.size(), stdout);

  const TrainedModel& model = e.objective().models[0];
  Philox random(flags.seed, "generate");
  Graph graph(*session.runtime);
  const auto context = static_cast<size_t>(stream.context);
  for (int64_t n = 0; n < flags.tokens; ++n) {
    // A window of fixed length keeps one plan for all tokens; what is right of the last token can't influence it.
    const size_t length = std::min(tokens.size(), context);
    std::vector<int32_t> window(context, 0);
    std::copy(tokens.end() - static_cast<std::ptrdiff_t>(length), tokens.end(), window.begin());
    TN_ASSIGN(const Array x, Array::from_host(session.runtime->backend(), HostArray::of<int32_t>(window, Shape{1, stream.context})));
    graph.reset();
    nn::Context ctx(graph, false);
    const Tensor logits = model.model(ctx, graph.input(x));
    TN_ASSIGN(const HostArray h, graph.to_host(logits));
    const int64_t vocab = h.shape().back();
    std::vector<double> last;
    for (int64_t k = 0; k < vocab; ++k) last.push_back(h.at((static_cast<int64_t>(length) - 1) * vocab + k));
    tokens.push_back(sample(std::move(last), flags.temperature, flags.top_k, random));
    const std::string text = decode_text(stream.train->schema, std::span<const int32_t>(&tokens.back(), 1));
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  std::fputc('\n', stdout);
  return Status::ok();
}

}  // namespace

void add_generate(CLI::App& app, Command& run) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* c = app.add_subcommand("generate", "Text from a trained language model");
  flags->add_to(*c);
  c->add_option("--checkpoint", flags->checkpoint, "Checkpoint folder, or run folder (its latest one)")->required();
  c->add_option("--prompt", flags->prompt, "Text to continue (default: a line break)");
  c->add_option("--tokens", flags->tokens, "How many to make")->check(at_least(1))->capture_default_str();
  c->add_option("--temperature", flags->temperature, "0: always the likeliest")->check(at_least(0))->capture_default_str();
  c->add_option("--top-k", flags->top_k, "Draw among the k likeliest (0: all)")->check(at_least(0));
  c->add_option("--seed", flags->seed, "Of the draws")->capture_default_str();
  c->callback([flags, &run] { run = [flags] { return report(generate(*flags)); }; });
}

}  // namespace tenon::cli
