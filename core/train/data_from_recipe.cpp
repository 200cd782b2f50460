#include "core/train/data_from_recipe.h"

#include <algorithm>
#include <optional>

#include "core/data/readers.h"
#include "core/data/split.h"

namespace tenon {
namespace {

std::string path_of(int index) { return "data[" + std::to_string(index) + "]"; }

Result<Dataset> read_part(const Recipe& recipe, const proto::Data& d,
                          const google::protobuf::RepeatedPtrField<std::string>& files,
                          const proto::Options& changes, const std::string& data_root, const Schema* like) {
  DataSource source;
  source.format = d.format();
  source.files.assign(files.begin(), files.end());
  source.options = to_options(merged(d.options(), changes));
  source.origin = d.source();
  source.recipe_dir = recipe.dir;
  source.data_root = data_root;
  TN_ASSIGN(Dataset data, read_dataset(source, like));
  if (data.size() == 0) return invalid("the data has no rows");
  return data;
}

Result<SplitData> split_off(const Dataset& data, const proto::Split& s) {
  SplitOptions o;
  o.how = s.how();
  o.fraction = s.fraction();
  o.count = s.count();
  o.seed = static_cast<uint64_t>(s.seed());
  o.label = s.label();
  if (data.has("tokens") && o.how != "first" && o.how != "last")
    return invalid("a token stream is split in two pieces; write how: \"last\" or how: \"first\"");
  return split(data, o);
}

// Parts with their place in the recipe.
struct Parts {
  Dataset train;
  std::optional<Dataset> val, test;
};

Result<Parts> read_parts(const Recipe& recipe, const proto::Data& d, const std::string& path,
                         const std::string& data_root) {
  const auto at = [&](Status s, const std::string& field) {
    return std::move(s).at(recipe.where(path + field));
  };
  Parts parts;
  auto train = read_part(recipe, d, d.files(), {}, data_root, nullptr);
  if (!train) return at(std::move(train).status(), d.files_size() ? ".files" : "");
  parts.train = std::move(train).value();
  const auto take = [&](std::string_view name, const auto& files, const proto::Options* options,
                        const proto::Split* held, std::optional<Dataset>& out) -> Status {
    const std::string field = "." + std::string(name);
    if (files.size() > 0 || options) {
      auto part = read_part(recipe, d, files.size() > 0 ? files : d.files(),
                            options ? *options : proto::Options(), data_root, &parts.train.schema);
      if (!part) return at(std::move(part).status(), field + (files.size() > 0 ? "_files" : "_options"));
      out = std::move(part).value();
    } else if (held) {
      auto pieces = split_off(parts.train, *held);
      if (!pieces) return at(std::move(pieces).status(), field + "_split");
      parts.train = std::move(pieces->rest);
      out = std::move(pieces->held);
    }
    return Status::ok();
  };
  TN_RETURN_IF_ERROR(take("test", d.test_files(), d.has_test_options() ? &d.test_options() : nullptr,
                          d.has_test_split() ? &d.test_split() : nullptr, parts.test));
  TN_RETURN_IF_ERROR(take("val", d.val_files(), d.has_val_options() ? &d.val_options() : nullptr,
                          d.has_val_split() ? &d.val_split() : nullptr, parts.val));
  return parts;
}

// What a model should give for this data, and whether all parts agree.
Status learn_outputs(const Parts& parts, DataStream& stream) {
  stream.vocab = parts.train.schema.vocabulary_size();
  if (parts.train.has("tokens")) {
    if (stream.vocab == 0) {  // synthetic tokens have no vocabulary
      const HostArray& tokens = parts.train.columns().find("tokens")->second;
      for (int64_t i = 0; i < tokens.numel(); ++i)
        stream.vocab = std::max(stream.vocab, static_cast<int64_t>(tokens.at(i)) + 1);
    }
    stream.outputs = stream.vocab;
    return Status::ok();
  }
  const auto it = parts.train.columns().find("y");
  if (it == parts.train.columns().end()) return Status::ok();
  const HostArray& y = it->second;
  if (!is_integer(y.dtype())) {
    stream.outputs = y.shape().rank() > 1 ? y.numel() / std::max<int64_t>(1, y.shape()[0]) : 1;
    return Status::ok();
  }
  stream.outputs = static_cast<int64_t>(parts.train.schema.class_names.size());
  for (int64_t i = 0; i < y.numel(); ++i)
    stream.outputs = std::max(stream.outputs, static_cast<int64_t>(y.at(i)) + 1);
  for (const auto* part : {&parts.val, &parts.test})
    if (*part && (*part)->has("y"))
      TN_RETURN_IF_ERROR(check_labels((*part)->columns().find("y")->second, stream.outputs));
  return Status::ok();
}

Status check_values(const Dataset& data) {
  const auto it = data.columns().find("x");
  if (it == data.columns().end() || !is_floating(it->second.dtype())) return Status::ok();
  return check_finite(it->second, "x", data.schema.feature_names);
}

int64_t batch_size_of(const Recipe& recipe, const proto::Data& d) {
  return d.has_batch_size() ? d.batch_size() : recipe.proto.train().batch_size();
}

}  // namespace

DatasetPtr DataStream::part(std::string_view split) const {
  return split == "train" ? train : split == "val" ? val : split == "test" ? test : nullptr;
}

Result<DataStream> read_stream(const Recipe& recipe, int index, const std::string& data_root) {
  const proto::Data& d = recipe.proto.data(index);
  const std::string path = path_of(index);
  DataStream stream;
  stream.name = d.name();

  // Transforms first: a mistake in them should not cost the reading of the data.
  bool imputes = false;
  for (int i = 0; i < d.transform_size(); ++i) {
    auto made = make_transform(d.transform(i).id(), to_options(d.transform(i).options()));
    if (!made)
      return std::move(made).status().at(recipe.where(path + ".transform[" + std::to_string(i) + "]"));
    stream.transforms.push_back(std::move(made).value());
    imputes = imputes || d.transform(i).id() == "impute";
  }
  TN_ASSIGN(Parts parts, read_parts(recipe, d, path, data_root));

  Status status = learn_outputs(parts, stream);
  if (!imputes)
    for (const Dataset* part :
         {&parts.train, parts.val ? &*parts.val : nullptr, parts.test ? &*parts.test : nullptr})
      if (part && status) status = check_values(*part);
  if (status && !stream.transforms.empty()) status = fit_all(stream.transforms, parts.train);
  if (status && parts.train.has("tokens")) {
    stream.context = d.context();
    if (!d.has_context()) status = invalid("a token stream needs 'context', the length of a window");
  }
  if (!status) return std::move(status).at(recipe.where(path));

  const auto share = [](Dataset&& data) {
    data.add_ids();
    return std::make_shared<const Dataset>(std::move(data));
  };
  stream.train = share(std::move(parts.train));
  if (parts.val) stream.val = share(std::move(*parts.val));
  if (parts.test) stream.test = share(std::move(*parts.test));
  return stream;
}

Result<std::unique_ptr<Batcher>> train_batcher(const Recipe& recipe, int index, const DataStream& stream,
                                               uint64_t seed) {
  const proto::Data& d = recipe.proto.data(index);
  Result<std::unique_ptr<Batcher>> batcher = [&] {
    if (stream.train->has("tokens")) {
      if (d.has_per_class()) return Result<std::unique_ptr<Batcher>>(invalid("per_class is for rows with class numbers, not for a stream of tokens"));
      if (d.replacement()) return Result<std::unique_ptr<Batcher>>(invalid("replacement is for rows; windows of tokens are drawn anew anyway"));
      WindowBatcherOptions o;
      o.batch_size = batch_size_of(recipe, d);
      o.context = stream.context;
      o.ngram = d.ngram();
      o.random = d.shuffle();
      for (const proto::Draw& draw : d.draw())
        o.draws.push_back({.weight = draw.weight(), .file = draw.has_file() ? draw.file() : -1, .first = draw.first()});
      o.seed = seed;
      return make_window_batcher(stream.train, o);
    }
    if (d.has_ngram() || d.draw_size() > 0)
      return Result<std::unique_ptr<Batcher>>(invalid("ngram and draw are for a stream of tokens, not for rows"));
    RowBatcherOptions o;
    o.batch_size = batch_size_of(recipe, d);
    o.shuffle = d.shuffle();
    o.drop_last = d.drop_last();
    o.per_class = d.per_class();
    o.replacement = d.replacement();
    o.seed = seed;
    o.transforms = stream.transform_list();
    return make_row_batcher(stream.train, std::move(o));
  }();
  if (!batcher) return std::move(batcher).status().at(recipe.where(path_of(index)));
  return batcher;
}

Result<std::unique_ptr<Batcher>> eval_batcher(const Recipe& recipe, int index, const DataStream& stream,
                                              const DatasetPtr& part, int64_t max_batches) {
  const proto::Data& d = recipe.proto.data(index);
  const bool tokens = part->has("tokens");
  const proto::Train& train = recipe.proto.train();
  const int64_t size = train.has_eval_batch_size() ? train.eval_batch_size()
                       : tokens                    ? batch_size_of(recipe, d)
                                                   : std::max<int64_t>(256, batch_size_of(recipe, d));
  // No more than there can be samples, so that the product below does not overflow.
  const int64_t most = max_batches > 0 ? std::min(max_batches, part->size()) : 0;
  Result<std::unique_ptr<Batcher>> batcher = [&] {
    if (tokens) {
      WindowBatcherOptions o;
      o.batch_size = std::min(size, part->size());
      o.context = stream.context;
      o.ngram = d.ngram();
      o.random = false;
      o.max_windows = most * o.batch_size;
      return make_window_batcher(part, o);
    }
    DatasetPtr rows = part;
    RowBatcherOptions o;
    o.batch_size = std::min(size, part->size());
    o.shuffle = false;
    o.training = false;
    o.transforms = stream.transform_list();
    if (const int64_t wanted = most * o.batch_size; most > 0 && wanted < part->size()) {
      std::vector<int64_t> chosen(static_cast<size_t>(wanted));
      const double stride = static_cast<double>(part->size()) / static_cast<double>(wanted);
      for (int64_t i = 0; i < wanted; ++i)
        chosen[static_cast<size_t>(i)] = static_cast<int64_t>(static_cast<double>(i) * stride);
      rows = std::make_shared<const Dataset>(part->take(chosen));
    }
    return make_row_batcher(rows, std::move(o));
  }();
  if (!batcher) return std::move(batcher).status().at(recipe.where(path_of(index)));
  return batcher;
}

}  // namespace tenon
