#include "core/io/safetensors.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>
#include <random>

#include "tests/io/temp_folder.h"

using namespace tenon;
using namespace tenon::test;
using Catch::Matchers::ContainsSubstring;

namespace {

// A file with this header and `data_size` zero bytes.
std::string file_of(std::string header, size_t data_size) {
  std::string bytes(8, '\0');
  const uint64_t n = header.size();
  std::memcpy(bytes.data(), &n, 8);
  return bytes + header + std::string(data_size, '\0');
}
std::string error_of(const std::string& bytes) {
  const std::string message = parse_safetensors(bytes, "x.safetensors").status().message();
  if (!message.empty()) CHECK_THAT(message, ContainsSubstring("'x.safetensors' can't be used: "));
  return message;
}
std::string error_of(std::string header, size_t data_size) {
  return error_of(file_of(std::move(header), data_size));
}

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

NamedArrays sample() {
  NamedArrays tensors;
  int i = 0;
  for (const DType t :
       {DType::u8, DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::boolean}) {
    HostArray a(t, Shape{2, 3});
    for (int64_t j = 0; j < 6; ++j) a.set(j, static_cast<double>(t == DType::boolean ? j % 2 : j + i));
    tensors.emplace_back("t" + std::to_string(i++) + " \"ü\"", std::move(a));
  }
  tensors.emplace_back("scalar", HostArray(DType::f32, Shape{}));
  tensors.emplace_back("empty", HostArray(DType::i64, Shape{0, 7}));
  return tensors;
}

}  // namespace

TEST_CASE("safetensors: every type comes back", "[safetensors]") {
  const TempFolder folder;
  const std::string path = folder.file("a.safetensors");
  const NamedArrays tensors = sample();
  uint32_t crc = 0;
  REQUIRE(write_safetensors(path, tensors, {{"key", "a \"value\"\n"}}, &crc));
  CHECK(crc == crc32_of(slurp(path)));
  CHECK(folder.list() == "a.safetensors");
  const auto read = read_safetensors(path);
  INFO(read.status().message());
  REQUIRE(read);
  CHECK(read->metadata.at("key") == "a \"value\"\n");
  REQUIRE(read->tensors.size() == tensors.size());
  for (const auto& [name, a] : tensors) {
    INFO(name);
    const HostArray* found = nullptr;
    for (const auto& [other, b] : read->tensors)
      if (other == name) found = &b;
    REQUIRE(found);
    CHECK(found->dtype() == a.dtype());
    CHECK(found->shape() == a.shape());
    CHECK((a.size_bytes() == 0 || std::memcmp(found->data(), a.data(), a.size_bytes()) == 0));
  }
  REQUIRE(write_safetensors(path, {}));
  CHECK(read_safetensors(path)->tensors.empty());
}

TEST_CASE("safetensors: data lies at multiples of the element size", "[safetensors]") {
  const TempFolder folder;
  const std::string path = folder.file("a.safetensors");
  HostArray byte(DType::u8, Shape{1}), number(DType::f64, Shape{1});
  number.set(0, 1.25);
  REQUIRE(write_safetensors(path, {{"a", byte}, {"b", number}}));
  const std::string bytes = slurp(path);
  const double value = 1.25;
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&value), 8), 8);
  REQUIRE(at != std::string::npos);
  CHECK(at % 8 == 0);
}

TEST_CASE("safetensors: a file of the format's own library is read", "[safetensors]") {
  // safetensors.numpy.save({"w": f32 [[1.5, -2]], "ids": i64 [7, -1], "ok": bool [1, 0, 1], "e": f32 [0, 3]},
  //                        metadata={"a": "b"}), version 0.8.0
  const std::string bytes = from_hex(
      "00010000000000007b225f5f6d657461646174615f5f223a7b2261223a2262227d2c22696473223a7b226474797065223a2249"
      "3634222c22"
      "7368617065223a5b325d2c22646174615f6f666673657473223a5b302c31365d7d2c2265223a7b226474797065223a22463332"
      "222c227368"
      "617065223a5b302c335d2c22646174615f6f666673657473223a5b31362c31365d7d2c2277223a7b226474797065223a224633"
      "32222c2273"
      "68617065223a5b312c325d2c22646174615f6f666673657473223a5b31362c32345d7d2c226f6b223a7b226474797065223a22"
      "424f4f4c22"
      "2c227368617065223a5b335d2c22646174615f6f666673657473223a5b32342c32375d7d7d2020200700000000000000ffffff"
      "ffffffffff"
      "0000c03f000000c0010001");
  const auto read = parse_safetensors(bytes, "x");
  INFO(read.status().message());
  REQUIRE(read);
  CHECK(read->metadata == TextMap{{"a", "b"}});
  std::map<std::string, const HostArray*> by_name;
  for (const auto& [name, a] : read->tensors) by_name[name] = &a;
  REQUIRE(by_name.size() == 4);
  CHECK(by_name["w"]->shape() == Shape{1, 2});
  CHECK(by_name["w"]->at(1) == -2);
  CHECK(by_name["ids"]->at(1) == -1);
  CHECK(by_name["ok"]->at(0) == 1);
  CHECK(by_name["ok"]->at(1) == 0);
  CHECK(by_name["e"]->shape() == Shape{0, 3});
}

TEST_CASE("safetensors: what is wrong is refused with its name", "[safetensors]") {
  CHECK_THAT(error_of(std::string("abc")), ContainsSubstring("3 bytes, too few"));
  CHECK_THAT(error_of(std::string(20, '\xff')), ContainsSubstring("not a safetensors file"));
  CHECK_THAT(error_of(file_of("{}", 0).substr(0, 9)), ContainsSubstring("truncated"));
  CHECK_THAT(error_of("[1]", 0), ContainsSubstring("not a JSON object"));
  CHECK_THAT(error_of("{", 0), ContainsSubstring("not a JSON object"));
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(error_of(good, 8).empty());
  CHECK_THAT(error_of(good, 7),
             ContainsSubstring("tensor 'a' ends at byte 8") && ContainsSubstring("truncated"));
  CHECK_THAT(error_of(good, 9), ContainsSubstring("1 bytes after the last tensor"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
             ContainsSubstring("tensor 'a' of shape [3] needs 12 bytes"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
             ContainsSubstring("needs 8 bytes"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})", 2),
             ContainsSubstring("type F8_E4M3"));
  CHECK_THAT(
      error_of(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          3),
      ContainsSubstring("tensors 'a' and 'b' overlap"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3),
             ContainsSubstring("gap of 1 bytes before tensor 'a'"));
  CHECK_THAT(
      error_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1),
      ContainsSubstring("'a' appears twice"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1),
             ContainsSubstring("not a whole number: -1"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1),
             ContainsSubstring("not a whole number"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
             ContainsSubstring("impossible shape"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[0,9223372036854775807,3],"data_offsets":[0,0]}})", 0),
             ContainsSubstring("impossible shape"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1),
             ContainsSubstring("at most 8 sizes"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1]}})", 1),
             ContainsSubstring("lacks dtype, shape or data_offsets"));
  CHECK_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1),
             ContainsSubstring("not two whole numbers"));
  CHECK_THAT(error_of(R"({"a":7})", 0), ContainsSubstring("tensor 'a' lacks"));
  CHECK_THAT(error_of(R"({"__metadata__":{"a":1}})", 0), ContainsSubstring("'a' is not a string"));
  CHECK_THAT(error_of(file_of(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 0) + "\x02"),
             ContainsSubstring("elements other than 0 and 1"));
  CHECK_THAT(error_of(std::string(100000, '['), 0), ContainsSubstring("not a JSON object"));
  const TempFolder folder;
  CHECK_THAT(read_safetensors(folder.file("none")).status().message(), ContainsSubstring("No such file"));
  CHECK_THAT(read_safetensors(folder.path()).status().message(), ContainsSubstring("it is a folder"));
  const HostArray a(DType::u8, Shape{1});
  CHECK_THAT(write_safetensors(folder.file("a"), {{"x", a}, {"x", a}}).message(),
             ContainsSubstring("two tensors have the name 'x'"));
  CHECK_THAT(write_safetensors(folder.file("a"), {{"__metadata__", a}}).message(),
             ContainsSubstring("can't have the name"));
  CHECK(folder.list().empty());
}

TEST_CASE("safetensors: no bytes crash the reader", "[safetensors]") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const TempFolder folder;
  REQUIRE(write_safetensors(folder.file("a"), sample(), {{"k", "v"}}));
  const std::string good = slurp(folder.file("a"));
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    for (auto n = random() % 3 + 1; n > 0; --n)
      bad[random() % (i % 2 ? bad.size() : 64)] = static_cast<char>(random());
    if (i % 5 == 0) bad.resize(random() % bad.size());
    if (const auto r = parse_safetensors(bad, "x"); !r) CHECK(!r.status().message().empty());
  }
}
