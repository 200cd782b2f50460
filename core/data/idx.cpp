// IDX, the format of MNIST: magic 0x0000TTDD (element type, number of axes), one big-endian u32 per axis,
// then the elements, big-endian. http://yann.lecun.com/exdb/mnist/
#include <algorithm>
#include <bit>
#include <cstdio>
#include <numeric>
#include <optional>

#include "core/data/files.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

struct IdxType {
  uint8_t code;
  size_t bytes;
  DType dtype;  // s8 and i16 have no type of their own here
};

std::optional<IdxType> idx_type(uint8_t code) {
  switch (code) {
    case 0x08:
      return IdxType{code, 1, DType::u8};
    case 0x09:
      return IdxType{code, 1, DType::i32};
    case 0x0b:
      return IdxType{code, 2, DType::i32};
    case 0x0c:
      return IdxType{code, 4, DType::i32};
    case 0x0d:
      return IdxType{code, 4, DType::f32};
    case 0x0e:
      return IdxType{code, 8, DType::f64};
    default:
      return std::nullopt;
  }
}

// Big-endian bytes as an unsigned number.
uint64_t big_endian(const char* p, size_t bytes) {
  uint64_t v = 0;
  for (size_t i = 0; i < bytes; ++i) v = v << 8 | static_cast<uint8_t>(p[i]);
  return v;
}

void decode(const IdxType& type, const char* p, HostArray& out) {
  const auto n = static_cast<size_t>(out.numel());
  if (type.dtype == DType::u8) {
    if (n) std::memcpy(out.data(), p, n);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const uint64_t bits = big_endian(p + i * type.bytes, type.bytes);
    switch (type.code) {
      case 0x09:
        out.as<int32_t>()[i] = static_cast<int8_t>(bits);
        break;
      case 0x0b:
        out.as<int32_t>()[i] = static_cast<int16_t>(bits);
        break;
      case 0x0c:
        out.as<int32_t>()[i] = static_cast<int32_t>(bits);
        break;
      case 0x0d:
        out.as<float>()[i] = std::bit_cast<float>(static_cast<uint32_t>(bits));
        break;
      default:
        out.as<double>()[i] = std::bit_cast<double>(bits);
        break;
    }
  }
}

Result<HostArray> read_idx_array(const std::string& path) {
  TN_ASSIGN(const std::string bytes, read_file(path));
  if (bytes.size() < 4)
    return invalid(path + ": too short for an IDX file (" + std::to_string(bytes.size()) + " bytes)");
  const auto type = idx_type(static_cast<uint8_t>(bytes[2]));
  const int axes = static_cast<uint8_t>(bytes[3]);
  if (bytes[0] != 0 || bytes[1] != 0 || !type || axes < 1 || axes > kMaxRank - 1) {
    char magic[32];
    std::snprintf(magic, sizeof magic, "0x%08x", static_cast<unsigned>(big_endian(bytes.data(), 4)));
    return invalid(path + ": not an IDX file: its magic number is " + magic +
                   ", expected 0x00000803 for images or 0x00000801 for labels");
  }
  const size_t header = 4 + 4 * static_cast<size_t>(axes);
  if (bytes.size() < header) return invalid(path + ": truncated inside the IDX header, fetch the file again");
  Shape shape;
  uint64_t expected = type->bytes,
           bound = type->bytes;  // bound: with empty axes counted as 1, against overflow
  bool absurd = false;
  for (int a = 0; a < axes; ++a) {
    const uint64_t d = big_endian(bytes.data() + 4 + 4 * static_cast<size_t>(a), 4);
    shape.push_back(static_cast<int64_t>(d));
    absurd = absurd || bound > (uint64_t{1} << 62) / std::max<uint64_t>(d, 1);
    if (absurd) break;
    bound *= std::max<uint64_t>(d, 1);
    expected *= d;
  }
  const uint64_t present = bytes.size() - header;
  if (absurd || present != expected)
    return invalid(path + ": the header says " + to_string(shape) + " elements of " +
                   std::to_string(type->bytes) + " bytes, but " + std::to_string(present) + " bytes follow" +
                   (absurd || present < expected
                        ? ": the file is truncated or its header corrupt, fetch it again"
                        : ": there is too much data"));
  HostArray out(type->dtype, shape);
  decode(*type, bytes.data() + header, out);
  return out;
}

}  // namespace

Result<Dataset> read_idx(const std::vector<std::string>& files, const IdxOptions& options) {
  if (files.empty() || files.size() > 2)
    return invalid("idx takes one file (images) or two (images, labels), not " +
                   std::to_string(files.size()));
  if (options.first < 0) return invalid("first is " + std::to_string(options.first) + "; it must be positive, or 0 for all");
  TN_ASSIGN(HostArray x, read_idx_array(files[0]));
  if (options.channel) {
    Shape shape = x.shape();
    shape.insert(1, 1);
    x = std::move(x).reshaped(shape);
  }
  const int64_t n = x.shape()[0];
  Dataset data(n);
  TN_RETURN_IF_ERROR(data.add("x", std::move(x)));
  if (files.size() == 2) {
    TN_ASSIGN(const HostArray raw, read_idx_array(files[1]));
    if (raw.shape().rank() != 1 || !is_integer(raw.dtype()))
      return invalid(files[1] + ": labels must be integers with one axis, this file has " +
                     std::string(name_of(raw.dtype())) + to_string(raw.shape()) +
                     "; are the files in the wrong order?");
    if (raw.numel() != n)
      return invalid(files[1] + ": has " + std::to_string(raw.numel()) + " labels, but " + files[0] +
                     " has " + std::to_string(n) + " samples");
    HostArray y(DType::i32, raw.shape());
    for (int64_t i = 0; i < n; ++i) y.set(i, raw.at(i));
    TN_RETURN_IF_ERROR(data.add("y", std::move(y)));
  }
  if (options.skip < 0) return invalid("skip is " + std::to_string(options.skip) + "; it must not be negative");
  if (options.skip >= n) return invalid(files[0] + ": has " + std::to_string(n) + " samples, all of them are skipped");
  const int64_t left = n - options.skip, kept = options.first > 0 ? std::min(options.first, left) : left;
  if (kept < n) {
    std::vector<int64_t> rows(static_cast<size_t>(kept));
    std::iota(rows.begin(), rows.end(), options.skip);
    data = data.take(rows);
  }
  data.add_ids();
  return data;
}

extern const Format idx_format;
const Format idx_format = {
    "idx", "IDX images and labels (MNIST); files: images, labels",
    [](const std::vector<std::string>& files, const Options& options, const Schema*) -> Result<Dataset> {
      IdxOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options).get("channel", o.channel).get("skip", o.skip).get("first", o.first).finish());
      return read_idx(files, o);
    }};

}  // namespace tenon
