// Batchers: batch number `step` of a data set, as a pure function, so that resuming at a step is exact and a
// prefetch thread may make batches ahead. The whole state of a batcher is the step: epoch = step /
// steps_per_epoch.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/transform.h"

namespace tenon {

class Batcher {
 public:
  virtual ~Batcher() = default;
  // Batch `step` >= 0: a function of the seed and the step alone; safe from several threads.
  virtual Result<Columns> make(int64_t step) const = 0;
  virtual int64_t steps_per_epoch() const = 0;
  // Samples (rows or windows) of batch `step`: the leading dimension of its columns.
  virtual int64_t batch_rows(int64_t step) const = 0;
  int64_t epoch_of(int64_t step) const { return step / steps_per_epoch(); }
};

struct RowBatcherOptions {
  int64_t batch_size = 32;
  bool shuffle = true;     // a new order each epoch, from (seed, epoch); false: file order
  bool drop_last = false;  // leave out the last, smaller batch of an epoch
  // Not 0: each batch is drawn anew, batch_size / per_class random classes (column y) of so many random rows each; a class
  // with fewer rows gives some of them more than once. An epoch is as many batches as rows fill.
  int64_t per_class = 0;
  bool replacement = false;  // each batch is drawn anew, every row with replacement
  uint64_t seed = 0;
  TransformList transforms{};  // applied to each batch; augmentation key = f(seed, step)
  bool training = true;        // whether training_only transforms apply
};
// Batches of rows: every column of `data`, rows gathered: [B, ...].
// Errors: empty data, batch size < 1, drop_last with fewer rows than a batch; with per_class: no integer column y, a batch
// size that is no multiple of it, more classes in a batch than there are, replacement besides.
Result<std::unique_ptr<Batcher>> make_row_batcher(std::shared_ptr<const Dataset> data,
                                                  RowBatcherOptions options);

// One of the places that random windows are drawn from, with its share of them.
struct Draw {
  double weight = 1;
  int64_t file = -1;  // number of a file; -1: each file alike
  int64_t first = 0;  // only the first so many tokens of the file; 0: all
};
struct WindowBatcherOptions {
  int64_t batch_size = 12;
  int64_t context = 64;  // T
  int64_t ngram = 0;     // > 0: x holds for each token of y the ngram tokens before it
  // true: windows begin at random places, drawn anew for each step (as nanoGPT trains). false: windows side
  // by side from the beginning, each token predicted once, a shorter rest left out; the last batch may be
  // smaller.
  bool random = true;
  std::vector<Draw> draws = {};  // with random; none: everywhere alike
  int64_t max_windows = 0;  // with random false: at most so many, evenly spread, of each file as many; 0 = all
  uint64_t seed = 0;
  std::string column = "tokens";
};
// Windows of a token stream: x = tokens[i : i+T], y = tokens[i+1 : i+T+1], both [B,T]; id = i, i64 [B]. With ngram n:
// x[t] = tokens[i+t : i+t+n], [B,T,n], y = tokens[i+n : i+n+T]. A window lies within one file of the stream.
// An epoch of random windows is as many steps as cover the stream once on average, at least 1.
// Errors: no integer column of rank 1, a file too short for a window, batch size or context < 1, a draw from a file or a
// beginning that can't be, or with random false.
Result<std::unique_ptr<Batcher>> make_window_batcher(std::shared_ptr<const Dataset> data,
                                                     WindowBatcherOptions options);

}  // namespace tenon
