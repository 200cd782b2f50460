// CIFAR's binary version: records of label byte(s) and 3 x 32 x 32 pixel bytes, planes R, G, B, row-major.
// https://www.cs.toronto.edu/~kriz/cifar.html
#include "core/data/files.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

constexpr size_t kPixels = 3 * 32 * 32;

Result<Dataset> read_cifar_file(const std::string& path, const CifarOptions& options) {
  TN_ASSIGN(const std::string bytes, read_file(path));
  const size_t record = static_cast<size_t>(options.label_bytes) + kPixels;
  if (bytes.empty() || bytes.size() % record != 0)
    return invalid(path + ": " + std::to_string(bytes.size()) +
                   " bytes are not a whole number of records of " + std::to_string(record) +
                   " bytes: the file is truncated or not CIFAR's binary version");
  const size_t n = bytes.size() / record;
  HostArray x(DType::u8, Shape{static_cast<int64_t>(n), 3, 32, 32}),
      y(DType::i32, Shape{static_cast<int64_t>(n)});
  for (size_t i = 0; i < n; ++i) {
    const char* p = bytes.data() + i * record + options.label_bytes;
    const int label = static_cast<uint8_t>(p[-1]);
    if (label >= options.classes)
      return invalid(path + ": record " + std::to_string(i) + " has label " + std::to_string(label) +
                     ", expected 0.." + std::to_string(options.classes - 1) +
                     "; the file is corrupt, or set classes and label_bytes");
    y.as<int32_t>()[i] = label;
    std::memcpy(x.data() + i * kPixels, p, kPixels);
  }
  Dataset data(static_cast<int64_t>(n));
  TN_RETURN_IF_ERROR(data.add("x", std::move(x)));
  TN_RETURN_IF_ERROR(data.add("y", std::move(y)));
  return data;
}

}  // namespace

Result<Dataset> read_cifar(const std::vector<std::string>& files, const CifarOptions& options) {
  if (files.empty()) return invalid("cifar needs at least one file");
  if (options.label_bytes < 1 || options.label_bytes > 2)
    return invalid("label_bytes is " + std::to_string(options.label_bytes) +
                   ", must be 1 (CIFAR-10) or 2 (CIFAR-100)");
  if (options.classes < 1 || options.classes > 256)
    return invalid("classes is " + std::to_string(options.classes) + ", must be in 1..256");
  TN_ASSIGN(Dataset data, read_cifar_file(files[0], options));
  for (size_t f = 1; f < files.size(); ++f) {
    TN_ASSIGN(const Dataset more, read_cifar_file(files[f], options));
    TN_RETURN_IF_ERROR(data.append(more).at(files[f]));
  }
  data.add_ids();
  return data;
}

extern const Format cifar_format;
const Format cifar_format = {
    "cifar", "CIFAR-10/100 binary records",
    [](const std::vector<std::string>& files, const Options& options, const Schema*) -> Result<Dataset> {
      CifarOptions o;
      TN_RETURN_IF_ERROR(
          OptionBinder(options).get("label_bytes", o.label_bytes).get("classes", o.classes).finish());
      return read_cifar(files, o);
    }};

}  // namespace tenon
