// The balanced assignment of largest value: every token has K different experts, every expert L = T K / E tokens. It is
// the optimum of the linear programme whose dual is min_p max_x Lag(x, p).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

namespace alf {

// scores: [T, E] row-major. Empty where T K is no multiple of E.
//
// Successive shortest paths (Ahuja, Magnanti & Orlin 1993, section 9.7) on the experts: each token begins with its K best,
// then single tokens move along the path of least loss from any overloaded expert to any underloaded one.
inline std::optional<double> balanced_value(const std::vector<double>& scores, int64_t tokens, int64_t experts, int64_t k) {
  if (tokens * k % experts != 0) return std::nullopt;
  const auto n = static_cast<size_t>(experts), rows = static_cast<size_t>(tokens);
  const int64_t share = tokens * k / experts;
  std::vector<char> chosen(rows * n, 0);
  std::vector<int64_t> load(n, 0);
  for (size_t i = 0; i < rows; ++i) {
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[i * n + a] > scores[i * n + b]; });
    for (size_t j = 0; j < static_cast<size_t>(k); ++j) chosen[i * n + order[j]] = 1, ++load[order[j]];
  }
  constexpr double kFar = std::numeric_limits<double>::infinity();
  struct Move {
    double loss = kFar;  // of the cheapest token that moves from one expert to another
    size_t token = 0;
  };
  std::vector<Move> moves(n * n);
  while (std::any_of(load.begin(), load.end(), [&](int64_t a) { return a > share; })) {
    std::fill(moves.begin(), moves.end(), Move{});
    for (size_t i = 0; i < rows; ++i)
      for (size_t a = 0; a < n; ++a)
        for (size_t b = 0; chosen[i * n + a] && b < n; ++b)
          if (const double loss = scores[i * n + a] - scores[i * n + b]; !chosen[i * n + b] && loss < moves[a * n + b].loss) moves[a * n + b] = {loss, i};
    // Bellman-Ford from all overloaded experts at once.
    std::vector<double> distance(n);
    std::vector<size_t> before(n, n);
    for (size_t a = 0; a < n; ++a) distance[a] = load[a] > share ? 0 : kFar;
    for (size_t round = 1; round < n; ++round)
      for (size_t a = 0; a < n; ++a)
        for (size_t b = 0; b < n; ++b)
          if (distance[a] + moves[a * n + b].loss < distance[b] - 1e-15) distance[b] = distance[a] + moves[a * n + b].loss, before[b] = a;
    size_t end = n;
    for (size_t b = 0; b < n; ++b)
      if (load[b] < share && (end == n || distance[b] < distance[end])) end = b;
    ++load[end];
    size_t b = end;
    for (; before[b] != n; b = before[b]) {
      const size_t i = moves[before[b] * n + b].token;
      chosen[i * n + before[b]] = 0, chosen[i * n + b] = 1;
    }
    --load[b];
  }
  double value = 0;
  for (size_t j = 0; j < scores.size(); ++j) value += chosen[j] ? scores[j] : 0;
  return value;
}

}  // namespace alf
