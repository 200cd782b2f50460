// Readers: files in, a Dataset out. A new format is one file that defines a Format, and one line in
// readers.cpp.
//
// Every reader has a typed struct of options (for C++) and a Format (for recipes: options by name, same names
// as the fields). `like` is the schema of the training part, or null: categories, class names, vocabulary,
// fill values and feature count are then taken from it, not learned anew, so that all parts agree. Every data
// set gets a column "id" with the row number (over all files, in order).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/options.h"

namespace tenon {

struct Format {
  std::string_view id;
  std::string_view summary;
  // files: paths as find_data gives them.
  Result<Dataset> (*read)(const std::vector<std::string>& files, const Options& options, const Schema* like);
};

std::span<const Format* const> formats();
// Error: no such format, with the nearest name.
Result<const Format*> find_format(std::string_view id);

// find_format + find_data for each file + read, in one call.
struct DataSource {
  std::string format;
  std::vector<std::string> files;  // names, looked up as find_data says
  Options options;
  std::string origin;      // where the set is published, for the message when it is missing
  std::string recipe_dir;  // may be ""
  std::string data_root;   // may be ""; see data_root_from_environment
};
Result<Dataset> read_dataset(const DataSource& source, const Schema* like = nullptr);

// "idx": MNIST's format. files = [images] or [images, labels].
// x: element type and shape of the file ([N, ...]; s8, i16 become i32), y: i32 [N].
struct IdxOptions {
  bool channel = false;  // insert an axis of size 1: [N,28,28] -> [N,1,28,28]
  int64_t skip = 0;      // leave out the first so many
  int64_t first = 0;     // only the first so many (of those that are left); 0: all
};
Result<Dataset> read_idx(const std::vector<std::string>& files, const IdxOptions& options);

// "csv": tables of numbers and categories. Also TSV: delimiter "\t" (or "tab"), quote "".
// Values are trimmed of spaces. Missing: empty, ?, NA, N/A, NaN, null (also lower case).
// x: numeric columns and one-hot categories in file order [N,F]; y: i32 [N] or, for numbers, f32 [N].
struct CsvOptions {
  std::string delimiter = ",";
  bool header = true;                      // first line = column names; otherwise they are c0, c1, ..
  std::string quote = "\"";                // "" for none
  std::string target{};                    // "" = the last column
  std::string target_kind = "class";       // class | number | none (no target: all columns are features)
  bool target_optional = false;            // no error when the file has no target column (prediction)
  std::vector<std::string> drop{};         // columns left out
  std::vector<std::string> keep{};         // numeric columns given as columns of their own [N], not in x
  std::vector<std::string> text{};         // string columns: bytes as i32 [N,L], and "<name>_length" i32 [N]
  int64_t text_length = 0;                 // L; longer strings are cut; 0 = the longest
  std::vector<std::string> categorical{};  // columns of categories (values are compared as text, sorted)
  bool auto_categorical = false;           // every column with a value that is not a number is one
  std::string encoding = "onehot";         // onehot (into x) | codes (column "x_cat" i32 [N,K])
  std::string unknown_category = "error";  // with `like`: error | zeros (one-hot only)
  // error | drop (the row) | keep (NaN; a category of its own, "?") | mean | median | mode.
  // mean and median fill numbers; categories take the mode. Fill values come from this file, or from `like`.
  // To fill from the training rows of one file that is split later: keep, and the transform `impute`. A
  // missing target is an error, or the row is dropped with `drop`.
  std::string missing = "error";
  std::string dtype = "f32";  // f32 | f64: of x and a numeric y
};
Result<Dataset> read_csv(const std::vector<std::string>& files, const CsvOptions& options,
                         const Schema* like);

// "libsvm": "label index:value ..." lines, comments after #. x: dense f32 [N,F]; y as in CSV.
struct LibsvmOptions {
  int64_t features = 0;               // F; 0 = the largest index seen
  bool zero_based = false;            // indices from 0
  std::string target_kind = "class";  // class | number
  std::string dtype = "f32";
};
Result<Dataset> read_libsvm(const std::vector<std::string>& files, const LibsvmOptions& options,
                            const Schema* like);

// "cifar": records of label_bytes bytes (the last one is the label), then 1024 R, 1024 G, 1024 B.
// x: u8 [N,3,32,32]; y: i32 [N].
struct CifarOptions {
  int64_t label_bytes = 1;  // 2 for CIFAR-100 (coarse, fine)
  int64_t classes = 10;     // labels must be below
};
Result<Dataset> read_cifar(const std::vector<std::string>& files, const CifarOptions& options);

// "words": runs of the letters a-z, lower-case. x: i32 [N,context], the words before; y: i32 [N], a word of the vocabulary.
// 0 in x stands for all other words; positions where one of them follows are left out.
struct WordOptions {
  int64_t context = 4;
  int64_t vocabulary = 2000;  // classes: the most frequent words of the training files, and 0
};
Result<Dataset> read_words(const std::vector<std::string>& files, const WordOptions& options, const Schema* like);

// "text": one token stream. tokens: i32 [N], files one after another; of several files also file: i32 [N], the number
// of each token's file.
struct TextOptions {
  std::string level = "chars";       // chars (Unicode code points, sorted) | bytes (0..255)
  double vocabulary_fraction = 1.0;  // chars: the vocabulary is built from this first part of the text
  int64_t vocabulary_size = 0;       // chars: only the most frequent; all others are one more token, U+FFFD. 0: all
  int64_t max_bytes = 0;             // of each file only the first, up to the last whole character. 0: all
};
Result<Dataset> read_text(const std::vector<std::string>& files, const TextOptions& options,
                          const Schema* like);
// Text to tokens and back with a schema's vocabulary. Error: a character that the vocabulary lacks, with its
// byte offset.
Result<std::vector<int32_t>> encode_text(const Schema& schema, std::string_view text);
std::string decode_text(const Schema& schema, std::span<const int32_t> tokens);

// "jsonl": one JSON object a line. Each selected field becomes a column; write "name=field" to name it
// otherwise, and "a.b" for field b of object a.
struct JsonlOptions {
  std::vector<std::string> numbers{};   // numbers or (nested) arrays of them, all of one shape: f32 [N, ...]
  std::vector<std::string> integers{};  // the same, i32
  std::vector<std::string> text{};      // strings: bytes as i32 [N,L], and "<name>_length" i32 [N]
  std::string label{};                  // a string or whole number: class column "y" i32 [N]
  int64_t text_length = 0;              // L; longer strings are cut; 0 = the longest
};
Result<Dataset> read_jsonl(const std::vector<std::string>& files, const JsonlOptions& options,
                           const Schema* like);

// "synthetic": made, not read (files = []); for tests and first steps.
//   linear  x ~ N(0,1) [N,F], y = x w + 1 + noise N(0,1), w ~ N(0,1)     f32 [N]
//   blobs   class centres ~ N(0, 3^2), x = centre + noise N(0,1)         y i32
//   moons   two interleaved half circles in the plane + noise N(0,1)     y i32
//   xor     x uniform in [-1,1]^2 + noise, y = sign(x0 x1) < 0           y i32
//   images  u8 [N,channels,size,size]: a bright patch on noise, its place says the class
//   tokens  tokens i32 [N] uniform below `classes`, each repeating its predecessor + 1 with probability 1 -
//   noise
struct SyntheticOptions {
  std::string kind = "blobs";
  int64_t n = 256, features = 4, classes = 3, channels = 1, size = 8;
  double noise = 0.1;
  int64_t seed = 0;
  int64_t part =
      0;  // another part of the same problem (same centres, same w, other samples): 0 train, 1 test, ..
};
Result<Dataset> make_synthetic(const SyntheticOptions& options);

}  // namespace tenon
