#include "core/data/files.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

#include "core/data/readers.h"
#include "tests/data/temp_files.h"

using namespace tenon;
namespace fs = std::filesystem;

TEST_CASE("a data file is found absolutely, beside the recipe, then in the data folder") {
  TempFiles t;
  fs::create_directories(t.path("recipe"));
  fs::create_directories(t.path("data/set"));
  t.write("data/set/a.csv", "data");
  t.write_gz("data/set/b.csv.gz", "zipped");
  t.write("recipe/r.csv", "recipe");
  REQUIRE_GOOD(const std::string a, find_data("set/a.csv", t.path("recipe"), t.path("data")));
  CHECK(a == t.path("data/set/a.csv"));
  REQUIRE_GOOD(const std::string b, find_data("set/b.csv", t.path("recipe"), t.path("data")));
  CHECK(b == t.path("data/set/b.csv.gz"));
  REQUIRE_GOOD(const std::string r, find_data("r.csv", t.path("recipe"), t.path("data")));
  CHECK(r == t.path("recipe/r.csv"));
  REQUIRE_GOOD(const std::string absolute, find_data(a, "", ""));
  CHECK(absolute == a);
  // The recipe's folder wins.
  t.write("data/r.csv", "shadowed");
  REQUIRE_GOOD(const std::string still, find_data("r.csv", t.path("recipe"), t.path("data")));
  CHECK(still == r);
}

TEST_CASE("a missing file says which, where it looked and where the set is published") {
  TempFiles t;
  CHECK_FAILS(find_data("set/none.csv", t.path("recipe"), t.path("data"), "example.org/set"), "set/none.csv",
              t.path("recipe/set/none.csv"), t.path("data/set/none.csv"), "example.org/set", "TENON_DATA");
  CHECK(find_data("set/none.csv", "", "").status().code() == Code::not_found);
  CHECK_FAILS(find_data("set/none.csv", "", ""), "set TENON_DATA");
  CHECK_FAILS(find_data("", "", ""), "empty name");
  fs::create_directories(t.path("folder"));
  CHECK_FAILS(find_data("folder", t.dir(), ""), "not found");
}

TEST_CASE("files are read whole, gzip by content") {
  TempFiles t;
  const std::string text(3'000'000, 'x');
  REQUIRE_GOOD(const std::string plain, read_file(t.write("plain", text)));
  CHECK(plain == text);
  REQUIRE_GOOD(const std::string zipped, read_file(t.write_gz("zipped", text)));
  CHECK(zipped == text);
  REQUIRE_GOOD(const std::string empty, read_file(t.write("empty", "")));
  CHECK(empty.empty());
  REQUIRE_GOOD(const std::string empty_gz, read_file(t.write_gz("empty.gz", "")));
  CHECK(empty_gz.empty());
}

static std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_CASE("gzip: several members and zero padding pass, truncation and corruption do not") {
  TempFiles t;
  std::string noise;
  for (int i = 0; i < 20000; ++i) noise += static_cast<char>(i * i % 251);
  const std::string one = bytes_of(t.write_gz("one.gz", noise)), two = bytes_of(t.write_gz("two.gz", "tail"));
  REQUIRE_GOOD(const std::string both, gunzip(one + two + std::string(100, '\0'), "f"));
  CHECK(both == noise + "tail");
  for (size_t cut : {size_t{5}, size_t{12}, one.size() / 2, one.size() - 1}) {
    CAPTURE(cut);
    CHECK_FAILS(read_file(t.write("cut.gz", one.substr(0, cut))), "cut.gz", "truncated");
  }
  std::string bad = one;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 0x55);
  CHECK_FAILS(read_file(t.write("bad.gz", bad)), "bad.gz", "corrupt");
  bad = one;
  bad[bad.size() - 6] = static_cast<char>(bad[bad.size() - 6] ^ 1);  // the checksum
  CHECK_FAILS(read_file(t.write("bad.gz", bad)), "corrupt");
  CHECK_FAILS(read_file(t.write("rest.gz", one + "rest")), "rest.gz", "corrupt");
}

TEST_CASE("what can't be read is said") {
  TempFiles t;
  CHECK_FAILS(read_file(t.path("none")), "none", "no such file");
  CHECK_FAILS(read_file(t.dir()), "is a folder");
}

TEST_CASE("TENON_DATA names the data folder") {
  const char* before = std::getenv("TENON_DATA");
  const std::string saved = before ? before : "";
  ::setenv("TENON_DATA", "/some/where", 1);
  CHECK(data_root_from_environment() == "/some/where");
  if (before)
    ::setenv("TENON_DATA", saved.c_str(), 1);
  else
    ::unsetenv("TENON_DATA");
}

TEST_CASE("read_dataset looks the files up and reports the format's errors") {
  TempFiles t;
  t.write_gz("d.csv.gz", "a,y\n1,0\n2,1\n");
  DataSource source{"csv", {"d.csv"}, {}, "", t.dir(), ""};
  REQUIRE_GOOD(const Dataset d, read_dataset(source));
  CHECK(d.size() == 2);
  source.format = "cvs";
  CHECK_FAILS(read_dataset(source), "cvs", "did you mean 'csv'");
  source.format = "csv";
  source.options = {{"delimeter", std::string(";")}};
  CHECK_FAILS(read_dataset(source), "delimeter", "did you mean 'delimiter'");
  source.options = {{"header", std::string("yes")}};
  CHECK_FAILS(read_dataset(source), "header", "true or false", "string");
  source.options = {};
  source.files = {"e.csv"};
  source.origin = "example.org";
  CHECK_FAILS(read_dataset(source), "e.csv", "example.org");
}
