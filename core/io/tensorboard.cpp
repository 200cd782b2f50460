#include "core/io/tensorboard.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>

#include "core/io/event.pb.h"
#include "core/io/file.h"

namespace tenon {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string little_endian(uint64_t v, int bytes) {
  std::string s;
  for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> 8 * i & 0xff);
  return s;
}

// TFRecord masks checksums, because a checksum of data that contains checksums is weak.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c_of(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// TensorBoard takes the files of a folder in the order of their names, so the time comes first, in digits of
// constant number.
std::string file_name() {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') host = {'h', 'o', 's', 't'};
  char fraction[8];
  std::snprintf(fraction, sizeof fraction, "%06d", static_cast<int>(micros % 1000000));
  return "events.out.tfevents." + std::to_string(micros / 1000000) + "." + fraction + "." + host.data() +
         "." + std::to_string(::getpid());
}

}  // namespace

std::string tf_record(std::string_view data) {
  const std::string length = little_endian(data.size(), 8);
  return length + little_endian(masked_crc(length), 4) + std::string(data) +
         little_endian(masked_crc(data), 4);
}

std::string version_event(double wall_time) {
  proto::Event event;
  event.set_wall_time(wall_time);
  event.set_file_version("brain.Event:2");
  return event.SerializeAsString();
}

std::string scalar_event(double wall_time, int64_t step, const std::map<std::string, double>& values) {
  proto::Event event;
  event.set_wall_time(wall_time);
  event.set_step(step);
  for (const auto& [tag, value] : values) {
    proto::Summary::Value* v = event.mutable_summary()->add_value();
    v->set_tag(tag);
    v->set_simple_value(static_cast<float>(value));
  }
  return event.SerializeAsString();
}

Result<EventWriter> EventWriter::create(const std::string& folder, int64_t resumed_after) {
  TN_RETURN_IF_ERROR(make_folders(folder));
  TN_ASSIGN(AppendFile file, AppendFile::open(folder + "/" + file_name()));
  EventWriter writer(std::move(file));
  TN_RETURN_IF_ERROR(writer.file_.append(tf_record(version_event(now()))));
  if (resumed_after >= 0) {
    proto::Event event;
    event.set_wall_time(now());
    event.set_step(resumed_after + 1);
    event.mutable_session_log()->set_status(proto::SessionLog::START);
    TN_RETURN_IF_ERROR(writer.file_.append(tf_record(event.SerializeAsString())));
  }
  return writer;
}

Status EventWriter::scalars(int64_t step, const std::map<std::string, double>& values) {
  if (values.empty()) return Status::ok();
  return file_.append(tf_record(scalar_event(now(), step, values)));
}

}  // namespace tenon
