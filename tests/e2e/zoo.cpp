// tenon zoo: experiments end to end, what is kept of them, and descriptions that are wrong.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <numeric>

#include "tests/e2e/program.h"

using namespace tenon::test;
using Catch::Matchers::WithinRel;
namespace fs = std::filesystem;

namespace {

const std::string kRecipe = slurp(source_path("tests/fixtures/zoo/blobs/recipe.txtpb"));

std::vector<std::string> run_blobs(const std::string& zoo, const std::string& out) {
  std::vector<std::string> arguments{"zoo", "run", "blobs", "--zoo", zoo, "--out", out};
  if (const char* device = std::getenv("TENON_TEST_DEVICE")) arguments.insert(arguments.end(), {"--device", device});
  return arguments;
}

size_t lines_in(const std::string& path) {
  const std::string text = slurp(path);
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

// A zoo of one folder, blobs, with this description.
std::string write_zoo(const TempFolder& folder, const std::string& description) {
  fs::create_directories(folder.file("zoo/blobs"));
  spill(folder.file("zoo/blobs/recipe.txtpb"), kRecipe);
  spill(folder.file("zoo/blobs/zoo.txtpb"), description);
  return folder.file("zoo");
}

}  // namespace

TEST_CASE("zoo run makes every run and judges every claim") {
  const TempFolder folder;
  const std::string out = folder.file("out");
  const Outcome o = program(run_blobs(source_path("tests/fixtures/zoo"), out));
  INFO(o.all());
  REQUIRE(o.code == 0);
  CHECK(o.err.find("[12/12] not learned, 0.2, 32, seed 0:  test/loss") != std::string::npos);

  const auto j = nlohmann::json::parse(slurp(out + "/result.json"));
  CHECK(j["verdict"] == "not reproduced");
  REQUIRE(j["claims"].size() == 6);
  for (size_t i = 0; i < 3; ++i) CHECK(j["claims"][i]["verdict"] == "reproduced");
  CHECK(j["claims"][3]["verdict"] == "not reproduced");
  CHECK(j["claims"][2]["measured"] == 2);
  CHECK(j["claims"][2]["wins_ties_losses"] == nlohmann::json{2, 0, 0});

  // 2 settings x 2 repeats x the seeds of each run; the figures are those of the values.
  const auto &learned = j["runs"][0], &idle = j["runs"][1];
  CHECK(learned["of"].size() == 8);
  CHECK(learned["of"][1] == "0.1, 16, seed 1");
  CHECK(idle["of"].size() == 4);
  const auto values = learned["metrics"]["test/loss"]["values"].get<std::vector<double>>();
  REQUIRE(values.size() == 8);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / 8;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  CHECK_THAT(learned["metrics"]["test/loss"]["mean"].get<double>(), WithinRel(mean, 1e-12));
  CHECK_THAT(learned["metrics"]["test/loss"]["deviation"].get<double>(), WithinRel(std::sqrt(squares / 7), 1e-9));
  CHECK_THAT(j["claims"][1]["measured"].get<double>(), WithinRel(mean - idle["metrics"]["test/loss"]["mean"].get<double>(), 1e-9));
  CHECK_THAT(j["claims"][4]["measured"].get<double>(), WithinRel(mean / idle["metrics"]["test/loss"]["mean"].get<double>(), 1e-9));
  // Of the second setting: the last half of the jobs.
  const auto idle_values = idle["metrics"]["test/loss"]["values"].get<std::vector<double>>();
  const double half = std::accumulate(values.begin() + 4, values.end(), 0.0) / 4, idle_half = (idle_values[2] + idle_values[3]) / 2;
  CHECK_THAT(j["claims"][5]["measured"].get<double>(), WithinRel(half / idle_half, 1e-9));
  CHECK(j["claims"][3]["measured"] == *std::min_element(values.begin(), values.end()));

  const std::string table = slurp(out + "/result.md");
  CHECK(o.out.starts_with(table));
  CHECK(table.find("| it is perfect | min test/loss of learned ≤ 0 |") != std::string::npos);
  CHECK(table.find("| test/loss of learned / not learned, 0.2, ≤ 0.5 |") != std::string::npos);
  CHECK(table.find("**not reproduced**") != std::string::npos);
  CHECK(slurp(out + "/test_accuracy.svg").starts_with("<svg"));
  CHECK(slurp(out + "/seeds.svg").find("how much") != std::string::npos);
  CHECK(leftovers(out).empty());
}

TEST_CASE("a claim on a difference or ratio takes it job by job") {
  const TempFolder folder;
  const std::string out = folder.file("out");
  const std::string claim = "claim { text: \"t\" metric: \"test/loss\" run: \"long\" minus: \"short\" at_most: 9 statistic: ";
  const std::string zoo = write_zoo(folder, "name: \"b\"\nseed: [0, 1, 2]\nrun { name: \"long\" set: \"train.steps=9\" }\nrun { name: \"short\" set: \"train.steps=1\" }\n" +
                                                claim + "min }\n" + claim + "mean }\n" +
                                                "claim { text: \"t\" metric: \"test/loss\" run: \"long\" over: \"short\" at_most: 9 statistic: max }\n");
  const Outcome o = program(run_blobs(zoo, out));
  INFO(o.all());
  REQUIRE(o.code == 0);
  const auto j = nlohmann::json::parse(slurp(out + "/result.json"));
  auto a = j["runs"][0]["metrics"]["test/loss"]["values"].get<std::vector<double>>();
  const auto b = j["runs"][1]["metrics"]["test/loss"]["values"].get<std::vector<double>>();
  REQUIRE((a.size() == 3 && b.size() == 3));
  CHECK_THAT(j["claims"][2]["measured"].get<double>(), WithinRel(std::max({a[0] / b[0], a[1] / b[1], a[2] / b[2]}), 1e-9));
  for (size_t i = 0; i < 3; ++i) a[i] -= b[i];
  CHECK_THAT(j["claims"][0]["measured"].get<double>(), WithinRel(*std::min_element(a.begin(), a.end()), 1e-9));
  CHECK_THAT(j["claims"][1]["measured"].get<double>(), WithinRel((a[0] + a[1] + a[2]) / 3, 1e-9));
}

TEST_CASE("a claim may be about what steps report: the last, the mean of all and of the last hundred") {
  const TempFolder folder;
  const std::string out = folder.file("out");
  const auto claim = [](const std::string& run, const std::string& of) {
    return "claim { text: \"t\" metric: \"" + of + "/constraint\" run: \"" + run + "\" at_most: 9 }\n";
  };
  const std::string zoo = write_zoo(folder, "name: \"b\"\nset: \"optimizer={id: \\\"lion_k\\\" options {lr: 0.01 weight_decay: 1 diagnostics: true}}\"\n"
                                            "run { name: \"one\" set: \"train.steps=1\" }\nrun { name: \"two\" set: \"train.steps=2\" }\n"
                                            "run { name: \"many\" set: \"train.steps=101\" }\n" +
                                                claim("one", "step") + claim("one", "mean") + claim("two", "step") + claim("two", "mean") +
                                                claim("two", "last_100") + claim("many", "mean") + claim("many", "last_100"));
  const Outcome o = program(run_blobs(zoo, out));
  INFO(o.all());
  REQUIRE(o.code == 0);
  const auto j = nlohmann::json::parse(slurp(out + "/result.json"));
  const auto measured = [&](size_t i) { return j["claims"][i]["measured"].get<double>(); };
  CHECK(measured(1) == measured(0));
  CHECK_THAT(measured(3), WithinRel((measured(0) + measured(2)) / 2, 1e-6));
  CHECK_THAT(measured(4), WithinRel(measured(3), 1e-12));
  CHECK_THAT(measured(6), WithinRel((101 * measured(5) - measured(0)) / 100, 1e-9));  // all but the first
}

TEST_CASE("zoo run repeats only what is missing or changed") {
  const TempFolder folder;
  const std::string out = folder.file("out");
  const std::string one = "name: \"b\"\nset: \"train.steps=3\"\nrun { name: \"a\" }\nclaim { text: \"t\" metric: \"test/loss\" run: \"a\" at_most: 9 }\n";
  const std::string zoo = write_zoo(folder, one + "seed: [0, 1]\n");
  const Outcome first = program(run_blobs(zoo, out));
  INFO(first.all());
  REQUIRE(first.code == 0);
  const std::string result = slurp(out + "/result.json");
  CHECK(lines_in(out + "/runs.jsonl") == 2);

  const Outcome again = program(run_blobs(zoo, out));
  CHECK(again.code == 0);
  CHECK(again.err.find("2 of 2 runs were done already") != std::string::npos);
  CHECK(lines_in(out + "/runs.jsonl") == 2);
  CHECK(slurp(out + "/result.json") == result);

  // A process killed in the middle of a line: that run is made again, to the same figures.
  const std::string lines = slurp(out + "/runs.jsonl");
  spill(out + "/runs.jsonl", lines.substr(0, lines.size() - 20));
  const Outcome torn = program(run_blobs(zoo, out));
  INFO(torn.all());
  CHECK(torn.code == 0);
  CHECK(torn.err.find("1 of 2 runs were done already") != std::string::npos);
  CHECK(slurp(out + "/result.json") == result);
  CHECK(program(run_blobs(zoo, out)).err.find("2 of 2 runs were done already") != std::string::npos);

  auto more = run_blobs(zoo, out);
  more.insert(more.end(), {"--seeds", "1,2,3"});
  CHECK(program(more).err.find("1 of 3 runs were done already") != std::string::npos);

  write_zoo(folder, one + "seed: [0, 1]\nset: \"train.batch_size=8\"\n");
  const Outcome changed = program(run_blobs(zoo, out));
  CHECK(changed.err.find("done already") == std::string::npos);
}

TEST_CASE("zoo list and report give the overview") {
  const TempFolder folder;
  const std::string zoo = source_path("tests/fixtures/zoo"), results = folder.file("results");
  const Outcome list = program({"zoo", "list", "--zoo", zoo});
  INFO(list.all());
  CHECK(list.code == 0);
  CHECK(list.out.find("Points in three clouds") != std::string::npos);
  CHECK(list.out.find("12 runs   6 claims") != std::string::npos);

  CHECK(program({"zoo", "report", "--zoo", zoo, "--results", results}).out.find("| blobs | not run | 0 of 6 |") != std::string::npos);
  REQUIRE(program(run_blobs(zoo, results + "/blobs")).code == 0);
  const Outcome report = program({"zoo", "report", "--zoo", zoo, "--results", results});
  CHECK(report.out.find("| blobs | not reproduced | 5 of 6 | it is perfect |") != std::string::npos);

  // A result that is kept in the zoo itself stands in.
  const std::string other = write_zoo(folder, slurp(zoo + "/blobs/zoo.txtpb"));
  fs::copy(results + "/blobs/result.json", other + "/blobs/result.json");
  CHECK(program({"zoo", "report", "--zoo", other, "--results", folder.file("none")}).out.find("5 of 6") != std::string::npos);
  spill(other + "/blobs/result.json", "{}");
  CHECK(complaint(program({"zoo", "report", "--zoo", other, "--results", folder.file("none")})).find("is not a result") != std::string::npos);
}

TEST_CASE("wrong descriptions are told in one sentence, with their line") {
  const std::string head = "name: \"b\"\n", run = "run { name: \"a\" set: \"train.steps=1\" }\n",
                    claim = "claim { text: \"t\" metric: \"test/loss\" run: \"a\" at_most: 9 }\n";
  const struct {
    std::string text, sentence;
  } cases[] = {
      {head + run + "claims {}\n", "zoo.txtpb:3: unknown field 'claims' in zoo (did you mean 'claim'?)"},
      {run + claim, "zoo.txtpb: the experiments need a name"},
      {head + claim, "zoo.txtpb: there is no run"},
      {head + run, "zoo.txtpb: there is no claim"},
      {head + run + run + claim, "zoo.txtpb:3: there are two runs 'a'"},
      {head + run + claim + "seed: [1, 1]", "zoo.txtpb: seed 1 is given twice"},
      {head + "run {}\n" + claim, "zoo.txtpb:2: a run needs a name"},
      {head + run + "claim { text: \"t\" metric: \"m\" run: \"aa\" at_most: 1 }", "zoo.txtpb:3: no run 'aa' (did you mean 'a'?)"},
      {head + run + "claim { text: \"t\" metric: \"m\" run: \"a\" }", "zoo.txtpb:3: the claim has no bound; write at_least or at_most and a number"},
      {head + run + "claim { text: \"t\" metric: \"m\" run: \"a\" statistic: wins at_least: 1 }",
       "zoo.txtpb:3: wins are counted against another run; give `minus`"},
      {head + run + "claim { text: \"t\" metric: \"m\" run: \"a\" minus: \"a\" over: \"a\" at_least: 1 }",
       "zoo.txtpb:3: a claim is about a difference or a ratio; give `minus` or `over`"},
      {head + "setting: [\"x\"]\n" + run + "claim { text: \"t\" metric: \"m\" run: \"a\" setting: \"y\" at_most: 1 }",
       "zoo.txtpb:4: no setting 'y' (there are: x)"},
      {head + run + claim + "curve { metric: \"m\" }", "zoo.txtpb:4: a curve needs a name that its file can have"},
      {head + run + claim + "curve { name: \"c\" line {} }", "zoo.txtpb:4: a curve needs a metric, such as \"step_ms\""},
      {head + run + claim + "curve { name: \"c\" metric: \"m\" }", "zoo.txtpb:4: the curve has no line"},
      {head + run + claim + "curve { name: \"c\" metric: \"m\" line { name: \"l\" x: [1, 2] run: \"a\" } }",
       "zoo.txtpb:4: a line needs a run for each x; 'l' has 2 x and 1 runs"},
      {head + run + claim + "curve { name: \"c\" metric: \"m\" line { x: 1 run: \"b\" } }", "zoo.txtpb:4: no run 'b' (there are: a)"},
      {head + run + claim + "curve { name: \"c\" metric: \"test/los\" line { x: 1 run: \"a\" } }",
       "zoo.txtpb:4: run 'a' has no metric 'test/los' (did you mean 'test/loss'?)"},
      {head + run + claim + "setting: \"x\"", "zoo.txtpb:2: the run makes no use of {setting}"},
      {head + claim + "run { name: \"a\" set: \"seed={repeat}\" }", "zoo.txtpb:3: set \"seed={repeat}\" uses {repeat}, but no repeat is given"},
      {head + claim + "run { name: \"a\" set: \"train.stebs=1\" }", "zoo.txtpb:3: --set train.stebs=1: unknown field 'stebs' in train (did you mean 'steps'?)"},
      {head + run + "claim { text: \"t\" metric: \"test/los\" run: \"a\" at_most: 9 }", "zoo.txtpb:3: run 'a' has no metric 'test/los' (did you mean 'test/loss'?)"},
  };
  for (const auto& c : cases) {
    const TempFolder folder;
    const std::string zoo = write_zoo(folder, c.text);
    INFO(c.text);
    CHECK(complaint(program(run_blobs(zoo, folder.file("out")))) == zoo + "/blobs/" + c.sentence + "\n");
  }
  const TempFolder folder;
  CHECK(complaint(program({"zoo", "run", "blops", "--zoo", write_zoo(folder, head)})).ends_with("(did you mean 'blobs'?)\n"));
  CHECK(complaint(program({"zoo", "list", "--zoo", folder.file("nothing")})).find("no folder") != std::string::npos);
}
