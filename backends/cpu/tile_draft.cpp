// From a piece to instructions: how each input is read, and what each node becomes.
#include "backends/cpu/tile_draft.h"

#include <algorithm>
#include <map>

#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

std::string_view short_name(std::string_view id) { return id.substr(0, id.rfind('/')); }

enum class Form : uint8_t {
  plain,    // all operands and the result have one type
  compare,  // -> bool
  where,
  cast,
  identity,  // the value of the first operand
};

struct OpEntry {
  std::string_view name;
  TileOp op;
  Form form;
  int operands;
  bool exact;  // a bf16 result of bf16 operands needs no rounding
};

constexpr OpEntry kOps[] = {
#define X(name) {#name, TileOp::name, Form::plain, 1, false},
    TN_TILE_FLOAT_UNARY(X)
#undef X
#define X(name) {#name, TileOp::name, Form::plain, 2, false},
        X(add) X(sub) X(mul) X(div) X(pow)
#undef X
#define X(name) {#name, TileOp::name, Form::compare, 2, true},
            TN_TILE_COMPARE(X)
#undef X
                {"neg", TileOp::neg, Form::plain, 1, true},
    {"square", TileOp::square, Form::plain, 1, false},
    {"relu", TileOp::relu, Form::plain, 1, true},
    {"abs", TileOp::abs, Form::plain, 1, true},
    {"sign", TileOp::sign, Form::plain, 1, true},
    {"clamp", TileOp::clamp, Form::plain, 1, false},
    {"round_ste", TileOp::round, Form::plain, 1, true},
    {"minimum", TileOp::minimum, Form::plain, 2, true},
    {"maximum", TileOp::maximum, Form::plain, 2, true},
    {"logical_and", TileOp::logical_and, Form::compare, 2, true},
    {"logical_or", TileOp::logical_or, Form::compare, 2, true},
    {"logical_not", TileOp::logical_not, Form::compare, 1, true},
    {"is_finite", TileOp::is_finite, Form::compare, 1, true},
    {"where", TileOp::where, Form::where, 3, true},
    {"cast", TileOp::copy, Form::cast, 1, true},
    {"stop_gradient", TileOp::copy, Form::identity, 1, true},
    {"custom_gradient", TileOp::copy, Form::identity, 1, true},
    {"contiguous", TileOp::copy, Form::identity, 1, true},
};

const OpEntry* find_entry(std::string_view id) {
  if (!id.ends_with("/1")) return nullptr;
  for (const OpEntry& e : kOps)
    if (e.name == short_name(id)) return &e;
  return nullptr;
}

bool supported(const OpEntry& entry, DType first) {
  if (entry.form == Form::where || entry.op == TileOp::logical_and || entry.op == TileOp::logical_or ||
      entry.op == TileOp::logical_not)
    return first == DType::boolean;
  if (entry.form == Form::cast || entry.form == Form::identity || entry.form == Form::compare) return true;
  return first != DType::boolean && find_tile_fn(entry.op, lane_of(first), lane_of(first)) != nullptr;
}

std::optional<RowFold> find_fold(std::string_view id) {
  constexpr std::pair<std::string_view, RowFold> folds[] = {{"sum/1", RowFold::sum},
                                                            {"mean/1", RowFold::mean},
                                                            {"max/1", RowFold::max},
                                                            {"min/1", RowFold::min},
                                                            {"logsumexp/1", RowFold::logsumexp}};
  for (const auto& [name, how] : folds)
    if (name == id) return how;
  return std::nullopt;
}
constexpr std::string_view kPick = "take_along_axis/1";

// Ops that only give a row's number another shape.
bool is_view(std::string_view id) {
  return id == "reshape/1" || id == "squeeze/1" || id == "unsqueeze/1" || id == "broadcast_to/1";
}

class Drafter {
 public:
  explicit Drafter(const Piece& piece) : piece_(piece) {}

  std::optional<TileDraft> run() {
    if (piece_.outputs.empty() || !find_space() || !collect_uses() || !lay_out()) return std::nullopt;
    for (const PieceNode& node : piece_.nodes)
      if (!lower(node)) return std::nullopt;
    store_outputs();
    skip_double_rounding();
    return std::move(draft_);
  }

 private:
  // How a tensor lies in the iteration space: element by element, or one element a row.
  enum class Along : uint8_t { elements, rows };

  // The shape that is iterated over: that of what is folded, else that of the outputs.
  bool find_space() {
    full_ = piece_.output_type(0).shape;
    for (const PieceNode& node : piece_.nodes) {
      if (node.op != kPick && !find_fold(node.op)) continue;
      const int from = node.inputs[0];
      full_ = from >= 0 ? piece_.inputs[static_cast<size_t>(from)].shape
                        : piece_.nodes[static_cast<size_t>(~from)].outputs[0].shape;
      draft_.folds = true;
      break;
    }
    if (draft_.folds && (full_.rank() == 0 || full_.back() > kMaxFoldedRow || full_.numel() == 0))
      return false;
    for (size_t i = 0; i < piece_.outputs.size(); ++i)
      if (piece_.outputs[i].index != 0 || !along(piece_.output_type(i).shape)) return false;
    return piece_.outputs.size() <= kMaxTileOutputs;
  }

  // Nullopt: neither the full shape nor (with folds) one that has one element a row.
  std::optional<Along> along(const Shape& shape) const {
    if (shape == full_) return Along::elements;
    if (!draft_.folds) return std::nullopt;
    const int lead = full_.rank() - 1;
    if (shape.rank() != lead && !(shape.rank() == lead + 1 && shape[lead] == 1)) return std::nullopt;
    return std::equal(shape.begin(), shape.begin() + lead, full_.begin()) ? std::optional(Along::rows)
                                                                          : std::nullopt;
  }

  // One input of the program for each input of the piece and way of reading it.
  bool collect_uses() {
    for (const PieceNode& node : piece_.nodes) {
      const std::optional<Along> result = along(node.outputs[0].shape);
      if (node.op == "concat/1") {
        if (result != Along::elements || draft_.folds || full_.rank() != 1) return false;
        for (const int i : node.inputs)
          if (i < 0) return false;
        joins_[&node] = program().inputs.size();
        program().inputs.push_back(join(node));
        strides_.push_back(full_.strides());
        continue;
      }
      const bool folds = node.op == kPick || find_fold(node.op);
      if (!result || (folds && (*result != Along::rows || !over_last_axis(node)))) return false;
      const OpEntry* entry = find_entry(node.op);
      const size_t n = node.op == kPick            ? 2
                       : folds || is_view(node.op) ? 1
                       : entry                     ? static_cast<size_t>(entry->operands)
                                                   : 0;
      if (n == 0 || node.inputs.size() < n) return false;
      for (size_t k = 0; k < n; ++k)
        if (node.inputs[k] >= 0 &&
            !add_use(node.inputs[k], folds && k == 0 ? Along::elements : *result, node.outputs[0].shape))
          return false;
    }
    return program().inputs.size() <= kMaxTileInputs;
  }

  bool over_last_axis(const PieceNode& node) const {
    const int rank = full_.rank();
    if (node.op == kPick) {
      const int64_t axis = node.attrs.i("axis");
      return (axis == -1 || axis == rank - 1) && node.inputs[1] >= 0;
    }
    const auto axes = node.attrs.ints("axes");
    return axes.empty() ? rank == 1 : axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1);
  }

  bool add_use(int input, Along way, const Shape& result) {
    if (uses_.contains({input, way})) return true;
    const Layout& in = piece_.inputs[static_cast<size_t>(input)];
    const Shape& to = way == Along::elements ? full_ : result;
    if (in.shape.rank() > to.rank()) return false;
    const int lead = to.rank() - in.shape.rank();
    for (int d = 0; d < in.shape.rank(); ++d)
      if (in.shape[d] != 1 && in.shape[d] != to[lead + d]) return false;
    Strides s = broadcast_strides(in.shape, in.strides, to);
    if (way == Along::rows) {
      if (s.size() < full_.rank()) s.push_back(0);
      s[full_.rank() - 1] = 0;
    }
    TileInput t;
    t.dtype = in.dtype;
    t.source = static_cast<uint16_t>(input);
    uses_[{input, way}] = program().inputs.size();
    program().inputs.push_back(t);
    strides_.push_back(s);
    return true;
  }

  TileInput join(const PieceNode& node) const {
    TileInput t;
    t.mode = TileInput::joined;
    t.dtype = node.outputs[0].dtype;
    t.source = static_cast<uint16_t>(node.inputs[0]);
    int64_t first = 0;
    for (const int i : node.inputs) {
      const Layout& l = piece_.inputs[static_cast<size_t>(i)];
      TileInput::Part part{.first = first,
                           .source = static_cast<uint16_t>(i),
                           .direct = l.contiguous(),
                           .shape = l.shape,
                           .strides = l.strides};
      first += l.numel();
      if (l.numel() > 0) t.parts.push_back(part);
    }
    return t;
  }

  // Collapses the iteration space, decides on rows or one long run, and on the mode of each input.
  bool lay_out() {
    TileProgram& p = program();
    p.space = full_;
    std::vector<Strides> all{full_.strides()};
    all.insert(all.end(), strides_.begin(), strides_.end());
    if (draft_.folds) {
      // The last dimension stays apart: it is the row.
      const int last = full_.rank() - 1;
      Shape outer = full_;
      outer.pop_back();
      std::vector<Strides> outer_strides, inner;
      for (Strides s : all) {
        inner.push_back(Strides{s[last]});
        s.pop_back();
        outer_strides.push_back(s);
      }
      collapse(outer, outer_strides);
      p.space = outer;
      p.space.push_back(full_.back());
      for (size_t i = 0; i < all.size(); ++i) {
        all[i] = outer_strides[i];
        all[i].push_back(inner[i][0]);
      }
    } else {
      collapse(p.space, all);
    }
    const int64_t total = p.space.numel(), row = p.space.back();
    // Reading rows where they lie is worth a call per row if they are long enough, and more so where an input
    // is constant along them.
    const auto any_row_scalar = std::any_of(
        all.begin() + 1, all.end(), [](const Strides& s) { return s.back() == 0 && !is_constant(s); });
    const bool by_rows =
        draft_.folds || (p.space.rank() > 1 && (row >= 512 || (row >= 64 && any_row_scalar)));
    p.row_length = by_rows ? row : total;
    p.rows = by_rows ? total / std::max<int64_t>(row, 1) : 1;
    for (size_t i = 0; i < p.inputs.size(); ++i) {
      TileInput& in = p.inputs[i];
      in.strides = all[i + 1];
      if (in.mode != TileInput::joined) in.mode = mode_of(in.strides, by_rows);
      input_values_.push_back(-1);
    }
    p.tile = kMaxTile;
    if (draft_.folds) p.tile = static_cast<size_t>(row);
    // Tiles begin where a period does.
    for (const TileInput& in : p.inputs)
      if (in.mode == TileInput::periodic)
        p.tile = std::min(p.tile, kMaxTile / period(in.strides) * period(in.strides));
    return parts_can_be_cut();
  }

  static bool is_constant(const Strides& s) {
    return std::all_of(s.begin(), s.end(), [](int64_t stride) { return stride == 0; });
  }
  TileInput::Mode mode_of(const Strides& s, bool by_rows) const {
    const Shape& space = draft_.program.space;
    if (is_constant(s) || space.numel() == 1) return TileInput::scalar;
    if (by_rows)
      return s.back() == 0 ? TileInput::row_scalar : s.back() == 1 ? TileInput::direct : TileInput::gathered;
    if (is_contiguous(space, s)) return TileInput::direct;
    return period(s) > 0 && period(s) <= kMaxPeriod ? TileInput::periodic : TileInput::gathered;
  }
  // Length after which a tensor that repeats along the leading dimensions starts again; 0 if it does not.
  size_t period(const Strides& s) const {
    const Shape& space = draft_.program.space;
    int64_t n = 1;
    int d = space.rank() - 1;
    for (; d >= 0 && s[d] == n; --d) n *= space[d];
    for (; d >= 0; --d)
      if (s[d] != 0) return 0;
    return static_cast<size_t>(n);
  }
  // Tiles that begin at parts are runs of elements, which only these modes know.
  bool parts_can_be_cut() {
    const std::vector<TileInput>& inputs = program().inputs;
    const auto is_joined = [](const TileInput& in) { return in.mode == TileInput::joined; };
    return std::none_of(inputs.begin(), inputs.end(), is_joined) ||
           std::all_of(inputs.begin(), inputs.end(), [&](const TileInput& in) {
             return is_joined(in) || in.mode == TileInput::scalar || in.mode == TileInput::direct;
           });
  }

  // The value of an input in its register form.
  int input_value(size_t at) {
    int& known = input_values_[at];
    if (known >= 0) return known;
    TileInput& in = program().inputs[at];
    TileValue v;
    v.dtype = in.dtype;
    v.lane = lane_of(in.dtype);
    v.index = static_cast<uint16_t>(at);
    switch (in.mode) {
      case TileInput::scalar:
        v.kind = TileRef::scalar;
        v.index = in.block = static_cast<uint16_t>(program().n_scalars++);
        break;
      case TileInput::row_scalar:
        v.kind = TileRef::row_scalar;
        v.index = in.block = static_cast<uint16_t>(program().n_row_scalars++);
        break;
      case TileInput::direct:
      case TileInput::joined:
        v.kind = TileRef::input;
        break;
      case TileInput::periodic:
        v.held = true;
        break;
      case TileInput::gathered:
        break;
    }
    const int raw = add_value(v);
    if (v.kind == TileRef::slot) draft_.slot_inputs.push_back({at, raw});
    // Scalars are expanded as they are read; memory needs an instruction.
    if (in.dtype == DType::bf16 && (v.kind == TileRef::slot || v.kind == TileRef::input))
      return known = map(TileOp::expand_bf16, Lane::f32, Lane::f32, {raw}, DType::bf16);
    return known = raw;
  }

  int add_value(const TileValue& v) {
    draft_.values.push_back(v);
    return static_cast<int>(draft_.values.size()) - 1;
  }
  // The result varies as its operands do.
  int add_step(TileStep step, DType dtype) {
    TileValue v;
    v.dtype = dtype;
    v.lane = lane_of(dtype);
    bool scalar = true, row = true;
    for (int i = 0; i < step.n_in; ++i) {
      const TileRef::Kind kind = draft_.value(step.in[static_cast<size_t>(i)]).kind;
      scalar &= kind == TileRef::scalar;
      row &= kind == TileRef::scalar || kind == TileRef::row_scalar;
    }
    if (step.kind != TileInstr::map || (row && !scalar)) {
      v.kind = TileRef::row_scalar;
      v.index = static_cast<uint16_t>(program().n_row_scalars++);
    } else if (scalar) {
      v.kind = TileRef::scalar;
    }
    step.out = add_value(v);
    draft_.steps.push_back(step);
    return step.out;
  }
  int map(TileOp op, Lane from, Lane to, std::initializer_list<int> in, DType dtype, double p0 = 0,
          double p1 = 0) {
    TileStep s{
        .fn = find_tile_fn(op, from, to), .op = op, .n_in = static_cast<int>(in.size()), .p0 = p0, .p1 = p1};
    std::copy(in.begin(), in.end(), s.in.begin());
    return add_step(s, dtype);
  }
  int rounded(int value, DType to) {
    return to == DType::bf16 ? map(TileOp::round_bf16, Lane::f32, Lane::f32, {value}, to) : value;
  }

  int operand(const PieceNode& node, size_t k, Along way) {
    const int i = node.inputs[k];
    return i >= 0 ? input_value(uses_.at({i, way})) : nodes_[static_cast<size_t>(~i)];
  }

  bool lower(const PieceNode& node) {
    if (node.outputs.size() != 1) return false;
    const DType to = node.outputs[0].dtype;
    const Along way = *along(node.outputs[0].shape);
    int result = -1;
    if (const auto how = find_fold(node.op)) {
      const int x = operand(node, 0, Along::elements);
      if (!foldable(x)) return false;
      result =
          rounded(add_step({.kind = TileInstr::fold, .how = *how, .in = {x, -1, -1, -1}, .n_in = 1}, to), to);
    } else if (node.op == kPick) {
      const int x = operand(node, 0, Along::elements), at = operand(node, 1, Along::rows);
      if (!foldable(x) || draft_.value(at).kind != TileRef::row_scalar) return false;
      result = add_step({.kind = TileInstr::pick, .in = {x, at, -1, -1}, .n_in = 2}, to);
    } else if (node.op == "concat/1") {
      result = input_value(joins_.at(&node));
    } else if (is_view(node.op)) {
      result = operand(node, 0, way);
    } else {
      result = lower_elementwise(node, way, to);
    }
    nodes_.push_back(result);
    return result >= 0;
  }

  // Rows lie in a slot or in memory, as f32.
  bool foldable(int x) const {
    const TileValue& v = draft_.value(x);
    return v.lane == Lane::f32 && (v.kind == TileRef::slot || v.kind == TileRef::input);
  }

  int lower_elementwise(const PieceNode& node, Along way, DType to) {
    const OpEntry* entry = find_entry(node.op);
    std::array<int, kMaxOperands> in{};
    const auto n = static_cast<size_t>(entry->operands);
    for (size_t k = 0; k < n; ++k) in[k] = operand(node, k, way);
    const DType from = draft_.value(in[0]).dtype;
    const Lane from_lane = lane_of(from), to_lane = lane_of(to);
    if (entry->form == Form::identity || (entry->form == Form::cast && from == to)) return in[0];
    if (entry->form == Form::cast) {
      const TileOp op = to == DType::boolean ? TileOp::to_bool : TileOp::copy;
      int result = in[0];
      if (from_lane != to_lane || op == TileOp::to_bool) result = map(op, from_lane, to_lane, {in[0]}, to);
      if (to == DType::bf16) return rounded(result, to);
      // Same lane, other meaning: bf16 to f32, bool to u8.
      return result == in[0] ? map(TileOp::copy, from_lane, to_lane, {in[0]}, to) : result;
    }
    TileStep step{.fn = find_tile_fn(entry->op, from_lane, to_lane),
                  .op = entry->op,
                  .in = in,
                  .n_in = entry->operands};
    if (!step.fn || !supported(*entry, from)) return -1;
    if (entry->op == TileOp::clamp) step.p0 = node.attrs.f("min"), step.p1 = node.attrs.f("max");
    if (entry->op == TileOp::leaky_relu) step.p0 = node.attrs.f("slope");
    const int result = add_step(step, to);
    return entry->exact ? result : rounded(result, to);
  }

  void store_outputs() {
    for (size_t k = 0; k < piece_.outputs.size(); ++k) {
      const int value = nodes_[static_cast<size_t>(piece_.outputs[k].node)];
      const DType dtype = piece_.output_type(k).dtype;
      const bool per_row = *along(piece_.output_type(k).shape) == Along::rows;
      program().outputs.push_back({.dtype = dtype});
      TileValue& v = draft_.value(value);
      if (per_row) {
        int held = value;
        if (v.kind != TileRef::row_scalar) {  // the same for all rows
          held = map(TileOp::copy, v.lane, v.lane, {value}, v.dtype);
          draft_.value(held).kind = TileRef::row_scalar;
          draft_.value(held).index = static_cast<uint16_t>(program().n_row_scalars++);
        }
        program().outputs.back().row_block = draft_.value(held).index;
        continue;
      }
      if (v.kind == TileRef::slot && v.output < 0 && dtype != DType::bf16 && is_computed(value)) {
        v.output = static_cast<int>(k);
        continue;
      }
      const int stored =
          map(dtype == DType::bf16 ? TileOp::shrink_bf16 : TileOp::copy, v.lane, v.lane, {value}, dtype);
      TileValue& s = draft_.value(stored);
      s.kind = TileRef::slot;  // even from a scalar: outputs are full
      s.output = static_cast<int>(k);
    }
  }
  bool is_computed(int value) const {
    return std::any_of(draft_.steps.begin(), draft_.steps.end(),
                       [&](const TileStep& s) { return s.out == value; });
  }

  // shrink_bf16 rounds by itself; a rounding before it that nobody else reads can go.
  void skip_double_rounding() {
    auto& steps = draft_.steps;
    for (TileStep& store : steps) {
      if (store.op != TileOp::shrink_bf16) continue;
      for (const TileStep& round : steps)
        if (round.op == TileOp::round_bf16 && round.out == store.in[0]) {
          store.in[0] = round.in[0];
          break;
        }
    }
    std::erase_if(steps, [&](const TileStep& s) {
      if (s.op != TileOp::round_bf16 || draft_.value(s.out).kind == TileRef::row_scalar) return false;
      return std::none_of(steps.begin(), steps.end(), [&](const TileStep& r) { return r.reads(s.out); });
    });
  }

  TileProgram& program() { return draft_.program; }

  static constexpr size_t kMaxTile = 512;
  static constexpr size_t kMaxPeriod = 512;

  const Piece& piece_;
  TileDraft draft_;
  Shape full_;
  std::map<std::pair<int, Along>, size_t> uses_;  // input of the piece -> of the program
  std::map<const PieceNode*, size_t> joins_;      // concat -> input of the program
  std::vector<Strides> strides_;                  // of each input of the program, over full_
  std::vector<int> input_values_, nodes_;         // values; -1: not used yet
};

}  // namespace

bool is_tile_op(std::string_view op, DType dtype) {
  const OpEntry* entry = find_entry(op);
  return entry && (entry->form == Form::where || supported(*entry, dtype));
}

bool is_row_op(std::string_view op, DType dtype) {
  return (op == kPick || find_fold(op)) && lane_of(dtype) == Lane::f32;
}

uint32_t tile_wants_contiguous(const Piece& piece) {
  if (piece.nodes.size() == 1 && short_name(piece.nodes[0].op) == "contiguous") return 0;
  uint32_t mask = 0;
  for (size_t i = 0; i < piece.inputs.size() && i < 32; ++i) {
    Shape shape = piece.inputs[i].shape;
    std::vector<Strides> strides{piece.inputs[i].strides};
    if (shape.numel() < 4096) continue;
    collapse(shape, strides);
    if (strides[0].back() != 1 && strides[0].back() != 0) mask |= 1u << i;
  }
  return mask;
}

std::optional<TileDraft> draft_piece(const Piece& piece) { return Drafter(piece).run(); }

}  // namespace tenon::cpu
