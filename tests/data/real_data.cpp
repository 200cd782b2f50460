// The published sets, when they are there (TENON_DATA, or the standard place beside the checkout); the digits
// always are.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <filesystem>

#include "core/data/files.h"
#include "core/data/readers.h"
#include "core/data/transform.h"
#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

std::string root() {
  if (const std::string r = data_root_from_environment(); !r.empty()) return r;
  const std::string beside = std::string(TENON_SOURCE_DIR) + "/../shared/data";
  return std::filesystem::is_directory(beside) ? beside : "";
}

// The set, or nothing (the test is skipped) when its files are not on this machine.
Result<Dataset> read(const std::string& format, const std::vector<std::string>& files,
                     const Options& options = {}, const Schema* like = nullptr) {
  DataSource s;
  s.format = format;
  s.files = files;
  s.options = options;
  s.data_root = root();
  Result<Dataset> d = read_dataset(s, like);
  if (!d && d.status().code() == Code::not_found) SKIP(d.status().message());
  return d;
}

int64_t count(const Dataset& d, double label) {
  int64_t n = 0;
  const HostArray* y = *d.column("y");
  for (int64_t i = 0; i < y->numel(); ++i) n += y->at(i) == label;
  return n;
}

}  // namespace

TEST_CASE("digits, which ship with the sources") {
  REQUIRE_GOOD(const Dataset d,
               read_csv({std::string(TENON_SOURCE_DIR) + "/models/digits_mlp/digits.csv.gz"}, {}, nullptr));
  CHECK(d.size() == 1797);
  CHECK((*d.column("x"))->shape() == Shape{1797, 64});
  CHECK(d.schema.class_names.size() == 10);
  CHECK(count(d, 0) == 178);  // as sklearn.datasets.load_digits().target
  double sum = 0, most = 0;
  for (int64_t i = 0; i < 1797 * 64; ++i) {
    sum += (*d.column("x"))->at(i);
    most = std::max(most, (*d.column("x"))->at(i));
  }
  CHECK(sum == 561718);
  CHECK(most == 16);
}

TEST_CASE("mnist") {
  REQUIRE_GOOD(const Dataset d,
               read("idx", {"mnist/t10k-images-idx3-ubyte", "mnist/t10k-labels-idx1-ubyte"}));
  CHECK((*d.column("x"))->shape() == Shape{10000, 28, 28});
  CHECK(count(d, 7) == 1028);
  CHECK((*d.column("y"))->at(0) == 7);
}

TEST_CASE("cifar subset") {
  REQUIRE_GOOD(const Dataset d, read("cifar", {"cifar10-subset-jpeg/test_2k.bin"}));
  CHECK((*d.column("x"))->shape() == Shape{2000, 3, 32, 32});
  CHECK(count(d, 3) == 200);
  CHECK((*d.column("y"))->at(13) == 3);
  const auto t = make_transform("normalize_channels", {});
  REQUIRE(t.is_ok());
  REQUIRE((*t)->fit(d).is_ok());
  CHECK(std::abs((*t)->state().at("shift").at(0) / 255 - 0.49) < 0.02);
}

TEST_CASE("adult: categories of the training part hold for the test part") {
  const Options o = {
      {"target", std::string("income")}, {"auto_categorical", true}, {"missing", std::string("keep")}};
  REQUIRE_GOOD(const Dataset train, read("csv", {"census/adult_train.csv"}, o));
  REQUIRE_GOOD(const Dataset test, read("csv", {"census/adult_test.csv"}, o, &train.schema));
  CHECK(train.size() == 32561);
  CHECK(test.size() == 16281);
  CHECK(count(train, 1) == 7841);
  CHECK(count(test, 1) == 3846);
  CHECK(train.schema.class_names == std::vector<std::string>{"<=50K", ">50K"});
  CHECK((*train.column("x"))->shape()[1] == (*test.column("x"))->shape()[1]);
  CHECK(check_finite(**train.column("x")).is_ok());
}

TEST_CASE("housing: a text column and empty cells") {
  Options o = {{"target", std::string("median_house_value")},
               {"target_kind", std::string("number")},
               {"categorical", std::string("ocean_proximity")},
               {"missing", std::string("drop")}};
  REQUIRE_GOOD(const Dataset dropped, read("csv", {"regression/california_housing.csv"}, o));
  CHECK(dropped.size() == 20640 - 207);
  o["missing"] = std::string("median");
  REQUIRE_GOOD(const Dataset d, read("csv", {"regression/california_housing.csv"}, o));
  CHECK((*d.column("x"))->shape() == Shape{20640, 13});
  CHECK(d.schema.fills.at("total_bedrooms") == "435");
  o.erase("categorical");
  CHECK_FAILS(read("csv", {"regression/california_housing.csv"}, o), ":2: ", "'ocean_proximity'", "NEAR BAY");
}

TEST_CASE("a9a") {
  REQUIRE_GOOD(const Dataset train, read("libsvm", {"libsvm/a9a"}));
  REQUIRE_GOOD(const Dataset test, read("libsvm", {"libsvm/a9a.t"}, {}, &train.schema));
  CHECK((*train.column("x"))->shape() == Shape{32561, 123});
  CHECK((*test.column("x"))->shape() == Shape{16281, 123});
  CHECK(count(train, 1) == 7841);
  CHECK(count(test, 1) == 3846);
}

TEST_CASE("tiny shakespeare") {
  REQUIRE_GOOD(const Dataset d, read("text", {"text/tinyshakespeare.txt"}));
  CHECK(d.size() == 1115394);
  CHECK(d.schema.vocabulary_size() == 65);
  CHECK(decode_text(d.schema, (*d.column("tokens"))->as<int32_t>().subspan(0, 14)) == "First Citizen:");
}

TEST_CASE("sentences as text, preferences as JSON lines") {
  REQUIRE_GOOD(const Dataset rt, read("csv", {"sentiment/rt_valid.tsv"},
                                      {{"delimiter", std::string("tab")},
                                       {"header", false},
                                       {"quote", std::string()},
                                       {"target", std::string("c0")},
                                       {"text", std::string("c1")}}));
  CHECK(rt.size() == 1066);
  REQUIRE_GOOD(const Dataset hh, read("jsonl", {"preference/hh_harmless_valid.jsonl"},
                                      {{"text", std::vector<std::string>{"chosen", "rejected"}},
                                       {"text_length", int64_t{256}}}));
  CHECK(hh.size() == 300);
  CHECK((*hh.column("rejected"))->shape() == Shape{300, 256});
}
