#include "core/data/readers.h"

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

using Doubles = std::vector<double>;

Doubles values(const Dataset& d, std::string_view name) {
  Doubles out;
  const HostArray* a = *d.column(name);
  for (int64_t i = 0; i < a->numel(); ++i) out.push_back(a->at(i));
  return out;
}

std::string big_endian(uint64_t v, size_t bytes) {
  std::string s;
  for (size_t i = bytes; i-- > 0;) s += static_cast<char>(v >> (8 * i) & 0xff);
  return s;
}

std::string idx(int type, std::initializer_list<uint32_t> dims, std::string_view content) {
  std::string s = {0, 0, static_cast<char>(type), static_cast<char>(dims.size())};
  for (uint32_t d : dims) s += big_endian(d, 4);
  return s + std::string(content);
}

}  // namespace

TEST_CASE("idx: images and labels, plain and gzipped") {
  TempFiles t;
  const std::string images =
      t.write_gz("images.gz", idx(8, {2, 2, 3}, std::string("\0\1\2\3\4\5\xff\7\x8\x9\xa\xb", 12)));
  const std::string labels = t.write("labels", idx(8, {2}, std::string("\7\0", 2)));
  REQUIRE_GOOD(const Dataset d, read_idx({images, labels}, {}));
  CHECK((*d.column("x"))->dtype() == DType::u8);
  CHECK((*d.column("x"))->shape() == Shape{2, 2, 3});
  CHECK(values(d, "x") == Doubles{0, 1, 2, 3, 4, 5, 255, 7, 8, 9, 10, 11});
  CHECK((*d.column("y"))->dtype() == DType::i32);
  CHECK(values(d, "y") == Doubles{7, 0});
  CHECK(values(d, "id") == Doubles{0, 1});
  REQUIRE_GOOD(const Dataset one, read_idx({images, labels}, {.first = 1}));
  CHECK(one.size() == 1);
  CHECK(values(one, "x") == Doubles{0, 1, 2, 3, 4, 5});
  CHECK(values(one, "y") == Doubles{7});
  CHECK_FAILS(read_idx({images}, {.first = -1}), "first");
  REQUIRE_GOOD(const Dataset c, read_idx({images}, {.channel = true}));
  CHECK((*c.column("x"))->shape() == Shape{2, 1, 2, 3});
  CHECK_FALSE(c.has("y"));
}

TEST_CASE("idx: a range of the samples") {
  const TempFiles t;
  const std::string images = t.write("i", idx(8, {4, 2}, "abcdefgh")), labels = t.write("l", idx(8, {4}, std::string("\0\1\2\3", 4)));
  REQUIRE_GOOD(const Dataset d, read_idx({images, labels}, {.skip = 1, .first = 2}));
  CHECK(d.size() == 2);
  CHECK((*d.column("x"))->at(0) == 'c');
  CHECK((*d.column("y"))->at(1) == 2);
  REQUIRE_GOOD(const Dataset rest, read_idx({images, labels}, {.skip = 3, .first = 9}));
  CHECK(rest.size() == 1);
  CHECK_FAILS(read_idx({images, labels}, {.skip = 4}), "4 samples", "skipped");
  CHECK_FAILS(read_idx({images, labels}, {.skip = -1}), "negative");
}

TEST_CASE("idx: every element type") {
  TempFiles t;
  const auto read = [&](int type, const std::string& content) {
    REQUIRE_GOOD(const Dataset d, read_idx({t.write("f", idx(type, {2}, content))}, {}));
    return values(d, "x");
  };
  CHECK(read(0x08, "\x01\xff") == Doubles{1, 255});
  CHECK(read(0x09, "\x01\xff") == Doubles{1, -1});
  CHECK(read(0x0b, big_endian(300, 2) + big_endian(0xfffe, 2)) == Doubles{300, -2});
  CHECK(read(0x0c, big_endian(70000, 4) + big_endian(0xffffffff, 4)) == Doubles{70000, -1});
  CHECK(read(0x0d, big_endian(std::bit_cast<uint32_t>(1.5f), 4) +
                       big_endian(std::bit_cast<uint32_t>(-2.f), 4)) == Doubles{1.5, -2});
  CHECK(read(0x0e, big_endian(std::bit_cast<uint64_t>(0.1), 8) +
                       big_endian(std::bit_cast<uint64_t>(-3.0), 8)) == Doubles{0.1, -3});
}

TEST_CASE("idx: bad input") {
  TempFiles t;
  const std::string good = idx(8, {2, 3}, "abcdef");
  for (size_t cut : {size_t{0}, size_t{3}, size_t{7}, good.size() - 1}) {
    CAPTURE(cut);
    CHECK_FAILS(read_idx({t.write("cut", good.substr(0, cut))}, {}), "cut:");
  }
  CHECK_FAILS(read_idx({t.write("cut", good.substr(0, 15))}, {}), "truncated", "[2, 3]", "3 bytes follow");
  CHECK_FAILS(read_idx({t.write("more", good + "x")}, {}), "too much");
  CHECK_FAILS(read_idx({t.write("magic", "PNG not idx at all")}, {}), "magic", "0x504e4720", "0x00000803");
  CHECK_FAILS(read_idx({t.write("type", idx(0x0a, {1}, "a"))}, {}), "magic number is 0x00000a01");
  CHECK_FAILS(read_idx({t.write("axes", std::string("\0\0\x8\0", 4))}, {}), "magic");
  CHECK_FAILS(read_idx({t.write("huge", idx(0x0e, {0xffffffff, 0xffffffff, 0xffffffff}, ""))}, {}), "huge",
              "corrupt");
  CHECK_FAILS(read_idx({t.write("hollow", idx(8, {0xffffffff, 0xffffffff, 0xffffffff, 0}, ""))}, {}),
              "corrupt");
  const std::string images = t.write("images", idx(8, {2, 1}, "ab"));
  CHECK_FAILS(read_idx({images, t.write("labels", idx(8, {3}, "abc"))}, {}), "labels", "3 labels",
              "2 samples");
  CHECK_FAILS(read_idx({t.path("labels"), images}, {}), "images", "wrong order");
  CHECK_FAILS(read_idx({}, {}), "not 0");
}

TEST_CASE("libsvm: dense rows, classes in order") {
  TempFiles t;
  const std::string file = t.write("d", "+1 1:0.5 3:-2 # a comment\n\n-1 2:1e1\r\n+1\n");
  REQUIRE_GOOD(const Dataset d, read_libsvm({file}, {}, nullptr));
  CHECK((*d.column("x"))->shape() == Shape{3, 3});
  CHECK(values(d, "x") == Doubles{0.5, 0, -2, 0, 10, 0, 0, 0, 0});
  CHECK(values(d, "y") == Doubles{1, 0, 1});
  CHECK(d.schema.class_names == std::vector<std::string>{"-1", "1"});
  REQUIRE_GOOD(const Dataset wide, read_libsvm({file}, {.features = 5, .target_kind = "number"}, nullptr));
  CHECK((*wide.column("x"))->shape() == Shape{3, 5});
  CHECK(values(wide, "y") == Doubles{1, -1, 1});
  // Another part takes the width and the classes of the training part.
  REQUIRE_GOOD(const Dataset test, read_libsvm({t.write("e", "-1 1:1\n-1 2:1\n")}, {}, &d.schema));
  CHECK((*test.column("x"))->shape() == Shape{2, 3});
  CHECK(values(test, "y") == Doubles{0, 0});
  REQUIRE_GOOD(const Dataset zero,
               read_libsvm({t.write("z", "1 0:1 1:2\n0 0:3\n")}, {.zero_based = true}, nullptr));
  CHECK(values(zero, "x") == Doubles{1, 2, 3, 0});
}

TEST_CASE("libsvm: bad input") {
  TempFiles t;
  const auto read = [&](std::string_view text, LibsvmOptions o = {}) {
    return read_libsvm({t.write("f", text)}, o, nullptr);
  };
  CHECK_FAILS(read("1 1:2\n1 0:1\n"), "f:2", "zero_based");
  CHECK_FAILS(read("1 2:2 1:1\n"), "f:1", "ascend");
  CHECK_FAILS(read("1 2:2 2:1\n"), "f:1", "ascend");
  CHECK_FAILS(read("1 a:2\n"), "f:1", "'a:2'", "index");
  CHECK_FAILS(read("1 1:x\n"), "f:1", "'1:x'", "value");
  CHECK_FAILS(read("1 1:nan\n"), "f:1", "finite");
  CHECK_FAILS(read("1 17\n"), "f:1", "'17'", "index:value");
  CHECK_FAILS(read("cat 1:1\n"), "f:1", "'cat'", "label");
  CHECK_FAILS(read("1 qid:3 1:1\n"), "f:1", "query");
  CHECK_FAILS(read("1 999999999999:1\n"), "f:1", "too large");
  CHECK_FAILS(read("1 1:1\n1 7:1\n", {.features = 4}), "f:2", "feature 7", "4 features");
  CHECK_FAILS(read("\n\n"), "no samples");
  CHECK_FAILS(read("1.5 1:1\n"), "f:1", "target_kind");
}

TEST_CASE("cifar: records, several files, bad input") {
  TempFiles t;
  std::string record(3073, '\0');
  record[0] = 3;
  record[1] = static_cast<char>(200);
  record[3072] = 9;
  const std::string a = t.write("a.bin", record + record), b = t.write_gz("b.bin.gz", record);
  REQUIRE_GOOD(const Dataset d, read_cifar({a, b}, {}));
  CHECK((*d.column("x"))->shape() == Shape{3, 3, 32, 32});
  CHECK(values(d, "y") == Doubles{3, 3, 3});
  CHECK(values(d, "id") == Doubles{0, 1, 2});
  CHECK(values(d, "x")[3072 * 2] == 200);
  CHECK(values(d, "x")[3072 * 3 - 1] == 9);
  REQUIRE_GOOD(const Dataset hundred,
               read_cifar({t.write("c", "\x01" + record)}, {.label_bytes = 2, .classes = 100}));
  CHECK(values(hundred, "y") == Doubles{3});
  CHECK_FAILS(read_cifar({t.write("cut", record.substr(1))}, {}), "cut", "3072 bytes", "3073");
  CHECK_FAILS(read_cifar({t.write("none", "")}, {}), "none");
  record[0] = 10;
  CHECK_FAILS(read_cifar({t.write("label", record)}, {}), "record 0", "label 10", "0..9");
}

TEST_CASE("text: characters in code point order, bytes, and back") {
  TempFiles t;
  const std::string text =
      "b\xc3\xa4"
      "a\xe2\x82\xac\nb";
  REQUIRE_GOOD(const Dataset d, read_text({t.write("t.txt", text)}, {}, nullptr));
  CHECK(d.schema.vocabulary == std::vector<std::string>{"\n", "a", "b", "\xc3\xa4", "\xe2\x82\xac"});
  CHECK(values(d, "tokens") == Doubles{2, 3, 1, 4, 0, 2});
  CHECK((*d.column("tokens"))->dtype() == DType::i32);
  CHECK(decode_text(d.schema, (*d.column("tokens"))->as<int32_t>()) == text);
  REQUIRE_GOOD(const Dataset bytes, read_text({t.path("t.txt")}, {.level = "bytes"}, nullptr));
  CHECK(bytes.size() == static_cast<int64_t>(text.size()));
  CHECK(bytes.schema.vocabulary_size() == 256);
  CHECK(decode_text(bytes.schema, (*bytes.column("tokens"))->as<int32_t>()) == text);
  REQUIRE_GOOD(const Dataset other, read_text({t.write("u.txt", "ab")}, {}, &d.schema));
  CHECK(values(other, "tokens") == Doubles{1, 2});
  CHECK_FAILS(read_text({t.write("v.txt", "abz")}, {}, &d.schema), "v.txt", "byte 2", "'z'", "training part");
  CHECK_FAILS(read_text({t.write("w.txt", "aaaaabbbbbc")}, {.vocabulary_fraction = 0.5}, nullptr), "byte 5",
              "'b'");
  REQUIRE_GOOD(const Schema back, Schema::from_json(d.schema.to_json()));
  CHECK(back == d.schema);
}

TEST_CASE("text: the most frequent characters of the beginnings of several files") {
  const TempFiles t;
  const std::string a = t.write("a", "bbbaa\xc3\xa9\xc3\xa9 rest"), b = t.write("b", "ccc.");
  REQUIRE_GOOD(const Dataset d, read_text({a, b}, {.vocabulary_size = 3, .max_bytes = 8}, nullptr));
  // "bbbaa" and one whole character of two bytes, then "ccc."; a and U+FFFD stand for what is kept and what is not.
  CHECK(d.schema.vocabulary == std::vector<std::string>{"a", "b", "c", "\xef\xbf\xbd"});
  const auto tokens = (*d.column("tokens"))->as<int32_t>(), file = (*d.column("file"))->as<int32_t>();
  CHECK(std::vector<int32_t>(tokens.begin(), tokens.end()) == std::vector<int32_t>{1, 1, 1, 0, 0, 3, 2, 2, 2, 3});
  CHECK(std::vector<int32_t>(file.begin(), file.end()) == std::vector<int32_t>{0, 0, 0, 0, 0, 0, 1, 1, 1, 1});
  REQUIRE_GOOD(const Dataset other, read_text({t.write("c", "za")}, {}, &d.schema));
  CHECK((*other.column("tokens"))->at(0) == 3);
  CHECK_FALSE(other.has("file"));
  CHECK_FAILS(read_text({a}, {.level = "bytes", .vocabulary_size = 3}, nullptr), "vocabulary_size", "256");
  CHECK_FAILS(read_text({a}, {.max_bytes = -1}, nullptr), "max_bytes");
}

TEST_CASE("text: bad input") {
  TempFiles t;
  for (std::string_view bad : {"ab\xff", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xe2\x82", "ab\xf5\x80\x80\x80"})
    CHECK_FAILS(read_text({t.write("bad", bad)}, {}, nullptr), "bad", "byte 2", "UTF-8", "bytes");
  CHECK_FAILS(read_text({t.write("empty", "")}, {}, nullptr), "empty");
  CHECK_FAILS(read_text({t.path("empty")}, {.level = "words"}, nullptr), "level", "chars, bytes");
  CHECK_FAILS(read_text({t.path("empty")}, {.vocabulary_fraction = 0}, nullptr), "vocabulary_fraction");
}

TEST_CASE("jsonl: numbers, arrays, strings, labels, nested fields") {
  TempFiles t;
  const std::string file =
      t.write_gz("d.jsonl.gz",
                 "{\"a\": 1.5, \"m\": [[1,2],[3,4]], \"s\": \"hey\", \"l\": \"cat\", \"o\": {\"k\": 7}}\n"
                 "\n"
                 "{\"a\": 2, \"m\": [[5,6],[7,8]], \"s\": \"\\u00e4\", \"l\": \"ant\", \"o\": {\"k\": 8}}\n");
  JsonlOptions o;
  o.numbers = {"a", "x=m"};
  o.integers = {"k=o.k"};
  o.text = {"s"};
  o.label = "l";
  REQUIRE_GOOD(const Dataset d, read_jsonl({file}, o, nullptr));
  CHECK(values(d, "a") == Doubles{1.5, 2});
  CHECK((*d.column("x"))->shape() == Shape{2, 2, 2});
  CHECK(values(d, "x") == Doubles{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK((*d.column("k"))->dtype() == DType::i32);
  CHECK(values(d, "k") == Doubles{7, 8});
  CHECK(values(d, "s") == Doubles{'h', 'e', 'y', 0xc3, 0xa4, 0});
  CHECK(values(d, "s_length") == Doubles{3, 2});
  CHECK(values(d, "y") == Doubles{1, 0});
}

TEST_CASE("jsonl: bad input") {
  TempFiles t;
  JsonlOptions o;
  o.numbers = {"a"};
  const auto read = [&](std::string_view text) { return read_jsonl({t.write("f", text)}, o, nullptr); };
  CHECK_FAILS(read("{\"a\":1}\n{\"a\":\n"), "f:2", "not valid JSON");
  CHECK_FAILS(read("{\"a\":1}\n[1]\n"), "f:2", "one JSON object", "array");
  CHECK_FAILS(read("{\"b\":1}\n"), "f:1", "'a'", "there are: b");
  CHECK_FAILS(read("{\"a\":\"x\"}\n"), "f:1", "'a'", "numbers", "string");
  CHECK_FAILS(read("{\"a\":null}\n"), "f:1", "null");
  CHECK_FAILS(read("{\"a\":[1,2]}\n{\"a\":[1,2,3]}\n"), "f:2", "3 elements", "2");
  CHECK_FAILS(read("{\"a\":[[1],2]}\n"), "f:1", "a number where");
  CHECK_FAILS(read("{\"a\":[1,2]}\n{\"a\":1}\n"), "f:2", "a number where");
  CHECK_FAILS(read("{\"a\":1}\n{\"a\":[1]}\n"), "f:2", "a number");
  CHECK_FAILS(read("{\"a\":\"\xff\"}\n"), "f:1");
  CHECK_FAILS(read("\n"), "no records");
  o = {};
  CHECK_FAILS(read("{}\n"), "at least one field");
  o.integers = {"a"};
  CHECK_FAILS(read("{\"a\":1.5}\n"), "f:1", "whole", "1.5");
  o = {};
  o.text = {"a"};
  CHECK_FAILS(read("{\"a\":1}\n"), "f:1", "string", "number");
  o.text = {"a.b"};
  CHECK_FAILS(read("{\"a\":1}\n"), "f:1", "a.b", "no object");
}

TEST_CASE("synthetic data: a function of the seed; parts share the problem") {
  for (const char* kind : {"linear", "blobs", "moons", "xor", "images", "tokens"}) {
    CAPTURE(kind);
    SyntheticOptions o;
    o.kind = kind;
    o.n = 300;
    REQUIRE_GOOD(const Dataset a, make_synthetic(o));
    REQUIRE_GOOD(const Dataset b, make_synthetic(o));
    o.part = 1;
    REQUIRE_GOOD(const Dataset test, make_synthetic(o));
    o.part = 0;
    o.seed = 1;
    REQUIRE_GOOD(const Dataset other, make_synthetic(o));
    const std::string main = a.has("x") ? "x" : "tokens";
    CHECK(a.size() == 300);
    CHECK(values(a, main) == values(b, main));
    CHECK(values(a, main) != values(test, main));
    CHECK(values(a, main) != values(other, main));
    if (a.has("y") && std::string(kind) != "linear")
      CHECK(check_labels(**a.column("y"), std::string(kind) == "moons" || std::string(kind) == "xor" ? 2 : 3)
                .is_ok());
  }
  // Blobs of two parts have the same centres.
  SyntheticOptions o;
  o.noise = 0;
  REQUIRE_GOOD(const Dataset train, make_synthetic(o));
  o.part = 1;
  REQUIRE_GOOD(const Dataset test, make_synthetic(o));
  CHECK(values(train, "x") == values(test, "x"));
  o.kind = "blob";
  CHECK_FAILS(make_synthetic(o), "did you mean 'blobs'");
  o.kind = "blobs";
  o.n = 0;
  CHECK_FAILS(make_synthetic(o), "'n'");
  o.n = 100'000'000;
  o.features = 100'000'000;
  CHECK_FAILS(make_synthetic(o), "2147483648");
  o = {.kind = "images", .n = 1, .size = 100'000'000};
  CHECK_FAILS(make_synthetic(o), "2147483648");
  REQUIRE_GOOD(const Format* format, find_format("synthetic"));
  CHECK_FAILS(format->read({"file"}, {}, nullptr), "no files");
}

TEST_CASE("words: rows of the words before a frequent one") {
  TempFiles t;
  const std::string text = "The cat, the Dog; the <unk> cat-dog sat.\n";  // the cat the dog the unk cat dog sat
  REQUIRE_GOOD(const Dataset d, read_words({t.write("w.txt", text)}, {.context = 2, .vocabulary = 4}, nullptr));
  CHECK(d.schema.class_names == std::vector<std::string>{"<other>", "the", "cat", "dog"});  // 3, 2, 2 times
  CHECK(values(d, "x") == std::vector<double>{1, 2, 2, 1, 1, 3, 1, 0, 0, 2});
  CHECK(values(d, "y") == std::vector<double>{1, 3, 1, 2, 3});
  REQUIRE_GOOD(const Dataset other, read_words({t.write("v.txt", "sat a cat")}, {.context = 2, .vocabulary = 4}, &d.schema));
  CHECK(values(other, "x") == std::vector<double>{0, 0});
  CHECK(values(other, "y") == std::vector<double>{2});
  CHECK_FAILS(read_words({t.write("s.txt", "the cat")}, {.context = 2, .vocabulary = 4}, nullptr), "no more than 2 words");
  CHECK_FAILS(read_words({t.path("w.txt")}, {.context = 0}, nullptr), "context is 0");
}

TEST_CASE("every format reads options by name and rejects others") {
  TempFiles t;
  const std::string file = t.write("f", "a,y\n1,0\n");
  for (const Format* f : formats()) {
    CAPTURE(f->id);
    CHECK(find_format(f->id).is_ok());
    CHECK_FALSE(f->summary.empty());
    CHECK_FAILS(f->read(f->id == "synthetic" ? std::vector<std::string>{} : std::vector<std::string>{file},
                        {{"no such option", true}}, nullptr),
                "unknown option 'no such option'");
  }
}
