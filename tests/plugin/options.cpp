// A schema of options against what a recipe may say.
#include "core/plugin/options.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

namespace tenon {
namespace {

using Catch::Matchers::ContainsSubstring;

tn_option option(const char* name, int32_t type, uint32_t flags = 0, double min = 0, double max = 0) {
  tn_option o{};
  o.struct_size = sizeof o;
  o.name = name;
  o.type = type;
  o.flags = flags;
  o.min = min;
  o.max = max;
  return o;
}

const char* const kColours[] = {"red", "green", "blue"};

// One option of each type.
struct Schema {
  tn_option list[9] = {option("flag", TN_VALUE_BOOL),
                       option("count", TN_VALUE_I64, TN_OPTION_MIN, 1),
                       option("rate", TN_VALUE_F64, TN_OPTION_MIN | TN_OPTION_MAX | TN_OPTION_MAX_OPEN, 0, 1),
                       option("colour", TN_VALUE_STR),
                       option("sizes", TN_VALUE_I64S, TN_OPTION_MIN, 1),
                       option("weights", TN_VALUE_F64S),
                       option("names", TN_VALUE_STRS),
                       option("needed", TN_VALUE_F64, TN_OPTION_REQUIRED),
                       option("bound", TN_VALUE_F64, TN_OPTION_FINITE)};
  const tn_option* pointers[9];
  Schema() {
    list[1].fallback = {TN_VALUE_I64, 0, {.i64 = 5}};
    list[3].choices = kColours;
    list[3].n_choices = 3;
    for (size_t i = 0; i < 9; ++i) pointers[i] = &list[i];
  }
  Result<PluginOptions> check(Options given) const {
    given.emplace("needed", 1.0);
    return PluginOptions::check("loss 'x'", pointers, 9, given);
  }
  std::string refusal(const std::string& name, OptionValue value) const {
    const auto r = check({{name, std::move(value)}});
    return r ? "accepted" : r.status().message();
  }
};

using Reals = std::vector<double>;
using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("Options arrive in the schema's order, converted, with defaults") {
  const Schema s;
  const auto r = s.check({{"rate", int64_t{0}},
                          {"count", 7.0},
                          {"sizes", int64_t{3}},
                          {"weights", Reals{1, 2.5}},
                          {"names", std::string("one")},
                          {"colour", std::string("green")},
                          {"flag", true}});
  REQUIRE(r);
  const auto a = r->attrs();
  REQUIRE(a.size() == 9);
  CHECK(a[0].value.as.i64 == 1);
  CHECK(a[1].value.type == TN_VALUE_I64);
  CHECK(a[1].value.as.i64 == 7);
  CHECK(a[2].value.type == TN_VALUE_F64);
  CHECK(a[2].value.as.f64 == 0);
  CHECK(a[3].value.as.str == std::string("green"));
  CHECK(a[3].value.count == 5);
  CHECK(a[4].value.count == 1);
  CHECK(a[4].value.as.i64s[0] == 3);
  CHECK(a[5].value.count == 2);
  CHECK(a[5].value.as.f64s[1] == 2.5);
  CHECK(a[6].value.count == 1);
  CHECK(a[6].value.as.strs[0] == std::string("one"));
  CHECK(a[8].value.type == TN_VALUE_NONE);  // neither given nor a default
  CHECK(s.check({})->attrs()[1].value.as.i64 == 5);
}

TEST_CASE("Options that do not fit are refused by name, with what would") {
  const Schema s;
  CHECK_THAT(s.refusal("cuont", int64_t{1}),
             ContainsSubstring("loss 'x': unknown option 'cuont' (did you mean 'count'?)"));
  CHECK_THAT(s.refusal("count", int64_t{0}), ContainsSubstring("'count' is 0; it must be >= 1"));
  CHECK_THAT(s.refusal("count", 1.5), ContainsSubstring("'count' must be a whole number"));
  CHECK_THAT(s.refusal("rate", 1.0), ContainsSubstring("'rate' is 1; it must be >= 0 and < 1"));
  CHECK_THAT(s.refusal("rate", std::nan("")), ContainsSubstring("'rate' is not a number"));
  CHECK_THAT(s.refusal("rate", std::string("half")), ContainsSubstring("'rate' must be a number"));
  CHECK_THAT(s.refusal("bound", std::numeric_limits<double>::infinity()),
             ContainsSubstring("'bound' must be finite"));
  CHECK_THAT(s.refusal("flag", int64_t{1}), ContainsSubstring("'flag' must be true or false"));
  CHECK_THAT(s.refusal("colour", std::string("gren")),
             ContainsSubstring("'colour' is 'gren' (did you mean 'green'?)"));
  CHECK_THAT(s.refusal("colour", 3.0), ContainsSubstring("'colour' is '3'"));
  CHECK_THAT(s.refusal("colour", true), ContainsSubstring("'colour' must be text"));
  CHECK_THAT(s.refusal("sizes", Reals{2, 0}), ContainsSubstring("'sizes' is 0; it must be >= 1"));
  CHECK_THAT(s.refusal("sizes", Reals{2, 2.5}), ContainsSubstring("whole numbers"));
  CHECK_THAT(s.refusal("weights", Texts{"a"}), ContainsSubstring("list of numbers"));
  CHECK_THAT(s.refusal("names", 1.0), ContainsSubstring("list of texts"));
  CHECK_THAT(PluginOptions::check("loss 'x'", s.pointers, 9, {}).status().message(),
             ContainsSubstring("'needed' is required"));
}

TEST_CASE("An option's description says type, range, choices and default") {
  const Schema s;
  CHECK(describe_option(s.list[1]) == "integer >= 1, default 5");
  CHECK_THAT(describe_option(s.list[3]), ContainsSubstring("one of red, green, blue"));
  CHECK_THAT(describe_option(s.list[7]), ContainsSubstring("required"));
}

}  // namespace tenon
