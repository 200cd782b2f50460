// Ops that are worth more as several. one_hot is the comparison of the numbers of the places with the given
// one, which fuses with what reads it. The rounding of a mixed product's operands is casts, which fuse with
// what makes an operand and are done once for all products that read it. Every bit stays.
#include "core/plan/program.h"

namespace tenon {
namespace {

class Expander {
 public:
  explicit Expander(Program& p) : p_(p) {}

  void run(bool one_hots) {
    std::vector<Program::Node> old;
    old.swap(p_.nodes);
    for (Program::Node& n : old) {
      if (one_hots && n.op->id == "one_hot/1") {
        one_hot(n);
        continue;
      }
      if (n.op->id == "mixed_matmul/1") round_operands(n);
      append(std::move(n));
    }
  }

 private:
  const TensorType& type(int v) const { return p_.values[static_cast<size_t>(v)].type; }

  void append(Program::Node n) {
    for (int v : n.out) p_.values[static_cast<size_t>(v)].producer = static_cast<int>(p_.nodes.size());
    p_.nodes.push_back(std::move(n));
  }
  // A node with one result, which is new.
  int append(std::string_view op, const AttrList& attrs, std::vector<int> in, TensorType type) {
    const int out = static_cast<int>(p_.values.size());
    p_.values.push_back({.type = std::move(type)});
    append(node(op, attrs, std::move(in), out));
    return out;
  }
  static Program::Node node(std::string_view op, const AttrList& attrs, std::vector<int> in, int out) {
    const auto words = attrs.words();
    return {.op = find_op(op), .words = {words.begin(), words.end()}, .in = std::move(in), .out = {out}};
  }

  void one_hot(const Program::Node& n) {
    const TensorType index = type(n.in[0]), out = type(n.out[0]);
    const int64_t depth = out.shape.back();
    Shape column = index.shape;
    column.push_back(1);
    const int place = append("arange/1", AttrList().i(depth).i(static_cast<int64_t>(index.dtype)), {},
                             {index.dtype, Shape{depth}});
    const int here = append("unsqueeze/1", AttrList().i(index.shape.rank()), n.in, {index.dtype, column});
    const int same = append("equal/1", {}, {place, here}, {DType::boolean, out.shape});
    append(node("cast/1", AttrList().i(static_cast<int64_t>(out.dtype)), {same}, n.out[0]));
  }

  void round_operands(Program::Node& n) {
    for (size_t i = 0; i < 2; ++i)
      if (type(n.in[i]).dtype == DType::f32)
        n.in[i] = append("cast/1", AttrList().i(static_cast<int64_t>(DType::bf16)), {n.in[i]},
                         {DType::bf16, type(n.in[i]).shape});
  }

  Program& p_;
};

}  // namespace

void expand(Program& p, bool one_hots) { Expander(p).run(one_hots); }

}  // namespace tenon
