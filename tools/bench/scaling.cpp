#include "tools/bench/scaling.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "core/io/file.h"
#include "tools/bench/machine.h"
#include "tools/bench/measure.h"
#include "tools/bench/profile.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"
#include "tools/plot/chart.h"

namespace tenon::bench {
namespace {

// A model and its batch.
struct Size {
  std::string recipe;
  Columns batch;
};

struct Series {
  std::string name, what;  // "batch", "batch of mlp_mnist"
  std::vector<int64_t> sizes;
  Size (*make)(int64_t size);
};

std::string str(int64_t n) { return std::to_string(n); }

// As mlp_mnist.
Size mlp(int64_t batch, int64_t width) {
  return {"model { layer { mlp { hidden: [" + str(width) + ", " + str(width) +
              "] output: 10 } } } loss { id: 'cross_entropy' } optimizer { id: 'adamw' }",
          {{"x", data("x", {batch, 784})}, {"y", integers("y", {batch}, 10)}}};
}

// As gpt_char, experts > 0: as moe_gpt_char.
Size gpt(int64_t batch, int64_t context, int64_t width, int64_t layers, int64_t vocab, int64_t experts = 0) {
  std::string model = "layers: " + str(layers) + " heads: 4 width: " + str(width) + " vocab: " + str(vocab) +
                      " context: " + str(context);
  if (experts > 0) model += " moe { experts: " + str(experts) + " top_k: 2 hidden: " + str(width) + " }";
  const Shape shape{batch, context};
  const auto n = static_cast<int32_t>(vocab);
  return {"model { layer { gpt { " + model + " } } } loss { id: 'cross_entropy' } optimizer { id: 'adamw' }",
          {{"x", integers("x", shape, n)}, {"y", integers("y", shape, n)}}};
}

const Series kSeries[] = {
    {"mlp_batch",
     "batch of an MLP 784-512-512-10",
     {16, 32, 64, 128, 256, 512, 1024},
     [](int64_t n) { return mlp(n, 512); }},
    {"mlp_width",
     "width of an MLP with two hidden layers, batch 128",
     {64, 128, 256, 512, 1024, 2048},
     [](int64_t n) { return mlp(128, n); }},
    {"gpt_batch",
     "batch of gpt_char",
     {1, 2, 4, 8, 16, 32},
     [](int64_t n) { return gpt(n, 128, 128, 4, 96); }},
    {"gpt_width",
     "width of gpt_char, batch 4",
     {32, 64, 128, 256, 384},
     [](int64_t n) { return gpt(4, 128, n, 4, 96); }},
    {"gpt_depth",
     "blocks of gpt_char, batch 4",
     {1, 2, 4, 8, 16},
     [](int64_t n) { return gpt(4, 128, 128, n, 96); }},
    {"gpt_vocabulary",
     "vocabulary of gpt_char with one block, batch 4, context 64",
     {100, 1000, 10'000, 30'000, 100'000},
     [](int64_t n) { return gpt(4, 64, 128, 1, n); }},
    {"moe_experts",
     "experts of moe_gpt_char with two blocks, batch 4, two experts a token",
     {2, 4, 8, 16, 32, 64},
     [](int64_t n) { return gpt(4, 128, 128, 2, 96, n); }},
};

struct Point {
  int64_t size = 0;
  double ms = 0, flops = 0, bytes = 0, least_ms = 0;
};

Result<Point> measure_size(Catalog& catalog, const Series& series, int64_t n, const Limits& limits,
                           const ScalingOptions& o) {
  Point p{.size = n};
  const auto backend = [&] {
    auto b = make_cpu_backend();
    b->set_threads(o.threads);
    return b;
  };
  Size size = series.make(n);
  {
    // What a step has to do, kernel by kernel.
    Profile profile;
    Runtime runtime(profiled(backend(), profile));
    TN_ASSIGN(const auto workload, recipe_workload({runtime, catalog}, size.recipe, size.batch));
    profile.start();
    TN_RETURN_IF_ERROR(workload->step());
    for (const Profile::Row& r : profile.rows()) {
      const auto calls = static_cast<double>(r.calls);
      p.flops += calls * r.cost.flops;
      p.bytes += calls * r.cost.bytes;
      p.least_ms += calls * r.cost.least_seconds(limits.flops_per_second, limits.bytes_per_second) * 1e3;
    }
  }
  Runtime runtime(backend());
  TN_ASSIGN(const auto workload, recipe_workload({runtime, catalog}, size.recipe, std::move(size.batch)));
  TN_ASSIGN(const Measured m, measure(runtime, *workload, o.seconds));
  p.ms = m.ms;
  return p;
}

std::string number(const char* format, double v) {
  char text[32];
  std::snprintf(text, sizeof text, format, v);
  return text;
}

std::string table(const Series& series, const std::vector<Point>& points) {
  std::string md = "## " + series.what +
                   "\n\n| size | ms a step | GFLOP | MB moved | growth | expected growth | "
                   "of the limit |\n|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const Point& p : points)
    md += "| " + str(p.size) + " | " + number("%.3g", p.ms) + " | " + number("%.3g", p.flops * 1e-9) + " | " +
          number("%.3g", p.bytes * 1e-6) + " | " + number("%.3g", p.ms / points[0].ms) + " | " +
          number("%.3g", p.least_ms / points[0].least_ms) + " | " +
          number("%.0f %%", 100 * p.least_ms / p.ms) + " |\n";
  return md + "\n";
}

std::string chart(const Series& series, const std::vector<Point>& points, const std::string& machine) {
  plot::LineChart c{.title = "Time of a step against the " + series.what,
                    .subtitle = machine,
                    .x_axis = series.name.substr(series.name.find('_') + 1),
                    .y_axis = "ms",
                    .log_x = true,
                    .log_y = true,
                    .series = {{.name = "measured", .points = {}},
                               {.name = "growth of the work", .points = {}, .dashed = true, .colour = 0},
                               {.name = "the machine's limit", .points = {}, .dashed = true, .colour = 6}}};
  for (const Point& p : points) {
    const auto x = static_cast<double>(p.size);
    c.series[0].points.emplace_back(x, p.ms);
    c.series[1].points.emplace_back(x, points[0].ms * p.least_ms / points[0].least_ms);
    c.series[2].points.emplace_back(x, p.least_ms);
  }
  return c.svg();
}

}  // namespace

Result<std::string> scaling(Catalog& catalog, const ScalingOptions& o) {
  TN_RETURN_IF_ERROR(make_folders(o.folder));
  TN_ASSIGN(const Limits limits, measure_limits(o.threads));
  const std::string machine = cpu_model() + ", " + str(cores()) + " cores, " + str(o.threads) + " thread" +
                              (o.threads == 1 ? "" : "s");
  std::string md =
      "# How a training step grows\n\n" + machine + ". Tenon " + tenon_version() + ".\n\n" +
      "Measured limits: " + number("%.0f", limits.flops_per_second * 1e-9) + " GFLOP/s, " +
      number("%.1f", limits.bytes_per_second * 1e-9) +
      " GB/s. A kernel needs at least the larger of its FLOPs and its bytes over these; their sum is the "
      "limit of a step, and its growth is what is expected.\n\n";
  nlohmann::ordered_json all = {{"machine", machine},
                                {"version", tenon_version()},
                                {"threads", o.threads},
                                {"flops_per_second", limits.flops_per_second},
                                {"bytes_per_second", limits.bytes_per_second}};
  for (const Series& series : kSeries) {
    std::vector<Point> points;
    for (const int64_t n : series.sizes) {
      if (o.brief && points.size() == 2) break;
      if (o.progress) o.progress(series.name + ": " + str(n));
      auto p = measure_size(catalog, series, n, limits, o);
      if (!p) return std::move(p).status().at(series.name + " " + str(n));
      points.push_back(*p);
      all["series"][series.name].push_back({{"size", p->size},
                                            {"ms", p->ms},
                                            {"flops", p->flops},
                                            {"bytes", p->bytes},
                                            {"least_ms", p->least_ms}});
    }
    md += table(series, points);
    TN_RETURN_IF_ERROR(
        write_atomically(o.folder + "/" + series.name + ".svg", chart(series, points, machine)));
  }
  TN_RETURN_IF_ERROR(write_atomically(o.folder + "/scaling.md", md));
  TN_RETURN_IF_ERROR(write_atomically(o.folder + "/scaling.json", all.dump(2) + "\n"));
  return md;
}

}  // namespace tenon::bench
