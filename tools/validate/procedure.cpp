#include "tools/validate/procedure.h"

#include "core/train/fit.h"

namespace tenon::validate {
namespace {

constexpr const char* kBlobs = R"(
  data { format: "synthetic" options { kind: "blobs" n: 80 features: 2 classes: 3 noise: 0.4 } val_split { count: 16 } test_split { count: 16 } }
  loss { id: "cross_entropy" }
  metric { id: "accuracy" }
)";
constexpr const char* kLine = R"(
  data { format: "synthetic" options { kind: "linear" n: 80 features: 2 } val_split { count: 16 } test_split { count: 16 } }
  loss { id: "mse" }
)";
constexpr const char* kTraining = R"(
  model { layer { mlp { hidden: 6 activation: "tanh" } } }
  optimizer { id: "sgd" options { lr: 0.05 } }
  train { steps: 8 batch_size: 16 }
  seed: 5
)";

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) out += (c == '"' || c == '\\' ? std::string("\\") : std::string()) + c;
  return out + "\"";
}

std::string text_of(const OptionValue& v) {
  return std::visit(
      [](const auto& x) -> std::string {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, bool>) return x ? "true" : "false";
        else if constexpr (std::is_same_v<T, std::string>) return quoted(x);
        else if constexpr (std::is_same_v<T, double>) {
          char text[32];
          std::snprintf(text, sizeof text, "%.17g", x);
          return text;
        } else if constexpr (std::is_arithmetic_v<T>) return std::to_string(x);
        else {
          std::string list;
          for (const auto& e : x) list += (list.empty() ? "" : ", ") + text_of(e);
          return "[" + list + "]";
        }
      },
      v);
}

}  // namespace

size_t small_recipes() { return 3; }

Result<Inputs> run_small_recipe(const Host& host, size_t recipe_number, const tn_descriptor& d, const Options& options) {
  std::string text = std::string(recipe_number < 2 ? kBlobs : kLine) + kTraining + "procedure { id: " + quoted(d.id) + " options {";
  for (const auto& [name, value] : options) text += " " + name + ": " + text_of(value);
  text += " } }";
  if (recipe_number == 1) {
    const auto quantizers = host.catalog.list(TN_KIND_QUANTIZER);
    if (quantizers.empty()) return not_found("there is no quantizer");
    text += " quantizer { id: " + quoted(quantizers[0]->id) + " }";
  }
  TN_ASSIGN(Recipe recipe, parse_recipe(text, "the validator's recipe"));
  TN_ASSIGN(const auto experiment, Experiment::open(host.runtime, host.catalog, std::move(recipe), ""));
  Observer quiet;
  TN_ASSIGN(const Summary summary, run_recipe(*experiment, nullptr, quiet));
  Inputs out;
  for (const auto& [name, value] : summary.metrics) out.emplace_back(name, HostArray::of<double>(std::span(&value, 1), Shape{}));
  return out;
}

}  // namespace tenon::validate
