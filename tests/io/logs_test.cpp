// Files that others read: TensorBoard's events and metrics as JSON lines; and the writing beneath them.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <csignal>
#include <filesystem>

#include "core/io/file.h"
#include "core/io/metrics_log.h"
#include "core/io/tensorboard.h"
#include "tests/io/temp_folder.h"

using namespace tenon;
using namespace tenon::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;

namespace {

std::string hex(std::string_view bytes) {
  std::string s;
  char two[3];
  for (const char c : bytes) {
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    s += two;
  }
  return s;
}

// Runs f in a child that may write files of at most `limit` bytes; the write then fails as on a full disk
// (EFBIG in place of ENOSPC). True when f returned true.
template <class F>
bool with_file_limit(rlim_t limit, F f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit r{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &r);
    ::_exit(f() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("checksums are the standard ones", "[io]") {
  CHECK(crc32_of("123456789") == 0xcbf43926u);
  CHECK(crc32c_of("123456789") == 0xe3069283u);
}

TEST_CASE("events are TensorBoard's, byte for byte", "[io]") {
  // Written with tensorboard 2.21's RecordWriter and its Event class.
  CHECK(hex(tf_record(version_event(1.5))) ==
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c");
  CHECK(hex(tf_record(scalar_event(2.5, 300, {{"train/loss", 0.25}, {"val/acc", 1.0}}))) ==
        "31000000000000009d8383e909000000000000044010ac022a230a110a0a747261696e2f6c6f7373150000803e0a0e0a0776"
        "616c2f616363"
        "150000803f28b0a2be");
}

TEST_CASE("an event says a value of zero", "[io]") {
  CHECK_THAT(hex(scalar_event(1, 1, {{"a", 0.0}})), EndsWith("0a0161"
                                                             "1500000000"));
}

TEST_CASE("an event file has a version, a restart and whole records", "[io]") {
  const TempFolder folder;
  auto writer = EventWriter::create(folder.file("tb"), 7);
  INFO(writer.status().message());
  REQUIRE(writer);
  REQUIRE(writer->scalars(8, {{"a", 1}}));
  REQUIRE(writer->scalars(9, {}));
  CHECK_THAT(writer->path(), ContainsSubstring("events.out.tfevents."));
  std::string bytes = slurp(writer->path());
  std::vector<std::string> records;
  while (!bytes.empty()) {
    REQUIRE(bytes.size() >= 16);
    const size_t n = static_cast<unsigned char>(bytes[0]);  // all are short
    records.push_back(bytes.substr(12, n));
    CHECK(tf_record(records.back()) == bytes.substr(0, n + 16));
    bytes.erase(0, n + 16);
  }
  REQUIRE(records.size() == 3);
  CHECK_THAT(records[0], EndsWith("brain.Event:2"));
  CHECK_THAT(hex(records[1]), EndsWith("10083a020801"));  // step 8, session_log { status: START }
  spill(folder.file("file"), "");
  CHECK_THAT(EventWriter::create(folder.file("file/tb")).status().message(),
             ContainsSubstring("can't make the folder"));
}

TEST_CASE("metrics are JSON lines, cut at the step a run goes on from", "[io]") {
  const TempFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  {
    auto log = MetricsLog::open(path);
    REQUIRE(log);
    REQUIRE(log->write(1, {{"train/loss", 0.1}, {"lr", 1e-3}}));
    CHECK(slurp(path) == "{\"step\":1,\"lr\":0.001,\"train/loss\":0.1}\n");  // seen before the log is closed
    REQUIRE(log->write(2, {{"train/loss", NAN}}));
    REQUIRE(log->write(3, {{"train/loss", 0.3}}));
  }
  auto lines = read_metrics(path);
  REQUIRE(lines);
  REQUIRE(lines->size() == 3);
  CHECK((*lines)[0].values.at("train/loss") == 0.1);
  CHECK(std::isnan((*lines)[1].values.at("train/loss")));
  spill(path, slurp(path) + "{\"step\":4,\"tra");  // a kill while writing
  {
    auto log = MetricsLog::open(path, 2);
    INFO(log.status().message());
    REQUIRE(log);
    REQUIRE(log->write(3, {{"train/loss", 0.5}}));
  }
  lines = read_metrics(path);
  REQUIRE(lines);
  REQUIRE(lines->size() == 3);
  CHECK((*lines)[2].values.at("train/loss") == 0.5);
  spill(path, "{\"step\":1}\nnonsense\n");
  CHECK_THAT(MetricsLog::open(path, 5).status().message(),
             ContainsSubstring("metrics.jsonl:2: it is not a JSON object"));
  CHECK(slurp(path) == "{\"step\":1}\nnonsense\n");
  REQUIRE(MetricsLog::open(path));
  CHECK(slurp(path).empty());
}

TEST_CASE("a write that fails leaves the file before, and nothing else", "[io]") {
  const TempFolder folder;
  const std::string path = folder.file("a");
  REQUIRE(write_atomically(path, "before"));
  CHECK(slurp(path) == "before");
  const std::string large(100000, 'x');
  CHECK(with_file_limit(4096, [&] {
    const Status s = write_atomically(path, large);
    return !s && s.message() == "can't write '" + path + "': File too large";
  }));
  CHECK(slurp(path) == "before");
  CHECK(folder.list() == "a");
  // A record is written whole or not at all.
  CHECK(with_file_limit(4096, [&] {
    auto file = AppendFile::open(path);
    return file && !file->append(large) && file->append(" after");
  }));
  CHECK(slurp(path) == "before after");
  {
    auto file = AtomicFile::create(path);
    REQUIRE(file);
    REQUIRE(file->write("half"));
  }  // not committed
  CHECK(slurp(path) == "before after");
  CHECK(folder.list() == "a");
  CHECK_THAT(write_atomically(folder.file("none/a"), "x").message(),
             ContainsSubstring("No such file or directory"));
  if (::access("/dev/full", W_OK) == 0) {
    auto full = AppendFile::open("/dev/full");
    REQUIRE(full);
    CHECK_THAT(full->append("x").message(), ContainsSubstring("'/dev/full': No space left on device"));
  }
  if (::geteuid() != 0) {  // root may write everywhere
    ::chmod(folder.path().c_str(), 0555);
    CHECK_THAT(write_atomically(path, "x").message(), ContainsSubstring("Permission denied"));
    ::chmod(folder.path().c_str(), 0755);
  }
}
