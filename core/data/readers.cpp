#include "core/data/readers.h"

#include "core/base/nearest.h"
#include "core/data/files.h"

namespace tenon {

extern const Format idx_format, csv_format, libsvm_format, cifar_format, text_format, words_format, jsonl_format,
    synthetic_format;

std::span<const Format* const> formats() {
  static constexpr const Format* all[] = {&idx_format,  &csv_format,   &libsvm_format,   &cifar_format,
                                          &text_format, &words_format, &jsonl_format, &synthetic_format};
  return all;
}

Result<const Format*> find_format(std::string_view id) {
  std::vector<std::string_view> ids;
  for (const Format* f : formats()) {
    if (f->id == id) return f;
    ids.push_back(f->id);
  }
  return not_found("no data format '" + std::string(id) + "'" + did_you_mean(id, ids));
}

Result<Dataset> read_dataset(const DataSource& source, const Schema* like) {
  TN_ASSIGN(const Format* format, find_format(source.format));
  std::vector<std::string> paths;
  for (const std::string& name : source.files) {
    TN_ASSIGN(std::string path, find_data(name, source.recipe_dir, source.data_root, source.origin));
    paths.push_back(std::move(path));
  }
  Result<Dataset> data = format->read(paths, source.options, like);
  if (!data) return std::move(data).status().at("data format '" + source.format + "'");
  return data;
}

}  // namespace tenon
