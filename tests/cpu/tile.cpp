// Tile programs: a fused chain gives the bits of its operations one by one, however its inputs are laid out.
#include <cmath>

#include "core/graph/op.h"
#include "tests/cpu/harness.h"
#include "tests/support/vectors.h"

namespace tenon::test {
namespace {

const Shape kShapes[] = {{},        {1},        {0},          {7},          {16},
                         {1000},    {4099},     {3, 5},       {64, 10},     {5, 1},
                         {2, 0, 3}, {3, 700},   {40, 128},    {2, 3, 33},   {4, 1, 5},
                         {70000},   {130, 515}, {2, 2, 2, 9}, {1, 1, 2048}, {33, 1, 1, 17}};

// A shape that broadcasts to `to`.
Shape narrower(Random& random, const Shape& to) {
  Shape s = to;
  while (!s.empty() && random.integer(0, 4) == 0) s.erase(0);
  for (int d = 0; d < s.rank(); ++d)
    if (random.integer(0, 3) == 0) s[d] = 1;
  return s;
}

constexpr const char* kUnary[] = {"exp/1",  "tanh/1", "neg/1",  "square/1", "sigmoid/1",
                                  "relu/1", "abs/1",  "gelu/1", "sign/1",   "floor/1"};
constexpr const char* kBinary[] = {"add/1", "sub/1", "mul/1", "div/1", "minimum/1", "maximum/1"};
constexpr const char* kCompare[] = {"less/1", "greater_equal/1", "equal/1"};

struct Chain {
  Piece piece;
  std::vector<Operand> operands;
  std::vector<Operand*> pointers() {
    std::vector<Operand*> p;
    for (Operand& o : operands) p.push_back(&o);
    return p;
  }
};

Chain random_chain(Random& random, const Shape& shape, DType t, int length) {
  Chain c;
  std::vector<int> values;  // of type t, full shape
  const auto input = [&](DType type, bool full) {
    const Shape s = full ? shape : narrower(random, shape);
    c.operands.push_back(random.tensor_any_style(type, s, -2, 2));
    c.piece.inputs.push_back(c.operands.back().layout);
    return static_cast<int>(c.operands.size()) - 1;
  };
  const auto operand = [&]() -> int {
    if (values.empty() || random.integer(0, 2) == 0) return input(t, false);
    return values[static_cast<size_t>(random.integer(0, static_cast<int64_t>(values.size()) - 1))];
  };
  const auto append = [&](std::string_view op, std::vector<int> in, DType type) {
    c.piece.nodes.push_back(node(op, std::move(in), {type, shape}));
    return ~(static_cast<int>(c.piece.nodes.size()) - 1);
  };
  values.push_back(append("add/1", {input(t, true), input(t, false)}, t));
  for (int i = 0; i < length; ++i) {
    const auto pick = [&](auto& list) {
      return list[random.integer(0, static_cast<int64_t>(std::size(list)) - 1)];
    };
    const int64_t kind = random.integer(0, 9);
    if (kind < 3)
      values.push_back(append(
          pick(kUnary),
          {values[static_cast<size_t>(random.integer(0, static_cast<int64_t>(values.size()) - 1))]}, t));
    else if (kind < 7)
      values.push_back(append(pick(kBinary), {operand(), values.back()}, t));
    else if (kind < 9) {
      const int cond = append(pick(kCompare), {operand(), values.back()}, DType::boolean);
      values.push_back(append("where/1", {cond, operand(), values.back()}, t));
    } else {
      const DType other = t == DType::f32 ? DType::bf16 : DType::f32;
      values.push_back(append("cast/1", {append("cast/1", {values.back()}, other)}, t));
    }
  }
  c.piece.outputs.push_back({~values.back(), 0});
  for (size_t i = 0; i + 1 < values.size(); ++i)
    if (random.integer(0, 4) == 0) c.piece.outputs.push_back({~values[i], 0});
  return c;
}

// The chain's nodes one by one, every inner value in memory.
std::vector<HostArray> one_by_one(Backend& backend, Chain& c, bool all_tiles = true) {
  std::vector<Operand> results;
  results.reserve(c.piece.nodes.size());
  for (const PieceNode& n : c.piece.nodes) {
    Piece single;
    PieceNode alone = n;
    std::vector<Operand*> in;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const int from = n.inputs[i];
      Operand* o = from >= 0 ? &c.operands[static_cast<size_t>(from)] : &results[static_cast<size_t>(~from)];
      single.inputs.push_back(o->layout);
      in.push_back(o);
      alone.inputs[i] = static_cast<int>(i);
    }
    single.nodes = {alone};
    single.outputs = {{0, 0}};
    Ran ran = run(backend, single, in);
    if (all_tiles) CHECK(ran.kernel.starts_with("tile:"));
    Operand& r = results.emplace_back();
    r.layout = Layout(n.outputs[0]);
    r.memory.assign(ran.out[0].data(), ran.out[0].data() + ran.out[0].size_bytes());
    r.memory.resize(r.memory.size() + 1);
  }
  std::vector<HostArray> out;
  for (const Piece::Output& o : c.piece.outputs) out.push_back(dense(results[static_cast<size_t>(o.node)]));
  return out;
}

void check_on_threads(Backend& backend, Chain& c, const std::vector<HostArray>& expected) {
  for (const int threads : {2, 1, 3}) {
    backend.set_threads(threads);
    const Ran fused = run(backend, c.piece, c.pointers());
    CAPTURE(threads);
    CHECK(fused.kernel.starts_with("tile:"));
    for (size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(fused.out[i], expected[i]));
  }
  backend.set_threads(2);
}

TEST_CASE("fused chains equal their operations one by one, bit for bit") {
  const auto backend = make_cpu_backend();
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Random random(seed);
  for (int trial = 0; trial < 150; ++trial) {
    const Shape& shape = kShapes[static_cast<size_t>(trial) % std::size(kShapes)];
    const DType t =
        std::array{DType::f32, DType::bf16, DType::f64}[static_cast<size_t>(random.integer(0, 2))];
    Chain c = random_chain(random, shape, t, static_cast<int>(random.integer(1, 12)));
    CAPTURE(trial, to_string(shape), std::string(name_of(t)), c.piece.nodes.size());
    const auto expected = one_by_one(*backend, c);
    check_on_threads(*backend, c, expected);
  }
}

// Attributes must outlive the piece that refers to them.
struct RowAttrs {
  AttrList fold = AttrList().ints(Axes{-1}).i(1), dropped = AttrList().ints(Axes{-1}).i(0),
           pick = AttrList().i(-1);
  std::vector<AttrList> shapes;
};

// Values of one element a row ([.., 1]) between values of the full shape, joined by folds, broadcasts and
// picks.
Chain random_rows(Random& random, const Shape& shape, DType t, int length, RowAttrs& attrs) {
  Chain c;
  Shape column = shape, dropped = shape;
  column[shape.rank() - 1] = 1;
  dropped.pop_back();
  std::vector<int> full, rows;
  const auto input = [&](DType type, const Shape& s, Random::Style style, double lo = -2, double hi = 2) {
    c.operands.push_back(random.tensor(type, s, lo, hi, style));
    c.piece.inputs.push_back(c.operands.back().layout);
    return static_cast<int>(c.operands.size()) - 1;
  };
  const auto append = [&](std::string_view op, std::vector<int> in, const TensorType& type,
                          const AttrList* words = nullptr) {
    const OpDef* def = find_op(op);
    PieceNode n = node(op, std::move(in), type);
    n.plain = def->plain;
    if (words) n.attrs = Attrs(def->attrs, words->words());
    c.piece.nodes.push_back(n);
    return ~(static_cast<int>(c.piece.nodes.size()) - 1);
  };
  const auto any = [&](const std::vector<int>& of) {
    return of[static_cast<size_t>(random.integer(0, static_cast<int64_t>(of.size()) - 1))];
  };
  const auto one = [&](auto& list) {
    return list[random.integer(0, static_cast<int64_t>(std::size(list)) - 1)];
  };
  constexpr const char* kFolds[] = {"sum/1", "mean/1", "max/1", "min/1", "logsumexp/1"};
  const TensorType whole{t, shape}, row{t, column};
  full.push_back(
      append("add/1", {input(t, shape, Random::dense), input(t, {shape.back()}, Random::dense)}, whole));
  attrs.shapes.reserve(static_cast<size_t>(length));
  for (int i = 0; i < length; ++i) {
    switch (random.integer(0, 7)) {
      case 0:
        full.push_back(append(one(kUnary), {any(full)}, whole));
        break;
      case 1:
        full.push_back(append(one(kBinary), {any(full), any(full)}, whole));
        break;
      case 2:
        rows.push_back(append(one(kFolds), {any(full)}, row, &attrs.fold));
        break;
      case 3: {  // [..] and back to [.., 1]
        attrs.shapes.push_back(AttrList().ints(column));
        const int folded = append(one(kFolds), {any(full)}, {t, dropped}, &attrs.dropped);
        rows.push_back(append("reshape/1", {folded}, row, &attrs.shapes.back()));
        break;
      }
      case 4:
        if (!rows.empty()) full.push_back(append(one(kBinary), {any(full), any(rows)}, whole));
        break;
      case 5:
        if (!rows.empty())
          rows.push_back(append(one(kBinary), {any(rows), input(t, column, Random::dense)}, row));
        break;
      case 6:
        if (!rows.empty()) rows.push_back(append(one(kUnary), {any(rows)}, row));
        break;
      default: {
        const DType wide = random.integer(0, 1) ? DType::i64 : DType::i32;
        const int idx = input(wide, column, Random::dense, 0, static_cast<double>(shape.back()));
        rows.push_back(append("take_along_axis/1", {any(full), idx}, row, &attrs.pick));
      }
    }
  }
  rows.push_back(append("sum/1", {full.back()}, row, &attrs.fold));
  c.piece.outputs.push_back({~rows.back(), 0});
  c.piece.outputs.push_back({~full.back(), 0});
  for (int v : rows)
    if (v != rows.back() && random.integer(0, 3) == 0) c.piece.outputs.push_back({~v, 0});
  return c;
}

TEST_CASE("folds along rows inside a piece have the bits of reductions on their own") {
  const auto backend = make_cpu_backend();
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Random random(seed);
  const Shape shapes[] = {{1, 128},   {7, 64},    {3, 5, 130}, {40, 1000},
                          {2, 16384}, {300, 129}, {5, 17},     {260, 256}};
  for (int trial = 0; trial < 64; ++trial) {
    const Shape& shape = shapes[static_cast<size_t>(trial) % std::size(shapes)];
    const DType t = random.integer(0, 2) ? DType::f32 : DType::bf16;
    RowAttrs attrs;
    Chain c = random_rows(random, shape, t, static_cast<int>(random.integer(1, 14)), attrs);
    CAPTURE(trial, to_string(shape), std::string(name_of(t)), c.piece.nodes.size());
    check_on_threads(*backend, c, one_by_one(*backend, c, false));
  }
}

TEST_CASE("an index out of its row is an error") {
  const auto backend = make_cpu_backend();
  Random random(3);
  RowAttrs attrs;
  const OpDef* take = find_op("take_along_axis/1");
  Operand x = random.tensor(DType::f32, {4, 128}, -1, 1), idx = random.tensor(DType::i64, {4, 1}, 0, 128);
  set(idx.data(), DType::i64, 2, 128);
  Piece piece;
  piece.inputs = {x.layout, idx.layout};
  piece.nodes = {node("neg/1", {0}, {DType::f32, {4, 128}}),
                 node(take->id, {~0, 1}, {DType::f32, {4, 1}}, Attrs(take->attrs, attrs.pick.words()))};
  piece.outputs = {{1, 0}};
  auto kernel = backend->compile(piece);
  REQUIRE(kernel);
  CHECK((*kernel)->name().starts_with("tile:"));
  float result[4];
  void *const in[] = {x.data(), idx.data()}, *const out[] = {result};
  const Status status = (*kernel)->run(in, out, nullptr);
  CHECK(status.message() == "take_along_axis: the index of row 2 is outside [0, 128)");
}

TEST_CASE("joined vectors are read part by part") {
  const auto backend = make_cpu_backend();
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Random random(seed);
  const AttrList axis = AttrList().i(0);
  const OpDef* concat = find_op("concat/1");
  for (const DType t : {DType::f32, DType::bf16, DType::f64}) {
    for (int trial = 0; trial < 8; ++trial) {
      Chain c;
      const auto input = [&](const Shape& s, Random::Style style) {
        c.operands.push_back(random.tensor(t, s, -2, 2, style));
        c.piece.inputs.push_back(c.operands.back().layout);
        return static_cast<int>(c.operands.size()) - 1;
      };
      std::vector<int> parts;
      int64_t total = 0;
      const bool of_long_tiles = trial == 7;
      const int64_t n_parts = of_long_tiles ? 4 : random.integer(1, 60);
      for (int64_t k = 0; k < n_parts; ++k) {
        const int64_t n = of_long_tiles          ? random.integer(80'000, 200'000)
                          : random.integer(0, 3) ? random.integer(0, 70)
                                                 : random.integer(0, 5000);
        total += n;
        const auto style = static_cast<Random::Style>(random.integer(0, 4));
        parts.push_back(input({n}, of_long_tiles ? Random::dense : style));
      }
      const TensorType type{t, {total}};
      c.piece.nodes = {node(concat->id, parts, type, Attrs(concat->attrs, axis.words())),
                       node("mul/1", {~0, input({}, Random::dense)}, type),
                       node("sub/1", {input({total}, Random::dense), ~1}, type),
                       node("square/1", {~0}, type)};
      c.piece.nodes[0].plain = concat->plain;
      c.piece.outputs = {{2, 0}, {3, 0}};
      CAPTURE(trial, std::string(name_of(t)), total);
      check_on_threads(*backend, c, one_by_one(*backend, c, false));
    }
  }
}

TEST_CASE("binary operations read operands of any layout") {
  const auto backend = make_cpu_backend();
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Random random(seed);
  for (const Shape& shape : kShapes) {
    for (const DType t : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8}) {
      Operand a = random.tensor_any_style(t, narrower(random, shape), 0, 9);
      Operand b = random.tensor_any_style(t, shape, 0, 9);
      Piece piece;
      piece.inputs = {a.layout, b.layout};
      piece.nodes = {node("mul/1", {0, 1}, {t, shape}), node("add/1", {~0, 1}, {t, shape})};
      piece.outputs = {{1, 0}};
      Operand* const in[] = {&a, &b};
      const Ran ran = run(*backend, piece, in);
      CAPTURE(to_string(shape), to_string(a.layout.shape), to_string(a.layout.strides),
              to_string(b.layout.strides), std::string(name_of(t)));
      CHECK(ran.kernel.starts_with("tile:"));
      // a under the full shape, by stride 0 where it is broadcast
      Operand wide = a;
      while (wide.layout.shape.rank() < shape.rank()) {
        wide.layout.shape.insert(0, 1);
        wide.layout.strides.insert(0, 0);
      }
      for (int d = 0; d < shape.rank(); ++d)
        if (wide.layout.shape[d] != shape[d]) wide.layout.strides[d] = 0;
      wide.layout.shape = shape;
      const HostArray da = dense(wide), db = dense(b);
      int64_t wrong = 0;
      for (int64_t i = 0; i < shape.numel(); ++i) {
        HostArray expected(t, {1});
        expected.set(0, da.at(i) * db.at(i));
        if (t == DType::f32)
          expected.set(0, static_cast<double>(static_cast<float>(da.at(i)) * static_cast<float>(db.at(i))));
        expected.set(0, expected.at(0) + db.at(i));
        wrong += ran.out[0].at(i) != expected.at(0);
      }
      CHECK(wrong == 0);
    }
  }
}

// v' = v b + g, p' = p - v' and m' = p + v, each in place: the old p and v are still needed after v' is
// known.
TEST_CASE("outputs may take the memory of inputs that are read later") {
  const auto backend = make_cpu_backend();
  for (const DType t : {DType::f32, DType::bf16, DType::f64}) {
    for (const int64_t n : {1, 15, 16, 1000, 100000}) {
      Random random(7);
      Operand v = random.tensor(t, {n}, -1, 1), g = random.tensor(t, {n}, -1, 1),
              p = random.tensor(t, {n}, -1, 1);
      Operand b = random.tensor(t, {}, -1, 1);
      Piece piece;
      piece.inputs = {v.layout, g.layout, p.layout, b.layout};
      const TensorType type{t, {n}};
      piece.nodes = {node("mul/1", {0, 3}, type), node("add/1", {~0, 1}, type), node("sub/1", {2, ~1}, type),
                     node("add/1", {2, 0}, type)};
      piece.outputs = {{1, 0}, {2, 0}, {3, 0}};
      Operand* const operands[] = {&v, &g, &p, &b};
      const Ran apart = run(*backend, piece, operands);
      auto kernel = backend->compile(piece);
      REQUIRE(kernel);
      void* const in[] = {v.data(), g.data(), p.data(), b.data()};
      void* const out[] = {v.data(), p.data(), g.data()};
      REQUIRE((*kernel)->run(in, out, nullptr).is_ok());
      CHECK(same_bits(dense(v), apart.out[0]));
      CHECK(same_bits(dense(p), apart.out[1]));
      CHECK(same_bits(dense(g), apart.out[2]));
    }
  }
}

// Every operation that has machine code, at the values where it could go astray. Each is read by a second
// one, since a single one is left to the interpreter.
TEST_CASE("machine code gives the interpreter's bits, special values included") {
  const auto native = make_cpu_backend(true), plain = make_cpu_backend(false);
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float special[] = {0.0f,    -0.0f,   1.0f,    -1.0f, inf,   -inf,   nan,     1e-40f,
                           -1e-40f, 3e38f,   -3e38f,  88.8f, 89.0f, -87.4f, -103.9f, -104.1f,
                           100.0f,  -200.0f, 0.3466f, 2.5f,  1e-7f, 7.0f};
  const AttrList bounds = AttrList().f(-0.5).f(1.5), slope = AttrList().f(0.25), to_f32 = AttrList().i(0);
  struct Case {
    const char* op;
    int operands;
    bool compares = false;
    const AttrList* attrs = nullptr;
  };
  const Case cases[] = {{"add/1", 2},
                        {"sub/1", 2},
                        {"mul/1", 2},
                        {"div/1", 2},
                        {"minimum/1", 2},
                        {"maximum/1", 2},
                        {"neg/1", 1},
                        {"abs/1", 1},
                        {"square/1", 1},
                        {"relu/1", 1},
                        {"exp/1", 1},
                        {"sigmoid/1", 1},
                        {"silu/1", 1},
                        {"sqrt/1", 1},
                        {"rsqrt/1", 1},
                        {"reciprocal/1", 1},
                        {"equal/1", 2, true},
                        {"not_equal/1", 2, true},
                        {"less/1", 2, true},
                        {"less_equal/1", 2, true},
                        {"greater/1", 2, true},
                        {"greater_equal/1", 2, true},
                        {"clamp/1", 1, false, &bounds},
                        {"leaky_relu/1", 1, false, &slope}};
  for (const int64_t n : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{33}, int64_t{2000}}) {
    Random random(11);
    Operand x = random.tensor(DType::f32, {n}, -3, 3), y = random.tensor(DType::f32, {n}, -3, 3),
            one = random.tensor(DType::f32, {}, 1, 2);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t k = static_cast<int64_t>(std::size(special));
      set(x.data(), DType::f32, i, double{special[static_cast<size_t>(i % k)]});
      if (i / k < k) set(y.data(), DType::f32, i, double{special[static_cast<size_t>(i / k)]});
    }
    for (const Case& c : cases) {
      const OpDef* op = find_op(c.op);
      const OpDef* cast = find_op("cast/1");
      const Attrs attrs = c.attrs ? Attrs(op->attrs, c.attrs->words()) : Attrs();
      const DType result = c.compares ? DType::boolean : DType::f32;
      Piece piece;
      piece.inputs = {x.layout, y.layout, one.layout};
      piece.nodes = {
          node(c.op, c.operands == 2 ? std::vector<int>{0, 1} : std::vector<int>{0}, {result, {n}}, attrs)};
      if (c.compares) {
        piece.nodes.push_back(node("cast/1", {~0}, {DType::f32, {n}}, Attrs(cast->attrs, to_f32.words())));
        piece.nodes.push_back(node("where/1", {~0, 1, 2}, {DType::f32, {n}}));
      } else {
        piece.nodes.push_back(node("add/1", {~0, 2}, {DType::f32, {n}}));
        piece.nodes.push_back(node("mul/1", {~1, 0}, {DType::f32, {n}}));
      }
      piece.outputs = {{0, 0}, {1, 0}, {2, 0}};
      Operand* const operands[] = {&x, &y, &one};
      const Ran a = run(*native, piece, operands), b = run(*plain, piece, operands);
      CAPTURE(c.op, n, a.kernel);
      CHECK_FALSE(b.kernel.ends_with("native"));
#if defined(__x86_64__) && defined(__linux__)
      if (has_avx512())
        CHECK(a.kernel.ends_with("native"));
#endif
      for (size_t k = 0; k < 3; ++k) CHECK(same_bits(a.out[k], b.out[k]));
    }
  }
}

TEST_CASE("casts convert between all types") {
  const auto backend = make_cpu_backend();
  const DType types[] = {DType::f32, DType::f64, DType::bf16,   DType::i32,
                         DType::i64, DType::u8,  DType::boolean};
  for (const DType from : types)
    for (const DType to : types) {
      Operand x = Random(3).tensor(from, {1037}, 0, 100);
      Piece piece;
      piece.inputs = {x.layout};
      piece.nodes = {node("cast/1", {0}, {to, {1037}})};
      piece.outputs = {{0, 0}};
      Operand* const in[] = {&x};
      const Ran ran = run(*backend, piece, in);
      CHECK(ran.kernel.starts_with("tile:"));
      CAPTURE(std::string(name_of(from)), std::string(name_of(to)));
      int64_t wrong = 0;
      for (int64_t i = 0; i < 1037; ++i) {
        HostArray expected(to, {1});
        const double v = get(x.data(), from, i);
        expected.set(0, to == DType::boolean ? double(v != 0) : v);
        wrong += expected.at(0) != ran.out[0].at(i);
      }
      CHECK(wrong == 0);
    }
}

}  // namespace
}  // namespace tenon::test
