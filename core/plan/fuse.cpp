// Fusion: element-wise nodes over one iteration shape become a cluster, which a backend compiles as one tile program.
//
// A cluster runs where its last member stood. That is right as long as nothing outside it has already consumed one of
// its values, so the first outside consumer seals a cluster; two unsealed clusters may merge, since neither can feed
// the other through the outside.
#include <algorithm>
#include <set>

#include "core/plan/program.h"

namespace tenon {
namespace {

struct Cluster {
  Shape shape;
  std::vector<int> nodes;
  std::set<int> inputs;  // values that come from outside
  bool sealed = false;
  int merged_into = -1;
};

}  // namespace

void fuse(Program& p, const Backend& backend) {
  std::vector<Cluster> clusters;
  const auto cluster_of_value = [&](int v) {
    const Program::Value& x = p.values[static_cast<size_t>(v)];
    if (x.kind != Program::Kind::computed) return -1;
    int c = p.nodes[static_cast<size_t>(x.producer)].cluster;
    while (c >= 0 && clusters[static_cast<size_t>(c)].merged_into >= 0) c = clusters[static_cast<size_t>(c)].merged_into;
    return c;
  };

  for (size_t i = 0; i < p.nodes.size(); ++i) {
    Program::Node& n = p.nodes[i];
    if (n.dead) continue;
    const TensorType& out = p.values[static_cast<size_t>(n.out[0])].type;
    const bool fusable = n.op->elementwise && n.out.size() == 1 && backend.fuses(n.op->id, out.dtype) &&
                         std::all_of(n.in.begin(), n.in.end(), [&](int v) {
                           return backend.fuses(n.op->id, p.values[static_cast<size_t>(v)].type.dtype);
                         });
    std::vector<int> sources;  // unsealed clusters of this shape that feed the node
    for (int v : n.in) {
      const int c = cluster_of_value(v);
      if (c < 0 || std::count(sources.begin(), sources.end(), c)) continue;
      const Cluster& k = clusters[static_cast<size_t>(c)];
      if (fusable && !k.sealed && k.shape == out.shape) sources.push_back(c);
    }
    // Merge the sources in turn while the piece stays within what a tile program holds.
    int home = -1;
    for (int c : sources) {
      Cluster& k = clusters[static_cast<size_t>(c)];
      if (home < 0) {
        std::set<int> inputs = k.inputs;
        for (int v : n.in)
          if (cluster_of_value(v) != c) inputs.insert(v);
        if (k.nodes.size() < kMaxPieceNodes && inputs.size() <= kMaxPieceInputs) home = c;
        continue;
      }
      Cluster& h = clusters[static_cast<size_t>(home)];
      std::set<int> inputs = h.inputs;
      inputs.insert(k.inputs.begin(), k.inputs.end());
      for (int v : n.in)
        if (cluster_of_value(v) != c && cluster_of_value(v) != home) inputs.insert(v);
      if (h.nodes.size() + k.nodes.size() >= kMaxPieceNodes || inputs.size() > kMaxPieceInputs) continue;
      h.nodes.insert(h.nodes.end(), k.nodes.begin(), k.nodes.end());
      h.inputs = std::move(inputs);
      k.merged_into = home;
    }
    // Everyone else whose values this node reads can't move past it any more.
    for (int v : n.in) {
      const int c = cluster_of_value(v);
      if (c >= 0 && c != home) clusters[static_cast<size_t>(c)].sealed = true;
    }
    if (!fusable) continue;
    if (home < 0) {
      home = static_cast<int>(clusters.size());
      clusters.push_back({.shape = out.shape, .nodes = {}, .inputs = {}});
    }
    Cluster& h = clusters[static_cast<size_t>(home)];
    for (int v : n.in)
      if (cluster_of_value(v) != home) h.inputs.insert(v);
    h.nodes.push_back(static_cast<int>(i));
    n.cluster = home;
  }
  for (Program::Node& n : p.nodes)
    while (n.cluster >= 0 && clusters[static_cast<size_t>(n.cluster)].merged_into >= 0)
      n.cluster = clusters[static_cast<size_t>(n.cluster)].merged_into;
}

}  // namespace tenon
