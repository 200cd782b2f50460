#include "core/data/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <regex>

#include "core/base/random.h"
#include "core/data/options.h"

namespace tenon {
namespace {

SplitRows partition(int64_t n, std::vector<int64_t> held) {
  std::sort(held.begin(), held.end());
  SplitRows out;
  size_t at = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (at < held.size() && held[at] == i)
      ++at;
    else
      out.rest.push_back(i);
  }
  out.held = std::move(held);
  return out;
}

// The rows of each class, in order.
Result<std::map<int64_t, std::vector<int64_t>>> rows_by_class(const Dataset& data, const std::string& label) {
  TN_ASSIGN(const HostArray* y, data.column(label));
  if (!is_integer(y->dtype()) || y->numel() != data.size())
    return invalid("a stratified split needs integer labels, column '" + label + "' is " +
                   std::string(name_of(y->dtype())) + to_string(y->shape()));
  std::map<int64_t, std::vector<int64_t>> rows;
  for (int64_t i = 0; i < data.size(); ++i) rows[static_cast<int64_t>(y->at(i))].push_back(i);
  return rows;
}

struct Fold {
  int64_t number = 1, of = 2;  // 1 <= number <= of
};
std::optional<Fold> parse_fold(const std::string& how) {
  static const std::regex form("fold ([1-9][0-9]{0,8}) of ([1-9][0-9]{0,8})");
  std::smatch m;
  if (!std::regex_match(how, m, form)) return std::nullopt;
  const Fold fold{std::stoll(m[1]), std::stoll(m[2])};
  if (fold.number > fold.of || fold.of < 2) return std::nullopt;
  return fold;
}

// Row j of its class, in order, is held out in fold j mod n + 1: the folds of a cross-validation are the same everywhere.
Result<std::vector<int64_t>> fold_rows(const Dataset& data, const std::string& label, const Fold& fold) {
  TN_ASSIGN(const auto classes, rows_by_class(data, label));
  std::vector<int64_t> held;
  for (const auto& [c, rows] : classes)
    for (auto j = static_cast<size_t>(fold.number - 1); j < rows.size(); j += static_cast<size_t>(fold.of)) held.push_back(rows[j]);
  if (held.empty() || static_cast<int64_t>(held.size()) == data.size())
    return invalid("fold " + std::to_string(fold.number) + " of " + std::to_string(fold.of) + " of " +
                   std::to_string(data.size()) + " rows leaves one part empty");
  return held;
}

// Holds out `count` rows so that each class has its share: the floor of it, then the largest remainders.
Result<std::vector<int64_t>> stratified(const Dataset& data, const std::string& label, int64_t count,
                                        Philox& random) {
  TN_ASSIGN(auto rows, rows_by_class(data, label));
  struct Share {
    std::vector<int64_t>* rows;
    int64_t take;
    double remainder;
  };
  std::vector<Share> shares;
  int64_t left = count;
  for (auto& [c, r] : rows) {
    random.shuffle(std::span<int64_t>(r));
    const double exact =
        static_cast<double>(count) * static_cast<double>(r.size()) / static_cast<double>(data.size());
    const double whole = std::floor(exact);
    shares.push_back({&r, static_cast<int64_t>(whole), exact - whole});
    left -= shares.back().take;
  }
  std::stable_sort(shares.begin(), shares.end(), [](auto& a, auto& b) { return a.remainder > b.remainder; });
  std::vector<int64_t> held;
  for (Share& s : shares) {
    if (left > 0 && s.take < static_cast<int64_t>(s.rows->size())) {
      ++s.take;
      --left;
    }
    held.insert(held.end(), s.rows->begin(), s.rows->begin() + s.take);
  }
  return held;
}

}  // namespace

Result<SplitRows> split_rows(const Dataset& data, const SplitOptions& o) {
  if (const auto fold = parse_fold(o.how)) {
    if (o.fraction != 0 || o.count != 0) return invalid("a split in folds takes neither a fraction nor a count");
    TN_ASSIGN(auto held, fold_rows(data, o.label, *fold));
    return partition(std::max<int64_t>(data.size(), 0), std::move(held));
  }
  TN_RETURN_IF_ERROR(check_choice("how", o.how, {"random", "stratified", "first", "last", "fold 1 of 5"}));
  const int64_t n = std::max<int64_t>(data.size(), 0);
  if ((o.fraction != 0) == (o.count != 0)) return invalid("a split needs either a fraction or a count");
  if (o.count == 0 && !(o.fraction > 0 && o.fraction < 1))
    return invalid("the split fraction is " + std::to_string(o.fraction) + ", must be between 0 and 1");
  const auto share = [&](int64_t rows) { return o.count ? o.count : std::llround(o.fraction * static_cast<double>(rows)); };
  const auto leaves_nothing = [](int64_t rows, int64_t taken) {
    return invalid("a split of " + std::to_string(rows) + " rows that holds out " + std::to_string(taken) +
                   " leaves one part empty; change the fraction or count");
  };
  std::vector<int64_t> held;
  if (o.how == "first" || o.how == "last") {
    for (const auto& [begin, end] : file_ranges(data)) {
      const int64_t taken = share(end - begin);
      if (taken < 1 || taken >= end - begin) return leaves_nothing(end - begin, taken);
      const int64_t from = o.how == "first" ? begin : end - taken;
      for (int64_t i = from; i < from + taken; ++i) held.push_back(i);
    }
    return partition(n, std::move(held));
  }
  const int64_t count = share(n);
  if (count < 1 || count >= n) return leaves_nothing(n, count);
  Philox random(o.seed, "split");
  if (o.how == "random") {
    held = random.permutation(n);
    held.resize(static_cast<size_t>(count));
  } else {
    TN_ASSIGN(held, stratified(data, o.label, count, random));
  }
  return partition(n, std::move(held));
}

Result<SplitRows> k_fold(const Dataset& data, int64_t k, int64_t fold, uint64_t seed) {
  const int64_t n = std::max<int64_t>(data.size(), 0);
  if (k < 2 || k > n)
    return invalid("k-fold over " + std::to_string(n) + " rows needs k in 2.." + std::to_string(n));
  if (fold < 0 || fold >= k)
    return invalid("fold " + std::to_string(fold) + " is not in 0.." + std::to_string(k - 1));
  const std::vector<int64_t> order = Philox(seed, "k-fold").permutation(n);
  std::vector<int64_t> held;
  for (int64_t i = fold; i < n; i += k) held.push_back(order[static_cast<size_t>(i)]);
  return partition(n, std::move(held));
}

Result<SplitData> split(const Dataset& data, const SplitOptions& options) {
  TN_ASSIGN(const SplitRows rows, split_rows(data, options));
  return SplitData{data.take(rows.rest), data.take(rows.held)};
}

}  // namespace tenon
