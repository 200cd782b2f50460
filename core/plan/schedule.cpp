// Schedule: the order in which pieces run. A piece stands where its last node stood in the graph, unless it
// reads what only comes later; that keeps the lives of values as short as the graph's own order does.
#include <algorithm>
#include <map>
#include <queue>

#include "core/plan/program.h"

namespace tenon {
namespace {

class Scheduler {
 public:
  explicit Scheduler(const Program& p) : p_(p) {}

  Result<std::vector<std::vector<int>>> run() {
    collect();
    connect();
    // Ready pieces by the place of their last node.
    std::priority_queue<std::pair<int, int>, std::vector<std::pair<int, int>>, std::greater<>> ready;
    std::vector<int> waiting(pieces_.size(), 0);
    for (size_t k = 0; k < pieces_.size(); ++k)
      for (int user : users_[k]) ++waiting[static_cast<size_t>(user)];
    const auto push = [&](int k) { ready.push({pieces_[static_cast<size_t>(k)].back(), k}); };
    for (size_t k = 0; k < pieces_.size(); ++k)
      if (waiting[k] == 0) push(static_cast<int>(k));
    std::vector<std::vector<int>> order;
    while (!ready.empty()) {
      const auto k = static_cast<size_t>(ready.top().second);
      ready.pop();
      order.push_back(pieces_[k]);
      for (int user : users_[k])
        if (--waiting[static_cast<size_t>(user)] == 0) push(user);
    }
    if (order.size() != pieces_.size())
      return internal_error("planner: pieces of the graph wait for each other");
    return order;
  }

 private:
  // Views that only nodes of their value's own cluster read are parts of that piece.
  std::vector<uint8_t> views_inside() const {
    std::vector<uint8_t> outside(p_.values.size(), 0);  // read by something else
    for (int v : p_.roots) outside[static_cast<size_t>(v)] = 1;
    for (int v : p_.updates) outside[static_cast<size_t>(v)] = 1;
    std::vector<uint8_t> inside(p_.nodes.size(), 0);
    for (size_t i = p_.nodes.size(); i-- > 0;) {
      const Program::Node& n = p_.nodes[i];
      if (n.dead) continue;
      const bool view = p_.is_row_view(n.out[0]);
      inside[i] = view && !outside[static_cast<size_t>(n.out[0])];
      if (inside[i]) continue;
      for (int v : n.in)
        if (!p_.reads_inside(n, v)) outside[static_cast<size_t>(v)] = 1;
    }
    return inside;
  }

  void collect() {
    const std::vector<uint8_t> skipped = views_inside();
    std::map<int, int> piece_of_cluster;
    piece_of_.assign(p_.nodes.size(), -1);
    for (size_t i = 0; i < p_.nodes.size(); ++i) {
      const Program::Node& n = p_.nodes[i];
      if (n.dead || skipped[i]) continue;
      int k = static_cast<int>(pieces_.size());
      if (n.cluster >= 0) k = piece_of_cluster.try_emplace(n.cluster, k).first->second;
      if (k == static_cast<int>(pieces_.size())) pieces_.emplace_back();
      pieces_[static_cast<size_t>(k)].push_back(static_cast<int>(i));
      piece_of_[i] = k;
    }
  }

  void connect() {
    users_.resize(pieces_.size());
    for (size_t k = 0; k < pieces_.size(); ++k)
      for (int i : pieces_[k]) {
        const Program::Node& n = p_.nodes[static_cast<size_t>(i)];
        for (int v : n.in) {
          const Program::Value& x = p_.values[static_cast<size_t>(v)];
          if (x.kind != Program::Kind::computed || p_.reads_inside(n, v)) continue;
          const int from = piece_of_[static_cast<size_t>(x.producer)];
          if (from != static_cast<int>(k)) users_[static_cast<size_t>(from)].push_back(static_cast<int>(k));
        }
      }
    for (std::vector<int>& u : users_) {
      std::sort(u.begin(), u.end());
      u.erase(std::unique(u.begin(), u.end()), u.end());
    }
  }

  const Program& p_;
  std::vector<std::vector<int>> pieces_;  // nodes, ascending
  std::vector<int> piece_of_;             // by node; -1: none
  std::vector<std::vector<int>> users_;   // pieces that read a piece's values
};

}  // namespace

Result<std::vector<std::vector<int>>> schedule(const Program& p) { return Scheduler(p).run(); }

}  // namespace tenon
