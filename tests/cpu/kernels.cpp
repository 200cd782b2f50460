// Each fast kernel against the plain kernel of its op, on random shapes and layouts, and for several numbers
// of threads.
#include <cmath>

#include "backends/cpu/pair_gemm.h"
#include "core/graph/op.h"
#include "tests/cpu/harness.h"
#include "tests/support/vectors.h"

namespace tenon::test {
namespace {

using Style = Random::Style;

struct Call {
  std::string_view op;
  std::vector<Operand> in;
  AttrList attrs;
  // Size of the terms that make up a result: one that should be zero may be their rounding error.
  double terms = 0.05;
};

// The plain kernel's outputs.
std::vector<HostArray> plain(const OpDef& op, Call& call, std::span<const TensorType> types) {
  std::vector<View> in, out;
  std::vector<HostArray> results;
  for (Operand& o : call.in) in.emplace_back(o.layout, o.data());
  for (const TensorType& t : types) results.emplace_back(t.dtype, t.shape);
  for (HostArray& a : results) out.emplace_back(Layout(TensorType{a.dtype(), a.shape()}), a.data());
  const Status status = op.plain({in, out, Attrs(op.attrs, call.attrs.words())});
  INFO(status.message());
  REQUIRE(status.is_ok());
  return results;
}

Piece piece_of(const OpDef* op, Call& call) {
  REQUIRE(op);
  std::vector<TensorType> in, types;
  Piece piece;
  for (Operand& o : call.in) {
    in.push_back({o.layout.dtype, o.layout.shape});
    piece.inputs.push_back(o.layout);
  }
  const Status inferred = op->infer({in, Attrs(op->attrs, call.attrs.words()), types});
  INFO(inferred.message());
  REQUIRE(inferred.is_ok());
  PieceNode node;
  node.op = op->id;
  node.plain = op->plain;
  node.attrs = Attrs(op->attrs, call.attrs.words());
  node.outputs = types;
  for (size_t i = 0; i < in.size(); ++i) node.inputs.push_back(static_cast<int>(i));
  piece.nodes = {node};
  for (size_t i = 0; i < types.size(); ++i) piece.outputs.push_back({0, static_cast<int>(i)});
  return piece;
}

// Runs the call on its fast kernel, whose name must begin with `kernel`, and compares. Where sums are split
// by oneDNN, the last bits may depend on the number of threads; ours do not.
void check(Backend& backend, Call call, std::string_view kernel) {
  const OpDef* op = find_op(call.op);
  Piece piece = piece_of(op, call);
  const std::vector<TensorType> types = piece.nodes[0].outputs;

  // What the planner does: copies of the inputs that the backend wants contiguous.
  const uint32_t wants = backend.wants_contiguous(piece);
  for (size_t i = 0; i < call.in.size(); ++i) {
    if (!(wants >> i & 1u) || call.in[i].layout.contiguous()) continue;
    const HostArray copy = dense(call.in[i]);
    call.in[i] = {Layout(TensorType{copy.dtype(), copy.shape()}), std::vector<std::byte>(copy.data(), copy.data() + copy.size_bytes()), 0};
    piece.inputs[i] = call.in[i].layout;
  }
  std::vector<Operand*> operands;
  for (Operand& o : call.in) operands.push_back(&o);
  std::string what(call.op);
  for (const Layout& l : piece.inputs)
    what += " " + to_string(TensorType{l.dtype, l.shape}) + "/" + to_string(l.strides);
  CAPTURE(what);
  const std::vector<HostArray> expected = plain(*op, call, types);
  const Ran fast = run(backend, piece, operands);
  CHECK(fast.kernel.starts_with(kernel));
  for (size_t k = 0; k < expected.size(); ++k) {
    double scale = call.terms, worst = 0;
    const int64_t n = expected[k].numel();
    for (int64_t i = 0; i < n; ++i) {
      const double e = expected[k].at(i);
      if (std::isfinite(e)) scale = std::fmax(scale, std::fabs(e));
    }
    for (int64_t i = 0; i < n; ++i) {
      const double e = expected[k].at(i), g = fast.out[k].at(i);
      if (e == g || (std::isnan(e) && std::isnan(g))) continue;
      const double error = std::fabs(e - g) / (0.5 * std::fabs(e) + 0.5 * scale);
      if (!(error <= worst)) worst = error;
    }
    CAPTURE(k, worst, scale);
    CHECK(worst <= (types[k].dtype == DType::bf16 ? 1.6e-2 : types[k].dtype == DType::f64 ? 1e-12 : 2e-5));
  }
  backend.set_threads(1);
  const Ran one = run(backend, piece, operands);
  backend.set_threads(3);
  const Ran three = run(backend, piece, operands);
  backend.set_threads(2);
  if (!kernel.starts_with("onednn"))
    for (size_t k = 0; k < expected.size(); ++k) {
      CHECK(same_bits(one.out[k], fast.out[k]));
      CHECK(same_bits(three.out[k], fast.out[k]));
    }
}

struct Fixture {
  std::unique_ptr<Backend> backend = make_cpu_backend();
  uint32_t seed = std::random_device{}();
  Random random{seed};
  int64_t pick(int64_t lo, int64_t hi) { return random.integer(lo, hi); }
  bool flip() { return random.integer(0, 1) == 1; }
};

TEST_CASE_METHOD(Fixture, "matmul reads plain, transposed and broadcast operands") {
  CAPTURE(seed);
  for (int trial = 0; trial < 60; ++trial) {
    const bool ta = flip(), tb = flip();
    const int64_t m = pick(1, 40), k = pick(1, 70), n = pick(1, 40);
    Shape a = ta ? Shape{k, m} : Shape{m, k}, b = tb ? Shape{n, k} : Shape{k, n};
    for (int64_t d = 0; d < pick(0, 2); ++d) {
      const int64_t size = pick(1, 4);
      a.insert(0, flip() ? size : 1);
      b.insert(0, a[0] == 1 || flip() ? size : 1);
    }
    if (flip()) b = Shape(std::span(b.end() - 2, 2));
    const auto style = [&] { return static_cast<Style>(pick(0, 4)); };
    check(*backend,
          {"matmul/1",
           {random.tensor(DType::f32, a, -1, 1, style()), random.tensor(DType::f32, b, -1, 1, style())},
           AttrList().i(ta).i(tb)},
          "onednn:matmul");
  }
}

TEST_CASE_METHOD(Fixture, "matmul of f64 in any layout, across the bounds of its blocks") {
  CAPTURE(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const bool ta = flip(), tb = flip(), large = trial % 8 == 0;
    const int64_t m = pick(2, large ? 200 : 40), k = pick(1, large ? 600 : 40), n = pick(2, large ? 200 : 40);
    Shape a = ta ? Shape{k, m} : Shape{m, k}, b = tb ? Shape{n, k} : Shape{k, n};
    if (!large && flip()) a.insert(0, pick(1, 3));
    if (!large && flip()) b.insert(0, a.rank() == 3 && a[0] > 1 ? a[0] : pick(1, 3));
    const auto style = [&] { return static_cast<Style>(pick(0, 4)); };
    check(*backend,
          {"matmul/1",
           {random.tensor(DType::f64, a, -1, 1, style()), random.tensor(DType::f64, b, -1, 1, style())},
           AttrList().i(ta).i(tb)},
          "cpu:gemm_f64");
  }
}

TEST_CASE_METHOD(Fixture, "f64 matrices times vectors, from the left and from the right") {
  CAPTURE(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const bool ta = flip(), tb = flip(), right = flip(), large = trial % 8 == 0;
    const int64_t k = pick(1, large ? 1500 : 90), n = pick(2, large ? 300 : 90);
    const Shape matrix = right == ta ? Shape{k, n} : Shape{n, k}, other = right != tb ? Shape{k, 1} : Shape{1, k};
    const Shape a = right ? matrix : ta ? Shape{k, 1} : Shape{1, k}, b = right ? other : tb ? Shape{n, k} : Shape{k, n};
    check(*backend, {"matmul/1", {random.tensor(DType::f64, a, -1, 1), random.tensor(DType::f64, b, -1, 1)}, AttrList().i(ta).i(tb)},
          "cpu:matvec_f64");
  }
}

// x x^T / n + I of random x, which is well conditioned.
Operand positive_definite(Random& random, int64_t batch, int64_t n) {
  Operand a = random.tensor(DType::f64, {batch, n, n}, 0, 1);
  auto* m = static_cast<double*>(a.data());
  for (int64_t i = 0; i < batch; ++i, m += n * n) {
    std::vector<double> x(static_cast<size_t>(n * n));
    for (double& v : x) v = random.real(-1, 1);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c <= r; ++c) {
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) sum += x[static_cast<size_t>(r * n + k)] * x[static_cast<size_t>(c * n + k)];
        const double v = sum / static_cast<double>(n) + (r == c ? 1 : 0), skew = random.real(-1, 1);  // only the mean counts
        m[r * n + c] = v + (r == c ? 0 : skew), m[c * n + r] = v - (r == c ? 0 : skew);
      }
  }
  return a;
}

TEST_CASE_METHOD(Fixture, "cholesky of f64, across the bounds of its blocks") {
  CAPTURE(seed);
  for (const int64_t n : {int64_t{1}, int64_t{31}, int64_t{32}, int64_t{33}, int64_t{257}, pick(2, 100), pick(300, 600)})
    check(*backend, {"cholesky/1", {positive_definite(random, n < 100 ? 2 : 1, n)}, {}}, "cpu:cholesky_f64");
}

TEST_CASE_METHOD(Fixture, "cholesky refuses a matrix that is not positive definite") {
  Call call{"cholesky/1", {positive_definite(random, 2, 70)}, {}};
  static_cast<double*>(call.in[0].data())[70 * 70 + 50 * 71] = -1;  // of the second
  const auto kernel = backend->compile(piece_of(find_op(call.op), call));
  REQUIRE(kernel);
  std::vector<std::byte> scratch((*kernel)->scratch_bytes());
  std::vector<double> out(2 * 70 * 70);
  void *in = call.in[0].data(), *to = out.data();
  const Status s = (*kernel)->run(std::span(&in, 1), std::span(&to, 1), scratch.data());
  CHECK(s.message() == "cholesky: matrix 1 of the batch is not positive definite; add a small multiple of the identity");
}

TEST_CASE_METHOD(Fixture, "bf16 matmul accumulates in f32") {
  CAPTURE(seed);
  for (int trial = 0; trial < 10; ++trial) {
    const int64_t m = pick(1, 40), k = pick(1, 300), n = pick(1, 40);
    check(*backend,
          {"matmul/1",
           {random.tensor(DType::bf16, {m, k}, -1, 1), random.tensor(DType::bf16, {n, k}, -1, 1)},
           AttrList().i(0).i(1)},
          "onednn:matmul");
  }
}

TEST_CASE_METHOD(Fixture, "products of mixed precision round their sums once, bias included") {
  CAPTURE(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const bool ta = flip(), tb = flip();
    const int64_t m = pick(1, 40), k = pick(1, 300), n = pick(1, 40);
    const DType result = flip() ? DType::f32 : DType::bf16;
    Shape a = ta ? Shape{k, m} : Shape{m, k};
    if (flip()) a.insert(0, pick(1, 4));
    Call call{
        "mixed_matmul/1",
        {random.tensor(DType::bf16, a, -1, 1, static_cast<Style>(pick(0, 4))),
         random.tensor(DType::bf16, tb ? Shape{n, k} : Shape{k, n}, -1, 1, static_cast<Style>(pick(0, 4)))},
        AttrList().i(ta).i(tb).i(static_cast<int64_t>(result))};
    if (flip()) call.in.push_back(random.tensor(DType::f32, {n}, -10, 10, static_cast<Style>(pick(0, 4))));
    check(*backend, call, "onednn:matmul");
  }
}

TEST_CASE_METHOD(Fixture, "products of pairs of bf16 add up what the rows hold") {
  CAPTURE(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const int64_t m = pick(1, 20), n = pick(1, 70), k = pick(1, 40), words = (k + 1) / 2;
    const bool along_columns = flip(), add = flip();
    Operand a = random.tensor(DType::bf16, {m, k}, -1, 1), b = random.tensor(DType::bf16, {n, k}, -1, 1);
    std::vector<uint32_t> left(static_cast<size_t>(m * words)), right(static_cast<size_t>(n * words));
    cpu::PairMatrix x{left.data(), words, 1};
    if (along_columns) {  // the same matrix, stored transposed
      std::vector<bf16> turned(static_cast<size_t>(m * k));
      for (int64_t i = 0; i < m * k; ++i)
        turned[static_cast<size_t>(i % k * m + i / k)] = static_cast<const bf16*>(a.data())[i];
      std::vector<float> wide(turned.size());
      std::transform(turned.begin(), turned.end(), wide.begin(),
                     [](bf16 v) { return static_cast<float>(v); });
      if (flip())
        cpu::pair_gemm().along_columns(turned.data(), k, m, m, left.data());
      else
        cpu::pair_gemm().round_along_columns(wide.data(), k, m, m, left.data());
      x = {left.data(), 1, m};
    } else {
      cpu::pair_along_rows(static_cast<const bf16*>(a.data()), m, k, k, left.data());
    }
    cpu::pair_gemm().along_rows_transposed(static_cast<const bf16*>(b.data()), n, k, k, right.data());
    for (const cpu::PairGemm* gemm : {&cpu::pair_gemm(), &cpu::portable_pair_gemm()}) {
      std::vector<float> c(static_cast<size_t>(m * (n + 3)), 0.5f);
      gemm->multiply(m, n, words, x, right.data(), n, 2, c.data(), n + 3, add);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n + 3; ++j) {
          double sum = add || j >= n ? 0.5 : 0;
          for (int64_t l = 0; l < k && j < n; ++l)
            sum += 2 * get(a.data(), DType::bf16, i * k + l) * get(b.data(), DType::bf16, j * k + l);
          CAPTURE(m, n, k, i, j);
          REQUIRE(std::fabs(c[static_cast<size_t>(i * (n + 3) + j)] - sum) < 1e-4);
        }
    }
  }
}

TEST_CASE_METHOD(Fixture, "convolutions agree with the plain loops") {
  CAPTURE(seed);
  for (int trial = 0; trial < 24; ++trial) {
    const int64_t groups = trial % 3 == 0 ? 2 : 1, b = pick(1, 3), c = pick(1, 9) * groups,
                  o = pick(1, 9) * groups;
    const int64_t kh = pick(1, 3), kw = pick(1, 3), dh = pick(1, 2), dw = pick(1, 2), sh = pick(1, 2),
                  sw = pick(1, 2);
    const int64_t pt = pick(0, 2), pl = pick(0, 2), pb = pick(0, 2), pr = pick(0, 2);
    const int64_t h = pick(dh * (kh - 1) + 1, 12), w = pick(dw * (kw - 1) + 1, 12);
    const Shape x{b, c, h, w}, weight{o, c / groups, kh, kw};
    const Shape y{b, o, (h + pt + pb - dh * (kh - 1) - 1) / sh + 1,
                  (w + pl + pr - dw * (kw - 1) - 1) / sw + 1};
    const auto attrs = [&] {
      return AttrList().ints(Dims{sh, sw}).ints(Dims{pt, pl, pb, pr}).ints(Dims{dh, dw}).i(groups);
    };
    const auto tensor = [&](const Shape& s) { return random.tensor(DType::f32, s, -1, 1); };
    check(*backend, {"conv2d/1", {tensor(x), tensor(weight)}, attrs()}, "onednn:conv2d");
    check(*backend, {"conv2d_input_grad/1", {tensor(weight), tensor(y)}, attrs().ints(x)},
          "onednn:conv2d_input_grad");
    check(*backend, {"conv2d_weight_grad/1", {tensor(x), tensor(y)}, attrs().ints(Dims{kh, kw})},
          "onednn:conv2d_weight_grad");
  }
}

TEST_CASE_METHOD(Fixture, "pooling agrees with the plain loops") {
  CAPTURE(seed);
  for (int trial = 0; trial < 20; ++trial) {
    const bool halving = trial % 3 == 0;  // has code of its own
    const int64_t kh = halving ? 2 : pick(1, 3), kw = halving ? 2 : pick(1, 3),
                  ph = halving ? 0 : pick(0, kh / 2);
    const int64_t sh = halving ? 2 : pick(1, 3), sw = halving ? 2 : pick(1, 3),
                  pw = halving ? 0 : pick(0, kw / 2);
    const Shape x{pick(1, 3), pick(1, 5), pick(kh, 14), pick(kw, 40)};
    const Shape y{x[0], x[1], (x[2] + 2 * ph - kh) / sh + 1, (x[3] + 2 * pw - kw) / sw + 1};
    const auto attrs = [&] { return AttrList().ints(Dims{kh, kw}).ints(Dims{sh, sw}).ints(Dims{ph, pw}); };
    Operand ties = random.tensor(DType::f32, x, -3, 3);
    for (int64_t i = 0; i < x.numel(); ++i)
      set(ties.data(), DType::f32, i, std::floor(get(ties.data(), DType::f32, i)));
    check(*backend, {"max_pool2d/1", {ties}, attrs()}, "cpu:max_pool2d");
    check(*backend, {"max_pool2d_grad/1", {ties, random.tensor(DType::f32, y, -1, 1)}, attrs()},
          "cpu:max_pool2d_grad");
    for (const DType t : {DType::f32, DType::bf16}) {
      if (t == DType::bf16 && !has_avx512()) continue;
      const bool side_by_side =
          t == DType::f32 && kh == sh && kw == sw && ph == 0 && pw == 0;  // has code of its own, too
      check(*backend, {"avg_pool2d/1", {random.tensor(t, x, -1, 1)}, attrs()},
            side_by_side ? "cpu:avg_pool2d" : "onednn:avg_pool2d");
      check(*backend, {"avg_pool2d_grad/1", {random.tensor(t, y, -1, 1)}, attrs().ints(x)},
            "onednn:avg_pool2d_grad");
    }
  }
}

const Shape kRowShapes[] = {{1}, {17}, {3, 1}, {1, 64}, {5, 33}, {2, 3, 10}, {129, 7}, {2, 1500}, {300, 260}};

TEST_CASE_METHOD(Fixture, "softmax and its derivatives agree with the plain loops") {
  CAPTURE(seed);
  for (const Shape& s : kRowShapes)
    for (const DType t : {DType::f32, DType::bf16}) {
      const auto tensor = [&](double lo, double hi) {
        return random.tensor(t, s, lo, hi, static_cast<Style>(pick(0, 4)));
      };
      check(*backend, {"softmax/1", {tensor(-4, 4)}, AttrList().i(-1)}, "cpu:softmax");
      check(*backend, {"log_softmax/1", {tensor(-4, 4)}, AttrList().i(-1)}, "cpu:log_softmax");
      check(*backend, {"softmax_grad/1", {tensor(0, 1), tensor(-1, 1)}, AttrList().i(s.rank() - 1)},
            "cpu:softmax_grad");
      check(*backend, {"log_softmax_grad/1", {tensor(-3, 0), tensor(-1, 1)}, AttrList().i(-1)},
            "cpu:log_softmax_grad");
    }
}

TEST_CASE_METHOD(Fixture, "cross-entropy agrees with the plain loops and reports labels out of range") {
  CAPTURE(seed);
  for (const Shape& s : kRowShapes)
    for (const DType t : {DType::f32, DType::bf16})
      for (const double smoothing : {0.0, 0.1}) {
        Shape samples = s;
        samples.pop_back();
        Operand labels =
            random.tensor(flip() ? DType::i32 : DType::i64, samples, 0, static_cast<double>(s.back()));
        if (samples.numel() > 2) set(labels.data(), labels.layout.dtype, 1, -100);
        const auto attrs = [&] { return AttrList().f(smoothing).i(-100); };
        const Operand logits = random.tensor(t, s, -4, 4);
        check(*backend, {"cross_entropy/1", {logits, labels}, attrs()}, "cpu:cross_entropy");
        const Operand dloss = random.tensor(t, samples, -1, 1, flip() ? Style::dense : Style::broadcast);
        check(*backend, {"cross_entropy_grad/1", {logits, labels, dloss}, attrs()}, "cpu:cross_entropy_grad");
      }
  const OpDef* op = find_op("cross_entropy/1");
  Operand logits = random.tensor(DType::f32, {2, 3}, -1, 1), labels = random.tensor(DType::i64, {2}, 0, 1);
  set(labels.data(), DType::i64, 1, 3);
  const AttrList attrs = AttrList().f(0).i(-100);
  Piece piece;
  piece.inputs = {logits.layout, labels.layout};
  piece.nodes = {node(op->id, {0, 1}, {DType::f32, {2}}, Attrs(op->attrs, attrs.words()))};
  piece.outputs = {{0, 0}};
  auto kernel = backend->compile(piece);
  REQUIRE(kernel);
  float loss[2];
  std::vector<std::byte> scratch((*kernel)->scratch_bytes() + 64);
  void *const in[] = {logits.data(), labels.data()}, *const out[] = {loss};
  const Status status = (*kernel)->run(in, out, scratch.data());
  CHECK(status.code() == Code::invalid);
  CHECK(status.message().find("label 3 of sample 1 is outside [0, 3)") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "layer norm, RMS norm and their derivatives agree with the plain loops") {
  CAPTURE(seed);
  for (const Shape& s : kRowShapes)
    for (const DType t : {DType::f32, DType::bf16}) {
      const auto x = [&] { return random.tensor(t, s, -2, 2, flip() ? Style::permuted : Style::spaced); };
      const auto p = [&] { return random.tensor(t, {s.back()}, 0.5, 1.5); };
      const auto eps = [] { return AttrList().f(1e-2); };
      check(*backend, {"layer_norm/1", {x(), p(), p()}, eps()}, "cpu:layer_norm");
      check(*backend, {"rms_norm/1", {x(), p()}, eps()}, "cpu:rms_norm");
      check(*backend, {"layer_norm_grad/1", {x(), p(), x()}, eps()}, "cpu:layer_norm_grad");
      check(*backend, {"rms_norm_grad/1", {x(), p(), x()}, eps()}, "cpu:rms_norm_grad");
    }
}

TEST_CASE_METHOD(Fixture, "batch norm and its derivative agree with the plain loops") {
  CAPTURE(seed);
  for (const Shape& s :
       {Shape{3, 5, 4}, Shape{2, 3, 7, 5}, Shape{1, 1, 33}, Shape{1, 3, 33}, Shape{8, 17, 16, 16}})
    for (const auto& [narrow, t] : {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}}) {
      const Operand x = random.tensor(narrow, s, -2, 2), dy = random.tensor(t, s, -2, 2);
      const auto p = [&, type = t] { return random.tensor(type, {s[1]}, 0.5, 1.5); };
      check(*backend, {"batch_norm/1", {x, p(), p()}, AttrList().f(1e-3)}, "cpu:batch_norm");
      // The sums of a single channel may cancel, and then nothing is left to measure their rounding by.
      if (s[1] > 1)
        check(*backend, {"batch_norm_grad/1", {x, p(), p(), p(), dy}, AttrList().f(1e-3)},
              "cpu:batch_norm_grad");
    }
  for (const Shape& s : {Shape{64, 5}, Shape{2, 3}, Shape{37, 130}, Shape{9, 4, 3}, Shape{16, 3, 1, 2}}) {
    const auto x = [&] { return random.tensor(DType::f32, s, -2, 2); };
    const auto p = [&] { return random.tensor(DType::f32, {s[1]}, 0.5, 1.5); };
    check(*backend, {"batch_norm/1", {x(), p(), p()}, AttrList().f(1e-3)}, "onednn:batch_norm");
    check(*backend, {"batch_norm_grad/1", {x(), p(), p(), p(), x()}, AttrList().f(1e-3)},
          "onednn:batch_norm_grad");
  }
}

TEST_CASE_METHOD(Fixture,
                 "attention agrees with the plain loops, causal or masked, on heads as they are split") {
  CAPTURE(seed);
  for (int trial = 0; trial < 32; ++trial) {
    const DType type = trial < 16 ? DType::f32 : DType::bf16;
    const bool causal = flip();
    const int64_t b = pick(1, 2), h = pick(1, 3), s = trial % 16 < 4 ? pick(100, 300) : pick(1, 40),
                  t = causal ? pick(1, s) : pick(1, 40);
    const int64_t d = pick(1, 20), dv = pick(1, 20);
    // [B, H, T, D] as a view of [B, T, H, D]
    const auto heads = [&](int64_t rows, int64_t width) {
      Operand o = random.tensor(type, {b, rows, h, width}, -1, 1);
      std::swap(o.layout.shape[1], o.layout.shape[2]);
      std::swap(o.layout.strides[1], o.layout.strides[2]);
      return o;
    };
    const auto attrs = [&] { return AttrList().i(causal).f(trial % 2 ? 0 : 0.3); };
    // Probabilities are rounded to bf16 before they weigh the values.
    Call call{"attention/1", {heads(t, d), heads(s, d), heads(s, dv)}, attrs(), type == DType::bf16 ? 1.0 : 0.05};
    Operand mask = random.tensor(type, flip() ? Shape{t, s} : Shape{b, 1, 1, s}, -1, 1);
    const bool masked = flip();
    if (masked) call.in.push_back(mask);
    check(*backend, call, type == DType::bf16 ? "cpu:attention_bf16" : "cpu:attention");
    call.op = "attention_grad/1";
    call.in.resize(3);
    call.in.push_back(random.tensor(DType::f32, {b, h, t}, 1, 3));
    call.in.push_back(random.tensor(DType::f32, {b, h, t}, -1, 1));
    call.in.push_back(heads(t, dv));
    if (masked) call.in.push_back(mask);
    check(*backend, call, type == DType::bf16 ? "cpu:attention_grad_bf16" : "cpu:attention_grad");
  }
}

TEST_CASE_METHOD(Fixture, "grouped products agree with the plain loops") {
  CAPTURE(seed);
  for (int trial = 0; trial < 10; ++trial) {
    const int64_t experts = pick(1, 5), inner = pick(1, 30), columns = pick(1, 30), rows = pick(1, 50);
    Operand offsets = random.tensor(DType::i64, {experts + 1}, 0, 1);
    std::vector<int64_t> cuts{0, rows};
    while (static_cast<int64_t>(cuts.size()) < experts + 1) cuts.push_back(pick(0, rows));
    std::sort(cuts.begin(), cuts.end());
    for (int64_t e = 0; e <= experts; ++e)
      set(offsets.data(), DType::i64, e, static_cast<double>(cuts[static_cast<size_t>(e)]));
    const auto tensor = [&](const Shape& s) { return random.tensor(DType::f32, s, -1, 1); };
    const bool transpose = flip();
    check(*backend,
          {"grouped_matmul/1",
           {tensor({rows, inner}),
            tensor(transpose ? Shape{experts, columns, inner} : Shape{experts, inner, columns}), offsets},
           AttrList().i(transpose)},
          "onednn:grouped_matmul");
    check(*backend,
          {"grouped_matmul_weight/1", {tensor({rows, inner}), tensor({rows, columns}), offsets}, {}},
          "onednn:grouped_matmul_weight");
  }
}

TEST_CASE_METHOD(Fixture, "reductions over any axes agree with the plain loops") {
  CAPTURE(seed);
  const Shape shapes[] = {{1},      {37},       {5, 7},     {3, 1, 9},    {4, 5, 6, 7},
                          {100000}, {3, 50000}, {50000, 3}, {64, 8, 100}, {2, 300, 200}};
  const std::pair<std::string_view, std::string_view> ops[] = {
      {"sum/1", "cpu:sum"}, {"mean/1", "cpu:mean"}, {"max/1", "cpu:max"}, {"min/1", "cpu:min"}};
  for (const Shape& s : shapes)
    for (const DType t : {DType::f32, DType::bf16})
      for (const auto& [op, kernel] : ops)
        for (int trial = 0; trial < 3; ++trial) {
          Axes axes;
          for (int d = 0; d < s.rank(); ++d)
            if (flip()) axes.push_back(d);
          const Operand x = random.tensor(t, s, 0, 1, static_cast<Style>(pick(0, 4)));
          check(*backend, {op, {x}, AttrList().ints(axes).i(flip())}, kernel);
          if (trial == 0)
            check(*backend, {"logsumexp/1", {x}, AttrList().ints(Axes{s.rank() - 1}).i(0)}, "cpu:logsumexp");
        }
}

TEST_CASE_METHOD(Fixture, "copies make any layout row-major") {
  CAPTURE(seed);
  const Shape shapes[] = {{1}, {0}, {37}, {5, 7}, {200, 130}, {3, 65, 33}, {4, 5, 6, 7}, {70000}, {300, 400}};
  const DType types[] = {DType::f32, DType::f64, DType::bf16,   DType::i32,
                         DType::i64, DType::u8,  DType::boolean};
  for (const Shape& s : shapes)
    for (const DType t : types)
      for (int style = 0; style < 5; ++style)
        check(*backend, {"contiguous/1", {random.tensor(t, s, 0, 100, static_cast<Style>(style))}, {}},
              "cpu:");
}

TEST_CASE_METHOD(Fixture, "gather and scatter_add agree with the plain loops") {
  CAPTURE(seed);
  for (int trial = 0; trial < 20; ++trial) {
    const int64_t n = pick(1, 300), axis = pick(0, 1);
    const Shape idx = flip() ? Shape{pick(1, 40)} : Shape{pick(1, 9), pick(1, 300)};
    Shape x{pick(1, 5), pick(1, 70)};
    x.insert(static_cast<int>(axis), n);
    Shape gathered;
    for (int d = 0; d < 3; ++d) {
      if (d != axis)
        gathered.push_back(x[d]);
      else
        for (const int64_t size : idx) gathered.push_back(size);
    }
    const Operand indices = random.tensor(flip() ? DType::i32 : DType::i64, idx, 0, static_cast<double>(n));
    const auto attrs = [&] { return AttrList().i(axis); };
    check(*backend, {"gather/1", {random.tensor_any_style(DType::f32, x, -1, 1), indices}, attrs()},
          "cpu:gather");
    check(
        *backend,
        {"scatter_add/1",
         {random.tensor_any_style(DType::f32, x, -1, 1), indices, random.tensor(DType::f32, gathered, -1, 1)},
         attrs()},
        "cpu:scatter_add");
  }
}

TEST_CASE_METHOD(Fixture, "concat, pad, slice_grad and reshape agree with the plain loops") {
  CAPTURE(seed);
  for (int trial = 0; trial < 30; ++trial) {
    const DType t =
        std::array{DType::f32, DType::bf16, DType::i64, DType::boolean}[static_cast<size_t>(pick(0, 3))];
    const int axis = static_cast<int>(pick(0, 2));
    Shape shape{pick(1, 6), pick(1, 70), pick(1, 90)};
    Call join{"concat/1", {}, AttrList().i(axis)};
    for (int64_t i = 0; i < pick(1, 5); ++i) {
      shape[axis] = pick(0, 40);
      join.in.push_back(random.tensor_any_style(t, shape, 0, 9));
    }
    shape[axis] = 1;  // at least one element
    join.in.push_back(random.tensor(t, shape, 0, 9));
    check(*backend, join, "cpu:concat");

    Dims low, high, start, stop, step, whole;
    for (int d = 0; d < 3; ++d) {
      low.push_back(pick(0, 3));
      high.push_back(pick(0, 3));
      const int64_t every = pick(1, 3), first = pick(0, 4), n = shape[d];
      const bool back = flip();
      start.push_back(back ? first + (n - 1) * every : first);
      stop.push_back(back ? first - 1 : first + (n - 1) * every + 1);
      step.push_back(back ? -every : every);
      whole.push_back(first + n * every + pick(0, 3));
    }
    const Operand x = random.tensor_any_style(t, shape, 0, 9);
    check(*backend, {"pad/1", {x}, AttrList().ints(low).ints(high).f(is_floating(t) ? 0.7 : 0)}, "cpu:pad");
    check(*backend, {"slice_grad/1", {x}, AttrList().ints(whole).ints(start).ints(stop).ints(step)},
          "cpu:slice_grad");
    check(*backend, {"reshape/1", {x}, AttrList().ints(Dims{shape[0] * shape[1] * shape[2]})}, "cpu:");
  }
}

TEST_CASE_METHOD(Fixture, "random draws are the plain kernels' numbers") {
  CAPTURE(seed);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{10001}, Shape{3, 5000}}) {
    const Operand key = random.tensor(DType::i64, {}, -1e9, 1e9);
    const auto draw = [&] { return AttrList().ints(shape).i(static_cast<int64_t>(DType::f32)); };
    check(*backend, {"random_uniform/1", {key}, draw()}, "cpu:random_uniform");
    check(*backend, {"random_normal/1", {key}, draw()}, "cpu:random_normal");
    check(*backend,
          {"random_bernoulli/1", {key, random.tensor(DType::f32, {}, 0, 1)}, AttrList().ints(shape)},
          "cpu:random_bernoulli");
    check(*backend,
          {"random_bernoulli/1", {key, random.tensor(DType::f32, shape, 0, 1)}, AttrList().ints(Dims{})},
          "cpu:random_bernoulli");
  }
}

// A small product runs on one thread, and OpenMP's number of threads belongs to the whole program.
TEST_CASE_METHOD(Fixture, "a product leaves the threads of later backends as they were") {
  const int before = make_cpu_backend()->threads();
  check(
      *backend,
      {"matmul/1", {random.tensor(DType::f32, {4, 3}, -1, 1), random.tensor(DType::f32, {3, 5}, -1, 1)}, {}},
      "onednn:matmul");
  CHECK(make_cpu_backend()->threads() == before);
}

}  // namespace
}  // namespace tenon::test
