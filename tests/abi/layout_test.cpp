// The layout of the contract, from every compiler and language at hand, equals core/abi/v1.layout. After an
// addition (only additions are allowed) write the new table with: test_abi "[write-layout]"
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/abi/layout_probe.h"
#include "tests/abi/shell.h"

namespace fs = std::filesystem;
using abi_test::have_program;
using abi_test::run;
using abi_test::Scratch;

namespace {

const std::string kAbi = TENON_SOURCE_DIR "/core/abi";

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

// What the generated program prints when built by this command line.
std::string layout_by(const std::string& compiler) {
  const Scratch scratch;
  std::ofstream(scratch.path("probe.c")) << abi_test::layout_probe(read(kAbi + "/tenon_plugin.h"));
  const auto built = run(compiler + " -Wall -Wextra -Werror -I" + kAbi + " " + scratch.path("probe.c") +
                         " -o " + scratch.path("probe"));
  INFO(compiler << ": " << built.output);
  REQUIRE(built.code == 0);
  const auto printed = run(scratch.path("probe"));
  REQUIRE(printed.code == 0);  // 1: TN_COVERS is wrong for some field
  return printed.output;
}

std::vector<std::string> compilers() {
  std::vector<std::string> out;
  for (const std::string c : {"gcc", "clang"})
    if (have_program(c))
      for (const char* flags : {" -std=c11", " -std=c17 -O3", " -std=c11 -fshort-enums"})
        out.push_back(c + flags);
  for (const std::string c : {"g++", "clang++"})
    if (have_program(c))
      for (const char* flags : {" -x c++ -std=c++17", " -x c++ -std=c++20 -O3 -fshort-enums"})
        out.push_back(c + flags);
  return out;
}

}  // namespace

TEST_CASE("every compiler lays the contract out as v1.layout says") {
  const std::string golden = read(kAbi + "/v1.layout");
  REQUIRE(golden.find("struct tn_ctx") != std::string::npos);
  const auto all = compilers();
  REQUIRE_FALSE(all.empty());
  for (const std::string& c : all) {
    CAPTURE(c);
    CHECK(layout_by(c) == golden);
  }
}

TEST_CASE("write core/abi/v1.layout", "[.][write-layout]") {
  std::ofstream(kAbi + "/v1.layout") << layout_by(compilers().front());
}

TEST_CASE("the contract header compiles alone and pedantically in every language version") {
  const Scratch scratch;
  std::ofstream(scratch.path("c.c")) << "#include \"tenon_plugin.h\"\nint main(void) { return 0; }\n";
  std::ofstream(scratch.path("cc.cpp")) << "#include \"tenon_plugin.hpp\"\n"
                                           "struct L { explicit L(tn::Setup& s) { s.input(\"x\", \"\"); }\n"
                                           "  void build(tn::Build& b) const { b.loss(mean(b[\"x\"])); } };\n"
                                           "TN_PLUGIN(\"v\", \"1\", tn::loss<L>(\"l\", \"help\"))\n";
  const std::string common =
      " -pedantic -Wall -Wextra -Wconversion -Wshadow -Werror -fsyntax-only -I" + kAbi + " ";
  int tried = 0;
  const auto check = [&](const std::string& compiler, const char* standards, const std::string& file) {
    if (!have_program(compiler)) return;
    std::istringstream list(standards);
    for (std::string s; list >> s; ++tried) {
      const auto r = run(compiler + " -std=" + s + common + scratch.path(file));
      INFO(compiler << " " << s << ": " << r.output);
      CHECK(r.code == 0);
    }
  };
  for (const char* c : {"gcc", "clang"}) check(c, "c11 c17", "c.c");
  for (const char* c : {"g++", "clang++"}) check(c, "c++17 c++20", "cc.cpp");
  CHECK(tried > 0);
}
