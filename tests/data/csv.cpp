#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/data/readers.h"
#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

std::vector<double> values(const Dataset& d, std::string_view name) {
  std::vector<double> out;
  const HostArray* a = *d.column(name);
  for (int64_t i = 0; i < a->numel(); ++i) out.push_back(a->at(i));
  return out;
}
using Doubles = std::vector<double>;
using Strings = std::vector<std::string>;

struct Csv {
  TempFiles files;
  Result<Dataset> read(std::string_view text, const CsvOptions& o = {}, const Schema* like = nullptr) const {
    return read_csv({files.write("t.csv", text)}, o, like);
  }
};

constexpr std::string_view kPeople =
    "age,city,weight,income\n"
    "30,Oslo,70.5,high\n"
    "41,Rome,,low\n"
    "?,Oslo,80,low\n"
    "25,NA,60,high\n";

}  // namespace

TEST_CASE("csv: numbers and an integer label") {
  Csv csv;
  REQUIRE_GOOD(const Dataset d, csv.read("a,b,label\r\n1,2.5,0\r\n -3 , +4e1 ,2\r\n\r\n5,6,1"));
  CHECK(d.size() == 3);
  CHECK((*d.column("x"))->shape() == Shape{3, 2});
  CHECK((*d.column("x"))->dtype() == DType::f32);
  CHECK(values(d, "x") == Doubles{1, 2.5, -3, 40, 5, 6});
  CHECK((*d.column("y"))->dtype() == DType::i32);
  CHECK(values(d, "y") == Doubles{0, 2, 1});
  CHECK(values(d, "id") == Doubles{0, 1, 2});
  CHECK(d.schema.feature_names == Strings{"a", "b"});
  CHECK(d.schema.class_names == Strings{"0", "1", "2"});
}

TEST_CASE("csv: labels that are not 0..C-1 are numbered in order") {
  Csv csv;
  REQUIRE_GOOD(const Dataset quality, csv.read("a,q\n1,7\n1,3\n1,5\n1,3.0\n"));
  CHECK(values(quality, "y") == Doubles{2, 0, 1, 0});
  CHECK(quality.schema.class_names == Strings{"3", "5", "7"});
  REQUIRE_GOOD(const Dataset sign, csv.read("a,q\n1,+1\n1,-1\n"));
  CHECK(values(sign, "y") == Doubles{1, 0});
  REQUIRE_GOOD(const Dataset names, csv.read("a,q\n1,>50K\n1,<=50K\n"));
  CHECK(values(names, "y") == Doubles{1, 0});
  CHECK(names.schema.class_names == Strings{"<=50K", ">50K"});
  // The training part's classes hold for others, even where a class is absent.
  REQUIRE_GOOD(const Dataset test, csv.read("a,q\n1,7\n", {}, &quality.schema));
  CHECK(values(test, "y") == Doubles{2});
  CHECK_FAILS(csv.read("a,q\n1,7\n1,8\n", {}, &quality.schema), "t.csv:3", "'8'", "'q'", "training part");
}

TEST_CASE("csv: target by name, as a number, none, optional") {
  Csv csv;
  CsvOptions o;
  o.target = "a";
  o.target_kind = "number";
  REQUIRE_GOOD(const Dataset d, csv.read("a,b,c\n1.5,2,3\n4,5,6\n", o));
  CHECK(values(d, "y") == Doubles{1.5, 4});
  CHECK((*d.column("y"))->dtype() == DType::f32);
  CHECK(values(d, "x") == Doubles{2, 3, 5, 6});
  o.drop = {"c"};
  o.dtype = "f64";
  REQUIRE_GOOD(const Dataset e, csv.read("a,b,c\n1.1,2,3\n4,5,6\n", o));
  CHECK(e.schema.feature_names == Strings{"b"});
  CHECK(values(e, "y")[0] == 1.1);
  o.drop = {};
  o.keep = {"c"};
  REQUIRE_GOOD(const Dataset k, csv.read("a,b,c\n1.1,2,3\n4,5,6\n", o));
  CHECK(values(k, "c") == Doubles{3, 6});
  CsvOptions none;
  none.target_kind = "none";
  REQUIRE_GOOD(const Dataset n, csv.read("a,b\n1,2\n", none));
  CHECK_FALSE(n.has("y"));
  CHECK(values(n, "x") == Doubles{1, 2});
  CsvOptions optional;
  optional.target = "label";
  CHECK_FAILS(csv.read("a,lable\n1,2\n", optional), "'label'", "target", "did you mean 'lable'");
  optional.target_optional = true;
  REQUIRE_GOOD(const Dataset p, csv.read("a,b\n1,2\n", optional));
  CHECK_FALSE(p.has("y"));
}

TEST_CASE("csv: categories one-hot and as codes") {
  Csv csv;
  CsvOptions o;
  o.auto_categorical = true;
  REQUIRE_GOOD(const Dataset d, csv.read("n,c,y\n1,red,0\n2,blue,1\n3,red,0\n", o));
  CHECK(d.schema.feature_names == Strings{"n", "c=blue", "c=red"});
  CHECK(values(d, "x") == Doubles{1, 0, 1, 2, 1, 0, 3, 0, 1});
  // Another part has the same layout, though it lacks a category.
  REQUIRE_GOOD(const Dataset same, csv.read("n,c,y\n9,blue,1\n", o, &d.schema));
  CHECK(values(same, "x") == Doubles{9, 1, 0});
  CHECK_FAILS(csv.read("n,c,y\n9,bleu,1\n", o, &d.schema), "t.csv:2", "'c'", "'bleu'", "did you mean 'blue'");
  o.unknown_category = "zeros";
  REQUIRE_GOOD(const Dataset zeros, csv.read("n,c,y\n9,green,1\n", o, &d.schema));
  CHECK(values(zeros, "x") == Doubles{9, 0, 0});
  CHECK_FAILS(csv.read("n,k,y\n9,blue,1\n", o, &d.schema), "feature 1", "'c=blue'");

  o = {};
  o.categorical = {"c"};
  o.encoding = "codes";
  REQUIRE_GOOD(const Dataset codes, csv.read("n,c,y\n1,red,0\n2,blue,1\n3,red,0\n", o));
  CHECK(values(codes, "x") == Doubles{1, 2, 3});
  CHECK(values(codes, "x_cat") == Doubles{1, 0, 1});
  CHECK((*codes.column("x_cat"))->shape() == Shape{3, 1});
  CHECK(codes.schema.categories.at("c") == Strings{"blue", "red"});
}

TEST_CASE("csv: missing values") {
  Csv csv;
  CsvOptions o;
  o.categorical = {"city"};
  CHECK_FAILS(csv.read(kPeople, o), "t.csv:3", "'weight'", "missing");
  o.missing = "drop";
  REQUIRE_GOOD(const Dataset dropped, csv.read(kPeople, o));
  CHECK(dropped.size() == 1);
  o.missing = "keep";
  REQUIRE_GOOD(const Dataset kept, csv.read(kPeople, o));
  CHECK(kept.size() == 4);
  CHECK(kept.schema.feature_names == Strings{"age", "city=?", "city=Oslo", "city=Rome", "weight"});
  CHECK(std::isnan(values(kept, "x")[2 * 5]));
  CHECK(std::isnan(values(kept, "x")[1 * 5 + 4]));
  CHECK(values(kept, "x")[3 * 5 + 1] == 1);
  o.missing = "mean";
  REQUIRE_GOOD(const Dataset mean, csv.read(kPeople, o));
  CHECK(values(mean, "x") ==
        Doubles{30, 1, 0, 70.5, 41, 0, 1, static_cast<double>(70.16666667f), 32, 1, 0, 80, 25, 1, 0, 60});
  o.missing = "median";
  REQUIRE_GOOD(const Dataset median, csv.read(kPeople, o));
  CHECK(values(median, "x")[2 * 4] == 30);
  CHECK(values(median, "x")[1 * 4 + 3] == 70.5);
  o.missing = "mode";
  REQUIRE_GOOD(const Dataset mode, csv.read("age,city,weight,y\n3,a,1,0\n,b,1,0\n3,b,,1\n4,,2,1\n", o));
  CHECK(values(mode, "x") == Doubles{3, 1, 0, 1, 3, 0, 1, 1, 3, 0, 1, 1, 4, 0, 1, 2});
  // Fill values come from the training part.
  REQUIRE_GOOD(const Dataset test, csv.read("age,city,weight,y\n,,,0\n", o, &mode.schema));
  CHECK(values(test, "x") == Doubles{3, 0, 1, 1});
  CHECK_FAILS(csv.read("age,city,weight,y\n1,a,1,\n", o), "t.csv:2", "'y'", "drop");
  CHECK_FAILS(csv.read("age,city,weight,y\n,a,1,1\n", o), "'age'", "no value at all");
}

TEST_CASE("csv: quoting, delimiters, byte order mark, no header, several files") {
  Csv csv;
  CsvOptions o;
  o.categorical = {"c"};
  REQUIRE_GOOD(const Dataset quoted,
               csv.read("\xef\xbb\xbfn,c,y\n1,\"a,\"\"b\"\"\nnext\",0\n2,plain,1\n", o));
  CHECK(quoted.schema.categories.at("c") == Strings{"a,\"b\"\nnext", "plain"});
  CHECK(quoted.schema.feature_names[0] == "n");
  CHECK_FAILS(csv.read("n,c,y\n1,\"a,0\n2,b,1\n", o), "t.csv:2", "never closed");
  CHECK_FAILS(csv.read("n,c,y\n1,\"a\"b,0\n", o), "t.csv:2", "closing quote");
  CHECK_FAILS(csv.read("n,c,y\n1,\"a\nb\",0\n2,b\n", o), "t.csv:4", "2 cells, expected 3");
  CsvOptions tsv;
  tsv.delimiter = "tab";
  tsv.header = false;
  tsv.quote = "";
  tsv.target = "c0";
  tsv.text = {"c1"};
  REQUIRE_GOOD(const Dataset text, csv.read("1\t\"hey you\n0\tno\n", tsv));
  CHECK((*text.column("c1"))->shape() == Shape{2, 8});
  CHECK(values(text, "c1_length") == Doubles{8, 2});
  CHECK(values(text, "c1")[8] == 'n');
  CHECK(values(text, "c1")[10] == 0);
  CHECK(values(text, "y") == Doubles{1, 0});
  CHECK_FALSE(text.has("x"));
  tsv.text_length = 3;
  REQUIRE_GOOD(const Dataset cut, csv.read("1\t\"hey you\n0\tno\n", tsv));
  CHECK(values(cut, "c1_length") == Doubles{3, 2});

  TempFiles t;
  REQUIRE_GOOD(const Dataset two,
               read_csv({t.write("a.csv", "a,y\n1,0\n"), t.write_gz("b.csv.gz", "a,y\n2,1\n")}, {}, nullptr));
  CHECK(values(two, "x") == Doubles{1, 2});
  CHECK_FAILS(read_csv({t.path("a.csv"), t.write("c.csv", "b,y\n2,1\n")}, {}, nullptr), "c.csv:1", "differ");
}

TEST_CASE("csv: bad input") {
  Csv csv;
  CHECK_FAILS(csv.read("a,b,y\n1,2,0\n1,2\n"), "t.csv:3", "2 cells, expected 3", "delimiter");
  CHECK_FAILS(csv.read("a,b,y\n1,12x,0\n"), "t.csv:2", "'b'", "'12x'", "categorical");
  CHECK_FAILS(csv.read("a,b,y\n1,inf,0\n"), "t.csv:2", "finite");
  CHECK_FAILS(csv.read("a,b,y\n1,1e999,0\n"), "t.csv:2", "finite");
  CHECK_FAILS(csv.read("a,a,y\n1,2,0\n"), "t.csv:1", "'a'", "twice");
  CHECK_FAILS(csv.read("a,b,y\n"), "t.csv", "no rows");
  CHECK_FAILS(csv.read(""), "t.csv", "no rows");
  CHECK_FAILS(csv.read("a,y\n1,0.5\n"), "t.csv:2", "0.5", "target_kind");
  CHECK_FAILS(csv.read("a,y\n1,0\n2,99999999\n"), "99999999", "target_kind");
  CsvOptions o;
  o.drop = {"aeg"};
  CHECK_FAILS(csv.read("age,y\n1,0\n", o), "'aeg'", "drop", "did you mean 'age'");
  o.drop = {"age"};
  o.categorical = {"age"};
  CHECK_FAILS(csv.read("age,y\n1,0\n", o), "'age'", "twice");
  o = {};
  o.missing = "median_";
  CHECK_FAILS(csv.read("age,y\n1,0\n", o), "missing", "did you mean 'median'");
  o = {};
  o.delimiter = "ab";
  CHECK_FAILS(csv.read("age,y\n1,0\n", o), "delimiter");
  o = {};
  o.keep = {"x"};
  CHECK_FAILS(csv.read("a,x,y\n1,2,0\n", o), "'x'", "already in use");
  CHECK_FAILS(read_csv({}, {}, nullptr), "at least one file");
}

TEST_CASE("a schema survives JSON") {
  Csv csv;
  CsvOptions o;
  o.auto_categorical = true;
  o.missing = "median";
  REQUIRE_GOOD(const Dataset d, csv.read(kPeople, o));
  REQUIRE_GOOD(const Schema back, Schema::from_json(d.schema.to_json()));
  CHECK(back == d.schema);
  // Names are bytes, of whatever encoding.
  REQUIRE_GOOD(const Dataset latin, csv.read("f\xfcr,y\n\xe4,\xc3\xa4\n\xff,b\n", o));
  REQUIRE_GOOD(const Schema bytes, Schema::from_json(latin.schema.to_json()));
  CHECK(bytes == latin.schema);
  CHECK_FAILS(Schema::from_json("{"), "damaged");
  CHECK_FAILS(Schema::from_json("{\"features\":1}"), "damaged");
}
