// Tile programs: a fused chain gives the bits of its operations one by one, however its inputs are laid out.
#include <cmath>

#include "tests/cpu/harness.h"

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
std::vector<HostArray> one_by_one(Backend& backend, Chain& c) {
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
    CHECK(ran.kernel.starts_with("tile:"));
    Operand& r = results.emplace_back();
    r.layout = Layout(n.outputs[0]);
    r.memory.assign(ran.out[0].data(), ran.out[0].data() + ran.out[0].size_bytes());
    r.memory.resize(r.memory.size() + 1);
  }
  std::vector<HostArray> out;
  for (const Piece::Output& o : c.piece.outputs) out.push_back(dense(results[static_cast<size_t>(o.node)]));
  return out;
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
    const Ran fused = run(*backend, c.piece, c.pointers());
    CHECK(fused.kernel.starts_with("tile:"));
    for (size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(fused.out[i], expected[i]));
    backend->set_threads(1);
    const Ran single = run(*backend, c.piece, c.pointers());
    backend->set_threads(3);
    const Ran three = run(*backend, c.piece, c.pointers());
    backend->set_threads(2);
    for (size_t i = 0; i < expected.size(); ++i) {
      CHECK(same_bits(single.out[i], expected[i]));
      CHECK(same_bits(three.out[i], expected[i]));
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
