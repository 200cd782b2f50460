// Gradients of slices that lie side by side and cover their tensor: their sum is their concatenation, plus 0,
// which makes -0 what it is in the sum. (The query, key and value of attention are such slices of one
// product.)
#include <algorithm>

#include "core/plan/program.h"

namespace tenon {
namespace {

class Joiner {
 public:
  explicit Joiner(Program& p) : p_(p), readers_(p.values.size(), 0) {}

  void run() {
    for (const Program::Node& n : p_.nodes)
      if (!n.dead)
        for (int v : n.in) ++readers_[index(v)];
    for (int v : p_.roots) ++readers_[index(v)];
    for (int v : p_.updates) ++readers_[index(v)];

    std::vector<Program::Node> old;
    old.swap(p_.nodes);
    bool any = false;
    for (Program::Node& n : old) {
      const bool join = !n.dead && n.op->id == "add/1" && is_floating(type(n.out[0]).dtype) && covers(n);
      if (join)
        concatenate(n.out[0]);
      else
        append(n);
      any |= join;
    }
    if (!any) return;
    std::vector<int> same(p_.values.size());
    for (size_t i = 0; i < same.size(); ++i) same[i] = static_cast<int>(i);
    p_.replace_and_sweep(same);
  }

 private:
  struct Part {
    int64_t begin, end;  // along axis_
    int value;
  };
  static size_t index(int v) { return static_cast<size_t>(v); }
  const TensorType& type(int v) const { return p_.values[index(v)].type; }

  // Whether a sum is one of slices' gradients that cover their tensor: axis_ and parts_ then say how.
  bool covers(const Program::Node& sum) {
    axis_ = -1;
    parts_.clear();
    for (int v : sum.in)
      if (!collect(v, type(sum.out[0]))) return false;
    if (axis_ < 0) return false;
    std::sort(parts_.begin(), parts_.end(), [](const Part& a, const Part& b) { return a.begin < b.begin; });
    int64_t at = 0;
    for (const Part& part : parts_) {
      if (part.begin != at) return false;
      at = part.end;
    }
    return at == type(sum.out[0]).shape[axis_];
  }
  bool collect(int v, const TensorType& whole) {
    const Program::Value& x = p_.values[index(v)];
    if (x.kind != Program::Kind::computed || readers_[index(v)] != 1 || x.type != whole) return false;
    const Program::Node& n = node_of(x);
    if (n.op->id == "add/1") return collect(n.in[0], whole) && collect(n.in[1], whole);
    return n.op->id == "slice_grad/1" && add_part(n, whole.shape);
  }
  bool add_part(const Program::Node& n, const Shape& whole) {
    const auto start = n.attrs().ints("start"), stop = n.attrs().ints("stop"), step = n.attrs().ints("step");
    if (std::any_of(step.begin(), step.end(), [](int64_t s) { return s != 1; })) return false;
    int axis = -1;
    for (int d = 0; d < whole.rank(); ++d) {
      const int64_t from = start[static_cast<size_t>(d)], to = stop[static_cast<size_t>(d)];
      if (from == 0 && to == whole[d]) continue;
      if (axis >= 0 || from < 0 || from >= to || to > whole[d]) return false;
      axis = d;
    }
    if (axis < 0 || (axis_ >= 0 && axis != axis_)) return false;
    axis_ = axis;
    parts_.push_back({start[static_cast<size_t>(axis)], stop[static_cast<size_t>(axis)], n.in[0]});
    return true;
  }
  const Program::Node& node_of(const Program::Value& x) const { return p_.nodes[index(x.producer)]; }

  void append(Program::Node n) {
    for (int v : n.out) p_.values[index(v)].producer = static_cast<int>(p_.nodes.size());
    p_.nodes.push_back(std::move(n));
  }
  int append(std::string_view op, const AttrList& attrs, std::vector<int> in, TensorType type) {
    const int out = static_cast<int>(p_.values.size());
    p_.values.push_back({.type = std::move(type)});
    readers_.push_back(1);
    const auto words = attrs.words();
    append({.op = find_op(op), .words = {words.begin(), words.end()}, .in = std::move(in), .out = {out}});
    return out;
  }
  void concatenate(int out) {
    const TensorType whole = type(out);
    std::vector<int> in;
    for (const Part& part : parts_) in.push_back(part.value);
    const int joined = append("concat/1", AttrList().i(axis_), std::move(in), whole);
    const int zero =
        append("arange/1", AttrList().i(1).i(static_cast<int64_t>(whole.dtype)), {}, {whole.dtype, Shape{1}});
    append({.op = find_op("add/1"), .words = {}, .in = {joined, zero}, .out = {out}});
  }

  Program& p_;
  std::vector<int> readers_;
  int axis_ = -1;
  std::vector<Part> parts_;
};

}  // namespace

void join_slice_gradients(Program& p) { Joiner(p).run(); }

}  // namespace tenon
