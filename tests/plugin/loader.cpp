// The loader and the catalogue against plugins with every defect that tables can have.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <catch2/matchers/catch_matchers_vector.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/plugin/catalog.h"
#include "core/plugin/instance.h"
#include "tests/io/temp_folder.h"

namespace tenon {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::VectorContains;
namespace fs = std::filesystem;

std::string fixture(const std::string& name) {
  return std::string(TENON_BINARY_DIR) + "/tests/plugins/" + name + ".so";
}
std::string shipped() { return std::string(TENON_BINARY_DIR) + "/plugins"; }

// The environment variable that the fixture reads, for one scope.
struct Defect {
  explicit Defect(const std::string& name) { setenv("TENON_TEST_DEFECT", name.c_str(), 1); }
  ~Defect() { unsetenv("TENON_TEST_DEFECT"); }
};

}  // namespace

TEST_CASE("Each impossible table is refused by name") {
  struct Case {
    const char *defect, *says;
    Code code = Code::invalid;
  };
  const Case cases[] = {
      {"no_table", "returned no table"},
      {"empty_table", "too short"},
      {"huge_table", "claims a size of 4294967295"},
      {"no_descriptors", "claims 0 descriptors"},
      {"many_descriptors", "claims 4294967295 descriptors"},
      {"no_descriptor_list", "descriptors"},
      {"null_descriptor", "descriptor 0 is a null pointer"},
      {"empty_descriptor", "descriptor 0 has no id"},
      {"huge_descriptor", "claims a size of 4294967295"},
      {"no_id", "descriptor 0 has no id"},
      {"empty_id", "descriptor 0 has no id"},
      {"no_kind", "'defect') has no kind"},
      {"no_vtable", "'defect' has no table of functions"},
      {"many_options", "claims 4294967295 options or roles"},
      {"no_option_list", "counts options but lists none"},
      {"no_role_list", "counts roles but lists none"},
      {"null_option", "an option is a null pointer"},
      {"option_without_name", "an option has no name"},
      {"option_of_unknown_type", "unknown type 77"},
      {"option_twice", "'scale' is declared twice"},
      {"option_with_other_default", "default of another type"},
      {"option_with_empty_range", "empty range"},
      {"choices_without_list", "counts choices but lists none"},
      {"role_without_name", "role 0 has no name"},
      {"role_twice", "'prediction' is declared twice"},
      {"no_extension_list", "required extensions are counted but not listed"},
      {"unknown_extension", "requires the extension 'tenon.telepathy/1'", Code::unsupported},
      {"unknown_required_op", "requires the op 'teleport/1'", Code::unsupported},
      {"error_at_entry", "refused to start", Code::unsupported},
      {"throw_at_entry", "threw an exception out of its entry"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.defect);
    const Defect defect(c.defect);
    Catalog catalog;
    const Status s = catalog.add_file(fixture("defect"));
    CHECK(s.code() == c.code);
    CHECK_THAT(s.message(), ContainsSubstring("defect.so: ") && ContainsSubstring(c.says));
    CHECK(catalog.list().empty());
  }
  Catalog catalog;
  CHECK(catalog.add_file(fixture("defect")).is_ok());
  CHECK(catalog.list().size() == 1);
}

TEST_CASE("What a file is, is told without running its code") {
  CHECK(check_plugin_file(fixture("defect")).is_ok());
  CHECK(check_plugin_file(fixture("none")).code() == Code::not_found);
  CHECK(check_plugin_file(fixture("abi_v2")).code() == Code::unsupported);
  CHECK(check_plugin_file(fixture("plain_library")).code() == Code::invalid);

  // Every truncation, and damage anywhere in the headers: an error or a file that is still whole, never a
  // crash.
  const test::TempFolder folder;
  const std::string bytes = test::slurp(fixture("plain_library")), path = folder.file("damaged.so");
  for (size_t size = 0; size < bytes.size(); size += size < 1024 ? 7 : 509) {
    CAPTURE(size);
    test::spill(path, bytes.substr(0, size));
    CHECK_FALSE(check_plugin_file(path).is_ok());
  }
  for (size_t at = 0; at < 64; ++at) {
    CAPTURE(at);
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    test::spill(path, damaged);
    CHECK_FALSE(check_plugin_file(path).is_ok());  // damaged, or not a plugin
  }
}

TEST_CASE("The catalogue finds, lists and names what is near") {
  Catalog catalog;
  REQUIRE(catalog.add_folder(shipped()).is_ok());
  for (const PluginCandidate& c : catalog.candidates()) CHECK_FALSE(c.tried);  // not loaded before asked for

  const auto focal = catalog.find(TN_KIND_LOSS, "focal");
  REQUIRE(focal);
  CHECK((*focal)->id == std::string("focal"));
  CHECK(fs::path(catalog.file_of(*focal)).filename() == "focal.so");
  int tried = 0;
  for (const PluginCandidate& c : catalog.candidates()) tried += c.tried;
  CHECK(tried == 1);

  CHECK_THAT(catalog.find(TN_KIND_LOSS, "focul").status().message(),
             ContainsSubstring("no loss 'focul' (did you mean 'focal'?)"));
  CHECK(catalog.find(TN_KIND_OPTIMIZER, "focal").status().code() == Code::not_found);  // ids are per kind
  CHECK_THAT(catalog.find("org.example.oven/1", "any").status().message(),
             ContainsSubstring("no plugin of this kind"));
  const auto ids = [&](const char* kind) {
    std::vector<std::string> out;
    for (const tn_descriptor* d : catalog.list(kind)) {
      CHECK(d->kind == std::string(kind));
      out.emplace_back(d->id);
    }
    return out;
  };
  const std::vector<std::string> losses = ids(TN_KIND_LOSS), optimizers = ids(TN_KIND_OPTIMIZER);
  CHECK(std::is_sorted(losses.begin(), losses.end()));
  CHECK_THAT(losses, VectorContains(std::string("mse")) && VectorContains(std::string("focal")));
  CHECK_THAT(optimizers, VectorContains(std::string("sgd")) && !VectorContains(std::string("mse")));
  CHECK(catalog.add_folder(shipped() + "/none").code() == Code::not_found);
}

TEST_CASE("One id in two files is an error when it is asked for") {
  const test::TempFolder folder;
  fs::copy_file(fixture("defect"), folder.file("first.so"));
  fs::copy_file(fixture("defect"), folder.file("second.so"));
  Catalog catalog;
  REQUIRE(catalog.add_file(folder.file("first.so")).is_ok());
  REQUIRE(catalog.add_file(folder.file("first.so")).is_ok());  // the same file again is no second one
  CHECK(catalog.find(TN_KIND_LOSS, "defect").is_ok());
  REQUIRE(catalog.add_file(folder.file("second.so")).is_ok());
  const Status s = catalog.find(TN_KIND_LOSS, "defect").status();
  CHECK(s.code() == Code::invalid);
  CHECK_THAT(s.message(), ContainsSubstring("first.so") && ContainsSubstring("second.so"));
}

TEST_CASE("An instance checks its options before the plugin sees them") {
  Catalog catalog;
  REQUIRE(catalog.add_file(fixture("defect")).is_ok());
  const auto create = [&](const Options& options) {
    return Instance::create(catalog, TN_KIND_LOSS, "defect", "mine", options);
  };
  const auto good = create({{"scale", int64_t{3}}});
  REQUIRE(good);
  CHECK((*good)->options().number("scale", 0) == 3);
  CHECK((*good)->who() == "loss 'mine'");
  CHECK((*create({}))->options().number("scale", 0) == 1);
  const Defect defect("throw_in_create");  // not reached: the options are refused first
  CHECK_THAT(create({{"scal", 1.0}}).status().message(),
             ContainsSubstring("loss 'mine': unknown option 'scal' (did you mean 'scale'?)"));
  CHECK(create({{"scale", std::string("big")}}).status().code() == Code::invalid);
  CHECK_THAT(create({}).status().message(), ContainsSubstring("threw an exception"));
}

}  // namespace tenon
