// From a piece to a tile program: lowering to instructions, input modes, register slots.
#include <algorithm>
#include <array>

#include "backends/cpu/strided.h"
#include "backends/cpu/tile_program.h"

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

// A value of the program before slots are given out.
struct Value {
  TileRef::Kind kind = TileRef::slot;
  Lane lane = Lane::f32;
  DType dtype = DType::f32;
  uint16_t index = 0;  // input, scalar or row_scalar
  int defined = -1, last_use = -1;
  int output = -1;  // written straight to this output
  int slot = -1;
  bool scalar() const { return kind == TileRef::scalar; }
};

struct Draft {
  TileFn fn;
  TileOp op;
  std::array<int, kMaxOperands> in{-1, -1, -1};
  int n_in, out;
  double p0 = 0, p1 = 0;
};

class Compiler {
 public:
  explicit Compiler(const Piece& piece) : piece_(piece) {}

  bool compile() {
    if (piece_.outputs.empty() || piece_.inputs.size() > kMaxTileInputs) return false;
    program_.space = piece_.output_type(0).shape;
    for (size_t i = 0; i < piece_.outputs.size(); ++i)
      if (!(piece_.output_type(i).shape == program_.space) || piece_.outputs[i].index != 0) return false;
    if (!classify_inputs()) return false;
    for (const PieceNode& node : piece_.nodes)
      if (!lower(node)) return false;
    store_outputs();
    skip_double_rounding();
    return finish();
  }
  TileProgram take() { return std::move(program_); }

 private:
  bool classify_inputs() {
    const Shape full = program_.space;
    std::vector<bool> used(piece_.inputs.size());
    for (const PieceNode& node : piece_.nodes) {
      const OpEntry* entry = find_entry(node.op);
      if (!entry) return false;
      for (size_t i = 0; i < node.inputs.size() && i < static_cast<size_t>(entry->operands); ++i)
        if (node.inputs[i] >= 0) used[static_cast<size_t>(node.inputs[i])] = true;
    }
    std::vector<Strides> strides{full.strides()};
    for (size_t i = 0; i < piece_.inputs.size(); ++i) {
      const Layout& in = piece_.inputs[i];
      if (!used[i]) {
        strides.push_back(full.strides());
        continue;
      }
      if (in.shape.rank() > full.rank()) return false;
      const int lead = full.rank() - in.shape.rank();
      for (int d = 0; d < in.shape.rank(); ++d)
        if (in.shape[d] != 1 && in.shape[d] != full[lead + d]) return false;
      strides.push_back(broadcast_strides(in.shape, in.strides, full));
    }
    collapse(program_.space, strides);
    const Shape& space = program_.space;
    const int64_t total = space.numel(), inner = space.back();
    // Long rows are worth reading in place, with one number per row where an input is constant along it.
    const bool by_rows = space.rank() > 1 && (inner >= 512 || (inner >= 128 && inner % int64_t{kGroup} == 0));
    program_.row_length = by_rows ? inner : total;
    program_.rows = by_rows ? total / std::max<int64_t>(inner, 1) : 1;
    for (size_t i = 0; i < piece_.inputs.size(); ++i) {
      TileInput& in = program_.inputs.emplace_back();
      in.dtype = piece_.inputs[i].dtype;
      in.strides = strides[i + 1];
      const bool constant =
          std::all_of(in.strides.begin(), in.strides.end(), [](int64_t s) { return s == 0; });
      if (constant || total == 1)
        in.mode = TileInput::scalar;
      else if (by_rows && in.strides.back() == 0)
        in.mode = TileInput::row_scalar;
      else if (by_rows ? in.strides.back() == 1 : is_contiguous(space, in.strides))
        in.mode = TileInput::direct;
      else
        in.mode = TileInput::gathered;
      inputs_.push_back(-1);
    }
    return true;
  }

  // The value of input i in its register form.
  int input_value(size_t i) {
    if (inputs_[i] >= 0) return inputs_[i];
    TileInput& in = program_.inputs[i];
    Value v;
    v.dtype = in.dtype;
    v.lane = lane_of(in.dtype);
    v.index = static_cast<uint16_t>(i);
    const bool bf16 = in.dtype == DType::bf16;
    switch (in.mode) {
      case TileInput::scalar:
        v.kind = TileRef::scalar;
        v.index = in.block = static_cast<uint16_t>(program_.n_scalars++);
        break;
      case TileInput::row_scalar:
        v.kind = TileRef::row_scalar;
        v.index = in.block = static_cast<uint16_t>(program_.n_row_scalars++);
        break;
      case TileInput::gathered:
        v.kind = TileRef::slot;
        break;
      default:
        v.kind = TileRef::input;
        break;
    }
    const int raw = add_value(v);
    if (in.mode == TileInput::gathered) gathered_.push_back({static_cast<int>(i), raw});
    // Scalars are expanded as they are read; memory needs an instruction.
    if (bf16 && (in.mode == TileInput::direct || in.mode == TileInput::gathered))
      return inputs_[i] = emit(find_tile_fn(TileOp::expand_bf16, Lane::f32, Lane::f32), TileOp::expand_bf16,
                               {raw}, DType::bf16);
    return inputs_[i] = raw;
  }

  int add_value(const Value& v) {
    values_.push_back(v);
    return static_cast<int>(values_.size()) - 1;
  }
  int emit(TileFn fn, TileOp op, std::span<const int> in, DType dtype, double p0 = 0, double p1 = 0) {
    Value v;
    v.dtype = dtype;
    v.lane = lane_of(dtype);
    if (std::all_of(in.begin(), in.end(), [&](int i) { return values_[static_cast<size_t>(i)].scalar(); }))
      v.kind = TileRef::scalar;
    const int out = add_value(v);
    Draft d{fn, op, {}, static_cast<int>(in.size()), out, p0, p1};
    std::copy(in.begin(), in.end(), d.in.begin());
    drafts_.push_back(d);
    return out;
  }
  int emit(TileFn fn, TileOp op, std::initializer_list<int> in, DType dtype) {
    return emit(fn, op, std::span<const int>(in.begin(), in.size()), dtype);
  }

  bool lower(const PieceNode& node) {
    const OpEntry* entry = find_entry(node.op);
    if (!entry || node.outputs.size() != 1 || node.inputs.size() < static_cast<size_t>(entry->operands))
      return false;
    std::array<int, kMaxOperands> in{};
    const auto n = static_cast<size_t>(entry->operands);
    for (size_t i = 0; i < n; ++i)
      in[i] = node.inputs[i] >= 0 ? input_value(static_cast<size_t>(node.inputs[i]))
                                  : nodes_[static_cast<size_t>(~node.inputs[i])];
    const std::span<const int> operands(in.data(), n);
    const DType from = values_[static_cast<size_t>(in[0])].dtype, to = node.outputs[0].dtype;
    const Lane from_lane = lane_of(from), to_lane = lane_of(to);
    if (entry->form == Form::identity || (entry->form == Form::cast && from == to)) {
      nodes_.push_back(in[0]);
      return true;
    }
    int result = -1;
    if (entry->form == Form::cast) {
      const TileOp op = to == DType::boolean ? TileOp::to_bool : TileOp::copy;
      result = in[0];
      if (from_lane != to_lane || op == TileOp::to_bool)
        result = emit(find_tile_fn(op, from_lane, to_lane), op, operands, to);
      if (to == DType::bf16)
        result =
            emit(find_tile_fn(TileOp::round_bf16, Lane::f32, Lane::f32), TileOp::round_bf16, {result}, to);
      else if (result == in[0])  // same lane, other meaning: bf16 to f32, bool to u8
        result = emit(find_tile_fn(TileOp::copy, from_lane, to_lane), TileOp::copy, operands, to);
    } else {
      const TileFn fn = find_tile_fn(entry->op, from_lane, to_lane);
      if (!fn || !supported(*entry, from)) return false;
      double p0 = 0, p1 = 0;
      if (entry->op == TileOp::clamp) p0 = node.attrs.f("min"), p1 = node.attrs.f("max");
      if (entry->op == TileOp::leaky_relu) p0 = node.attrs.f("slope");
      result = emit(fn, entry->op, operands, to, p0, p1);
      if (to == DType::bf16 && !entry->exact)
        result =
            emit(find_tile_fn(TileOp::round_bf16, Lane::f32, Lane::f32), TileOp::round_bf16, {result}, to);
    }
    nodes_.push_back(result);
    return true;
  }

 public:
  static bool supported(const OpEntry& entry, DType first) {
    if (entry.form == Form::where || entry.op == TileOp::logical_and || entry.op == TileOp::logical_or ||
        entry.op == TileOp::logical_not)
      return first == DType::boolean;
    if (entry.form == Form::cast || entry.form == Form::identity || entry.form == Form::compare) return true;
    return first != DType::boolean && find_tile_fn(entry.op, lane_of(first), lane_of(first)) != nullptr;
  }

 private:
  void store_outputs() {
    for (size_t k = 0; k < piece_.outputs.size(); ++k) {
      const int value = nodes_[static_cast<size_t>(piece_.outputs[k].node)];
      const DType dtype = piece_.output_type(k).dtype;
      program_.outputs.push_back({dtype, -1, -1});
      Value& v = values_[static_cast<size_t>(value)];
      const bool own = v.kind == TileRef::slot && v.output < 0 && dtype != DType::bf16 && is_computed(value);
      if (own) {
        v.output = static_cast<int>(k);
        continue;
      }
      const TileOp op = dtype == DType::bf16 ? TileOp::shrink_bf16 : TileOp::copy;
      const int stored = emit(find_tile_fn(op, v.lane, v.lane), op, {value}, dtype);
      values_[static_cast<size_t>(stored)].kind = TileRef::slot;  // even from a scalar: outputs are full
      values_[static_cast<size_t>(stored)].output = static_cast<int>(k);
    }
  }
  bool is_computed(int value) const {
    return std::any_of(drafts_.begin(), drafts_.end(), [&](const Draft& d) { return d.out == value; });
  }

  // shrink_bf16 rounds by itself; a rounding before it that nobody else reads can go.
  void skip_double_rounding() {
    for (Draft& store : drafts_) {
      if (store.op != TileOp::shrink_bf16) continue;
      for (const Draft& round : drafts_)
        if (round.op == TileOp::round_bf16 && round.out == store.in[0]) {
          store.in[0] = round.in[0];
          break;
        }
    }
    std::erase_if(drafts_, [&](const Draft& d) {
      if (d.op != TileOp::round_bf16) return false;
      return std::none_of(drafts_.begin(), drafts_.end(), [&](const Draft& r) {
        return std::find(r.in.begin(), r.in.begin() + r.n_in, d.out) != r.in.begin() + r.n_in;
      });
    });
  }

  bool finish() {
    std::vector<Draft> prologue, body;
    for (const Draft& d : drafts_)
      (values_[static_cast<size_t>(d.out)].scalar() ? prologue : body).push_back(d);
    if (body.size() > kMaxTileInstrs ||
        program_.n_scalars + static_cast<int>(prologue.size()) > int{kMaxTileScalars})
      return false;
    for (const Draft& d : prologue)
      values_[static_cast<size_t>(d.out)].index = static_cast<uint16_t>(program_.n_scalars++);

    program_.last_read.assign(piece_.inputs.size(), -1);
    for (size_t i = 0; i < body.size(); ++i) {
      values_[static_cast<size_t>(body[i].out)].defined = static_cast<int>(i);
      for (int o = 0; o < body[i].n_in; ++o) {
        Value& v = values_[static_cast<size_t>(body[i].in[static_cast<size_t>(o)])];
        v.last_use = static_cast<int>(i);
        if (v.kind == TileRef::input) program_.last_read[v.index] = static_cast<int>(i);
      }
    }
    if (!assign_slots(body)) return false;
    for (const Draft& d : prologue) program_.prologue.push_back(encode(d));
    for (const Draft& d : body) program_.body.push_back(encode(d));
    return true;
  }

  // Linear scan: a slot is free again after its value's last use. A result may take the slot of an operand
  // that ends with it when both have lanes of equal width, since elements are read before they are written.
  bool assign_slots(const std::vector<Draft>& body) {
    std::vector<int> free;
    const auto take = [&] {
      if (free.empty()) return program_.n_slots++;
      const int s = free.back();
      free.pop_back();
      return s;
    };
    size_t lane_bytes = 1;
    for (auto& [input, value] : gathered_) {
      Value& v = values_[static_cast<size_t>(value)];
      v.slot = take();
      program_.inputs[static_cast<size_t>(input)].block = static_cast<uint16_t>(v.slot);
      lane_bytes = std::max(lane_bytes, size_of(v.lane));
    }
    const int end = static_cast<int>(body.size());
    for (int i = 0; i < end; ++i) {
      const Draft& d = body[static_cast<size_t>(i)];
      Value& out = values_[static_cast<size_t>(d.out)];
      lane_bytes = std::max(lane_bytes, size_of(out.lane));
      bool needs_slot = out.output < 0;
      if (out.output >= 0) {
        program_.outputs[static_cast<size_t>(out.output)].written_by = i;
        needs_slot =
            std::any_of(program_.last_read.begin(), program_.last_read.end(), [&](int r) { return r > i; });
        if (needs_slot) out.last_use = end;
      }
      const auto release = [&](bool same_width) {
        for (int o = 0; o < d.n_in; ++o) {
          Value& v = values_[static_cast<size_t>(d.in[static_cast<size_t>(o)])];
          const bool in_place = is_floating(v.dtype) && is_floating(out.dtype) &&
                                size_of(v.lane) == size_of(out.lane) && d.op != TileOp::expand_bf16 &&
                                d.op != TileOp::shrink_bf16;
          if (v.slot < 0 || v.last_use != i || in_place != same_width || v.output >= 0) continue;
          free.push_back(v.slot);
          v.last_use = -1;  // once only, even when it is both operands
        }
      };
      release(true);
      if (needs_slot) {
        out.slot = take();
        if (out.output >= 0) program_.outputs[static_cast<size_t>(out.output)].slot = out.slot;
      }
      release(false);
      if (out.slot >= 0 && out.last_use < 0 && out.output < 0) free.push_back(out.slot);  // never read
    }
    program_.tile = 1024;
    while (program_.tile > 64 &&
           static_cast<size_t>(program_.n_slots) * program_.tile * lane_bytes > kSlotMemory)
      program_.tile /= 2;
    program_.slot_bytes = program_.tile * lane_bytes;
    return static_cast<size_t>(program_.n_slots) * program_.slot_bytes <= kSlotMemory;
  }

  TileRef ref(int value) const {
    const Value& v = values_[static_cast<size_t>(value)];
    if (v.output >= 0) return {TileRef::output, static_cast<uint16_t>(v.output)};
    if (v.kind == TileRef::slot) return {TileRef::slot, static_cast<uint16_t>(v.slot)};
    return {v.kind, v.index};
  }
  TileInstr encode(const Draft& d) const {
    TileInstr t;
    t.fn = d.fn;
    t.n_in = static_cast<uint8_t>(d.n_in);
    for (size_t o = 0; o < t.n_in; ++o) t.in[o] = ref(d.in[o]);
    t.out = ref(d.out);
    t.p0 = d.p0;
    t.p1 = d.p1;
    return t;
  }

  const Piece& piece_;
  TileProgram program_;
  std::vector<Value> values_;
  std::vector<Draft> drafts_;
  std::vector<int> inputs_, nodes_;            // value of each input (-1: not used yet) and node
  std::vector<std::pair<int, int>> gathered_;  // input, value
};

}  // namespace

bool is_tile_op(std::string_view op, DType dtype) {
  const OpEntry* entry = find_entry(op);
  return entry && (entry->form == Form::where || Compiler::supported(*entry, dtype));
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

std::unique_ptr<Kernel> make_tile_kernel(Context& context, const Piece& piece) {
  Compiler compiler(piece);
  if (!compiler.compile()) return nullptr;
  std::string name = "tile:";
  name += short_name(piece.nodes.back().op);
  if (piece.nodes.size() > 1) name.append("+").append(std::to_string(piece.nodes.size() - 1));
  return make_tile_interpreter(context, compiler.take(), std::move(name));
}

}  // namespace tenon::cpu
