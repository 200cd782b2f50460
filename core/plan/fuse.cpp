// Fusion: element-wise nodes over one iteration shape, and folds along its rows, become a cluster, which a
// backend compiles as one tile program.
//
// A first walk adds each node to the clusters that feed it. A cluster runs where its last member stood; that
// is right as long as nothing outside it has already consumed one of its values, so the first outside
// consumer seals a cluster. A second walk joins whole clusters where one reads the other and no path leads
// out of the first and back into the second: a loss and its derivative, between which only the mean over the
// batch had stood. At last, what has one element a row and need not be computed row by row leaves again.
#include <algorithm>
#include <set>

#include "core/plan/program.h"

namespace tenon {
namespace {

struct Cluster {
  Shape full;  // what is iterated over; where rows are worth it, members may also have one element a row
  std::vector<int> nodes;
  std::set<int> inputs;  // values that come from outside
  bool sealed = false;
  int merged_into = -1;
};

// Rows worth folding inside a piece: long enough for a call each, and together more than the nearest cache
// holds.
constexpr int64_t kMinRow = 128, kMaxRow = 16384, kMinElements = 32768;
bool has_rows(const Shape& full) {
  return full.rank() > 0 && full.back() >= kMinRow && full.back() <= kMaxRow && full.numel() >= kMinElements;
}
// One element a row of `full`: its shape without the last axis, or with size 1 there.
bool is_row_shape(const Shape& s, const Shape& full) {
  const int lead = full.rank() - 1;
  if (!has_rows(full) || (s.rank() != lead && !(s.rank() == lead + 1 && s[lead] == 1))) return false;
  return std::equal(s.begin(), s.begin() + lead, full.begin());
}

class Fuser {
 public:
  Fuser(Program& p, const Backend& backend, bool rows, bool joins)
      : p_(p), backend_(backend), rows_(rows), joins_(joins) {}

  void run() {
    adopt();
    for (size_t i = 0; i < p_.nodes.size(); ++i) {
      if (p_.nodes[i].dead) continue;
      if (p_.nodes[i].cluster < 0)
        place(static_cast<int>(i));
      else
        seal_sources(p_.nodes[i], p_.nodes[i].cluster);
    }
    for (size_t b = 0; b < clusters_.size(); ++b) join_with_sources(static_cast<int>(b));
    for (size_t c = 0, n = clusters_.size(); c < n; ++c)
      if (resolve(static_cast<int>(c)) == static_cast<int>(c)) release_rows(static_cast<int>(c));
    for (Program::Node& n : p_.nodes) n.cluster = resolve(n.cluster);
    if (joins_) absorb_joins();
  }

 private:
  enum class Role : uint8_t { none, full, row, fold };

  size_t at(int i) const { return static_cast<size_t>(i); }
  Program::Node& node(int i) { return p_.nodes[at(i)]; }
  const Program::Node& node(int i) const { return p_.nodes[at(i)]; }
  const TensorType& type(int v) const { return p_.values[at(v)].type; }
  const TensorType& result(const Program::Node& n) const { return type(n.out[0]); }
  int resolve(int c) const {
    while (c >= 0 && clusters_[at(c)].merged_into >= 0) c = clusters_[at(c)].merged_into;
    return c;
  }
  Cluster& cluster(int c) { return clusters_[at(c)]; }
  // The cluster that computes a value; -1: none.
  int home_of(int v) const {
    const Program::Value& x = p_.values[at(v)];
    return x.kind == Program::Kind::computed ? resolve(node(x.producer).cluster) : -1;
  }
  // The value that v is, seen through ops that only give it another shape.
  int root(int v) const {
    while (p_.is_row_view(v)) v = node(p_.values[at(v)].producer).in[0];
    return v;
  }

  bool fuses(const Program::Node& n) const {
    if (n.out.size() != 1 || !backend_.fuses(n.op->id, result(n).dtype)) return false;
    return std::all_of(n.in.begin(), n.in.end(),
                       [&](int v) { return backend_.fuses(n.op->id, type(v).dtype); });
  }
  // The only reduced axis is the last, and rows are worth it.
  bool folds_rows(const Program::Node& n) const {
    if (n.op->elementwise || n.in.empty() || !is_floating(type(n.in[0]).dtype)) return false;
    const Shape& from = type(n.in[0]).shape;
    const int64_t last = from.rank() - 1;
    if (!rows_ || !has_rows(from)) return false;
    if (n.op->id == "take_along_axis/1") {
      const int64_t axis = n.attrs().i("axis");
      return (axis == -1 || axis == last) && type(n.in[1]).shape.rank() == from.rank() &&
             type(n.in[1]).shape.back() == 1 && n.out.size() == 1 &&
             backend_.fuses(n.op->id, type(n.in[0]).dtype);
    }
    if (n.op->attrs.empty() || n.op->attrs[0].name != "axes" || n.op->attrs[0].kind != AttrKind::ints)
      return false;
    const auto axes = n.attrs().ints("axes");
    const bool over_last = axes.empty() ? last == 0 : axes.size() == 1 && (axes[0] == -1 || axes[0] == last);
    return over_last && fuses(n);
  }

  Role role(const Program::Node& n, const Cluster& k) const {
    if (n.op->elementwise) {
      if (!fuses(n)) return Role::none;
      if (result(n).shape == k.full) return Role::full;
      return is_row_shape(result(n).shape, k.full) ? Role::row : Role::none;
    }
    return folds_rows(n) && type(n.in[0]).shape == k.full ? Role::fold : Role::none;
  }

  // Whether n, in this role, can read v, whose root the cluster computes.
  bool readable(const Program::Node& n, Role r, int v, const Cluster& k) const {
    if (!p_.is_row_view(v)) {
      const Shape& s = type(v).shape;
      if (r == Role::fold) return s == k.full && v == n.in[0];
      if (r == Role::row) return s == result(n).shape;
      return s == k.full || (s.rank() == k.full.rank() && is_row_shape(s, k.full));
    }
    if (r == Role::fold) return false;
    for (int w = v;; w = node(p_.values[at(w)].producer).in[0]) {
      const Shape& s = type(w).shape;
      const bool row = is_row_shape(s, k.full), full = r == Role::full && w == v && s == k.full;
      if (!row && !full) return false;
      if (w == v && (r == Role::row ? s != result(n).shape : s.rank() != k.full.rank())) return false;
      if (!p_.is_row_view(w)) return true;
    }
  }
  bool reads_all(const Program::Node& n, Role r, const std::vector<int>& sources, const Cluster& k) const {
    return std::all_of(n.in.begin(), n.in.end(), [&](int v) {
      const int c = home_of(root(v));
      return !std::count(sources.begin(), sources.end(), c) || c < 0 || readable(n, r, v, k);
    });
  }

  std::set<int> inputs_of(const Program::Node& n, const std::vector<int>& inside) const {
    std::set<int> inputs;
    for (int v : n.in) {
      const int c = home_of(root(v));
      if (c < 0 || !std::count(inside.begin(), inside.end(), c)) inputs.insert(v);
    }
    return inputs;
  }
  static bool fits(size_t nodes, const std::set<int>& inputs) {
    return nodes <= kMaxPieceNodes && inputs.size() <= kMaxPieceInputs;
  }

  // Clusters that an earlier pass made stay as they are: nothing has a shape that would join them.
  void adopt() {
    for (size_t i = 0; i < p_.nodes.size(); ++i) {
      const int c = p_.nodes[i].cluster;
      if (c < 0) continue;
      while (clusters_.size() <= at(c))
        clusters_.push_back({.full = Shape{-1}, .nodes = {}, .inputs = {}, .sealed = true});
      cluster(c).nodes.push_back(static_cast<int>(i));
    }
  }

  // Adds a node to the clusters that feed it, merging them in turn while the piece stays within what a tile
  // program holds.
  void place(int i) {
    Program::Node& n = node(i);
    std::vector<int> sources;
    for (int v : n.in) {
      const int c = home_of(root(v));
      if (c >= 0 && !std::count(sources.begin(), sources.end(), c)) sources.push_back(c);
    }
    int home = -1;
    for (int c : sources) {
      Cluster& k = cluster(c);
      const Role r = k.sealed ? Role::none : role(n, k);
      if (r == Role::none || (home >= 0 && (k.full != cluster(home).full))) continue;
      std::vector<int> inside{c};
      if (home >= 0) inside.push_back(home);
      if (!reads_all(n, r, inside, k)) continue;
      std::set<int> inputs = inputs_of(n, inside);
      inputs.insert(k.inputs.begin(), k.inputs.end());
      size_t nodes = k.nodes.size() + 1;
      if (home >= 0) {
        inputs.insert(cluster(home).inputs.begin(), cluster(home).inputs.end());
        nodes += cluster(home).nodes.size();
      }
      if (!fits(nodes, inputs)) continue;
      if (home < 0)
        home = c;
      else
        merge(c, home);
    }
    seal_sources(n, home);
    if (home < 0) {
      const bool fold = !n.op->elementwise && folds_rows(n);
      if (!fold && !(n.op->elementwise && fuses(n))) return;
      home = static_cast<int>(clusters_.size());
      clusters_.push_back({.full = fold ? type(n.in[0]).shape : result(n).shape, .nodes = {}, .inputs = {}});
    }
    cluster(home).inputs.merge(inputs_of(n, {home}));
    cluster(home).nodes.push_back(i);
    n.cluster = home;
  }

  // What n reads of clusters other than its own can't move past it any more. A view reads for those that read
  // it.
  void seal_sources(const Program::Node& n, int home) {
    if (p_.is_row_view(n.out[0])) return;
    for (int v : n.in) {
      const int c = home_of(root(v));
      if (c >= 0 && c != home) cluster(c).sealed = true;
    }
  }

  void merge(int from, int into) {
    Cluster &a = cluster(into), &b = cluster(from);
    a.nodes.insert(a.nodes.end(), b.nodes.begin(), b.nodes.end());
    std::sort(a.nodes.begin(), a.nodes.end());
    a.inputs.merge(b.inputs);
    b.merged_into = into;
  }

  // The second walk: cluster b and those it reads.
  void join_with_sources(int b) {
    for (bool changed = true; changed && resolve(b) == b;) {
      changed = false;
      std::set<int> sources;
      for (int v : cluster(b).inputs)
        if (const int a = home_of(root(v)); a >= 0 && a != b) sources.insert(a);
      for (int a : sources)
        if (can_join(a, b)) {
          if (is_row_shape(cluster(b).full, cluster(a).full)) cluster(b).full = cluster(a).full;
          merge(a, b);
          std::erase_if(cluster(b).inputs, [&](int v) { return home_of(root(v)) == b; });
          changed = true;
          break;
        }
    }
  }
  bool can_join(int a, int b) {
    const Cluster &first = cluster(a), &second = cluster(b);
    const bool to_rows = is_row_shape(first.full, second.full),
               from_rows = is_row_shape(second.full, first.full);
    if (first.full != second.full && !to_rows && !from_rows) return false;
    Cluster both{.full = from_rows ? first.full : second.full, .nodes = {}, .inputs = {}};
    std::set<int> inputs = first.inputs;
    for (int v : second.inputs)
      if (home_of(root(v)) != a) inputs.insert(v);
    if (!fits(first.nodes.size() + second.nodes.size(), inputs)) return false;
    const std::vector<int> inside{a, b};
    for (const auto* nodes : {&first.nodes, &second.nodes})
      for (int i : *nodes) {
        const Role r = role(node(i), both);
        if (r == Role::none || !reads_all(node(i), r, inside, both)) return false;
      }
    return !leaves_and_returns(a, b);
  }

  // Whether a value of cluster a reaches b through a node outside both. Whoever waits for one node of a
  // cluster waits for all of it, so the order of the nodes says nothing here.
  bool leaves_and_returns(int a, int b) const {
    std::vector<uint8_t> seen(p_.nodes.size(), 0);
    std::vector<int> open;
    const auto visit = [&](int v) {
      const Program::Value& x = p_.values[at(v)];
      if (x.kind == Program::Kind::computed && !seen[at(x.producer)])
        seen[at(x.producer)] = 1, open.push_back(x.producer);
    };
    for (int i : clusters_[at(b)].nodes)
      for (int v : node(i).in)
        if (const int c = home_of(root(v)); c != a && c != b) visit(v);
    while (!open.empty()) {
      const int i = open.back();
      open.pop_back();
      const int c = resolve(node(i).cluster);
      if (c == a) return true;
      if (c == b) continue;
      if (c < 0) {
        for (int v : node(i).in) visit(v);
        continue;
      }
      for (int m : clusters_[at(c)].nodes) {
        seen[at(m)] = 1;
        for (int v : node(m).in) visit(v);
      }
    }
    return false;
  }

  // Members of one element a row that no fold comes before, or that nothing but their like comes after, are
  // cheaper in a cluster of their own, many rows to a vector.
  void release_rows(int c) {
    if (!has_rows(cluster(c).full)) return;
    for (const bool before : {true, false}) {
      std::vector<int> nodes = cluster(c).nodes, leaving;
      if (!before) std::reverse(nodes.begin(), nodes.end());
      for (int i : nodes) {
        const Program::Node& n = node(i);
        const bool row = n.op->elementwise && result(n).shape != cluster(c).full;
        if (row && (leaving.empty() || result(n).shape == result(node(leaving[0])).shape) &&
            (before ? follows(n, c, leaving) : precedes(i, c, leaving)))
          leaving.push_back(i);
      }
      if (leaving.empty() || leaving.size() == nodes.size()) continue;
      std::sort(leaving.begin(), leaving.end());
      const int own = static_cast<int>(clusters_.size());
      clusters_.push_back({.full = result(node(leaving[0])).shape, .nodes = leaving, .inputs = {}});
      for (int i : leaving) node(i).cluster = own;
      std::erase_if(cluster(c).nodes, [&](int i) { return node(i).cluster == own; });
    }
  }
  // Whether all that n reads of cluster c is computed by `leaving`, and read as it is.
  bool follows(const Program::Node& n, int c, const std::vector<int>& leaving) const {
    return std::all_of(n.in.begin(), n.in.end(), [&](int v) {
      if (home_of(root(v)) != c) return true;
      return root(v) == v && std::count(leaving.begin(), leaving.end(), p_.values[at(v)].producer);
    });
  }
  // Whether all of cluster c that reads node i is among `leaving`, and reads it as it is.
  bool precedes(int i, int c, const std::vector<int>& leaving) const {
    const int out = node(i).out[0];
    return std::all_of(clusters_[at(c)].nodes.begin(), clusters_[at(c)].nodes.end(), [&](int m) {
      return std::all_of(node(m).in.begin(), node(m).in.end(), [&](int v) {
        return root(v) != out || (v == out && std::count(leaving.begin(), leaving.end(), m));
      });
    });
  }

  // Vectors joined for one cluster alone are read by it part by part.
  void absorb_joins() {
    std::vector<int> user(p_.nodes.size(),
                          -2);  // cluster of the users; -1: several, or none that reads it so
    const auto read = [&](int v, int by) {
      const Program::Value& x = p_.values[at(v)];
      if (x.kind != Program::Kind::computed) return;
      int& u = user[at(x.producer)];
      u = u == -2 || u == by ? by : -1;
    };
    for (const Program::Node& n : p_.nodes)
      for (int v : n.in)
        if (!n.dead) read(v, n.cluster);
    for (int v : p_.roots) read(v, -1);
    for (int v : p_.updates) read(v, -1);
    for (size_t i = 0; i < p_.nodes.size(); ++i) {
      Program::Node& n = p_.nodes[i];
      if (n.dead || n.op->id != "concat/1" || user[i] < 0 || result(n).shape.rank() != 1 || !fuses(n))
        continue;
      const Cluster& k = clusters_[at(user[i])];
      const bool apart =
          std::all_of(n.in.begin(), n.in.end(), [&](int v) { return home_of(root(v)) != user[i]; });
      if (apart && k.full == result(n).shape) n.cluster = user[i];
    }
  }

  Program& p_;
  const Backend& backend_;
  const bool rows_, joins_;
  std::vector<Cluster> clusters_;
};

}  // namespace

void fuse(Program& p, const Backend& backend, bool rows, bool joins) { Fuser(p, backend, rows, joins).run(); }

}  // namespace tenon
