#include "core/data/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

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

// Holds out `count` rows so that each class has its share: the floor of it, then the largest remainders.
Result<std::vector<int64_t>> stratified(const Dataset& data, const std::string& label, int64_t count,
                                        Philox& random) {
  TN_ASSIGN(const HostArray* y, data.column(label));
  if (!is_integer(y->dtype()) || y->numel() != data.size())
    return invalid("a stratified split needs integer labels, column '" + label + "' is " +
                   std::string(name_of(y->dtype())) + to_string(y->shape()));
  std::map<int64_t, std::vector<int64_t>> rows;
  for (int64_t i = 0; i < data.size(); ++i) rows[static_cast<int64_t>(y->at(i))].push_back(i);
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
  TN_RETURN_IF_ERROR(check_choice("how", o.how, {"random", "stratified", "first", "last"}));
  const int64_t n = std::max<int64_t>(data.size(), 0);
  if ((o.fraction != 0) == (o.count != 0)) return invalid("a split needs either a fraction or a count");
  if (o.count == 0 && !(o.fraction > 0 && o.fraction < 1))
    return invalid("the split fraction is " + std::to_string(o.fraction) + ", must be between 0 and 1");
  const int64_t count = o.count ? o.count : std::llround(o.fraction * static_cast<double>(n));
  if (count < 1 || count >= n)
    return invalid("a split of " + std::to_string(n) + " rows that holds out " + std::to_string(count) +
                   " leaves one part empty; change the fraction or count");
  std::vector<int64_t> held(static_cast<size_t>(count));
  Philox random(o.seed, "split");
  if (o.how == "first") {
    std::iota(held.begin(), held.end(), int64_t{0});
  } else if (o.how == "last") {
    std::iota(held.begin(), held.end(), n - count);
  } else if (o.how == "random") {
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
