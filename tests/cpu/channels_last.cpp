// Kernels that take channels-last tensors, against themselves on the same tensors row-major: the same bits.
#include "core/tensor/channels_last.h"

#include <limits>

#include "core/graph/op.h"
#include "tests/cpu/harness.h"
#include "tests/support/vectors.h"

namespace tenon::test {
namespace {

// The operand's elements in memory [B, .., C].
Operand channels_last(Operand& o) {
  Operand view = o;
  view.layout = {o.layout.dtype, in_memory_order(o.layout.shape), in_memory_order(o.layout.strides)};
  const HostArray moved = dense(view);
  Operand r;
  r.layout = {o.layout.dtype, o.layout.shape, channels_last_strides(o.layout.shape)};
  r.memory.assign(moved.data(), moved.data() + moved.size_bytes());
  return r;
}

// A result that lies channels-last, row-major.
HostArray row_major(const HostArray& a) {
  Operand o;
  o.layout = {a.dtype(), a.shape(), channels_last_strides(a.shape())};
  o.memory.assign(a.data(), a.data() + a.size_bytes());
  return dense(o);
}

void check(Backend& backend, std::string_view id, std::vector<Operand> in, const AttrList& attrs,
           ChannelsLast mode) {
  const OpDef* op = find_op(id);
  REQUIRE(op);
  std::vector<TensorType> given, types;
  Piece piece;
  for (const Operand& o : in) {
    given.push_back({o.layout.dtype, o.layout.shape});
    piece.inputs.push_back(o.layout);
  }
  REQUIRE(op->infer({given, Attrs(op->attrs, attrs.words()), types}).is_ok());
  PieceNode node{.op = op->id,
                 .plain = op->plain,
                 .attrs = Attrs(op->attrs, attrs.words()),
                 .inputs = {},
                 .outputs = types};
  for (size_t i = 0; i < in.size(); ++i) node.inputs.push_back(static_cast<int>(i));
  piece.nodes = {node};
  for (size_t o = 0; o < types.size(); ++o) piece.outputs.push_back({0, static_cast<int>(o)});
  CAPTURE(std::string(id), to_string(given[0]), to_string(types[0]));
  CHECK(backend.channels_last(piece) == mode);

  std::vector<Operand*> operands;
  for (Operand& o : in) operands.push_back(&o);
  const Ran expected = run(backend, piece, operands);
  bool any = false;
  for (size_t i = 0; i < in.size(); ++i)
    if (has_channels_last(in[i].layout.shape)) {
      in[i] = channels_last(in[i]);
      piece.inputs[i] = in[i].layout;
      any = true;
    }
  if (mode == ChannelsLast::keeps && !any) return;
  for (size_t o = 0; o < types.size(); ++o)
    piece.outputs[o].channels_last = mode != ChannelsLast::reads && has_channels_last(types[o].shape);
  const Ran moved = run(backend, piece, operands);
  CHECK_FALSE(moved.kernel.starts_with("plain"));
  for (size_t o = 0; o < types.size(); ++o)
    CHECK(
        same_bits(piece.outputs[o].channels_last ? row_major(moved.out[o]) : moved.out[o], expected.out[o]));
}

struct Fixture {
  std::unique_ptr<Backend> backend = make_cpu_backend();
  uint32_t seed = std::random_device{}();
  Random random{seed};
  int64_t pick(int64_t lo, int64_t hi) { return random.integer(lo, hi); }
  Operand tensor(const Shape& s, double lo = -2, double hi = 2) {
    return random.tensor(DType::f32, s, lo, hi);
  }
};

TEST_CASE_METHOD(Fixture, "convolutions have the same bits in either layout") {
  CAPTURE(seed);
  for (int trial = 0; trial < 16; ++trial) {
    const int64_t groups = trial % 3 == 0 ? 3 : 1, b = pick(1, 5), c = pick(1, 20) * groups,
                  o = pick(1, 20) * groups;
    const bool pointwise = trial % 4 == 1;  // strided, too, has code of its own
    const int64_t k = pointwise ? 1 : pick(1, 3), s = pointwise ? 2 : pick(1, 2),
                  p = pointwise ? 0 : pick(0, 2);
    const int64_t h = pick(k, 12), w = pick(k, 12);
    const Shape x{b, c, h, w}, weight{o, c / groups, k, k},
        y{b, o, (h + 2 * p - k) / s + 1, (w + 2 * p - k) / s + 1};
    const auto attrs = [&] {
      return AttrList().ints(Dims{s, s}).ints(Dims{p, p}).ints(Dims{1, 1}).i(groups);
    };
    check(*backend, "conv2d/1", {tensor(x), tensor(weight)}, attrs(), ChannelsLast::prefers);
    check(*backend, "conv2d_input_grad/1", {tensor(weight), tensor(y)}, attrs().ints(x),
          ChannelsLast::prefers);
    check(*backend, "conv2d_weight_grad/1", {tensor(x), tensor(y)}, attrs().ints(Dims{k, k}),
          ChannelsLast::reads);
  }
}

TEST_CASE_METHOD(Fixture, "batch norm has the same bits in either layout") {
  CAPTURE(seed);
  for (int trial = 0; trial < 24; ++trial) {
    const Shape x{trial == 0 ? 37 : pick(1, 6), pick(2, trial % 2 == 0 ? 20 : 150), pick(2, 20), pick(2, 20)};
    const Shape c{x[1]};
    const auto eps = [] { return AttrList().f(1e-3); };
    const Operand images = random.tensor(trial % 3 == 0 ? DType::bf16 : DType::f32, x, -2, 2);
    check(*backend, "batch_norm/1", {images, tensor(c), tensor(c)}, eps(), ChannelsLast::keeps);
    check(*backend, "batch_norm_grad/1", {images, tensor(c), tensor(c), tensor(c, 0.5, 2), tensor(x)}, eps(),
          ChannelsLast::keeps);
  }
}

TEST_CASE_METHOD(Fixture, "sums over places have the same bits in either layout") {
  CAPTURE(seed);
  for (int trial = 0; trial < 24; ++trial) {
    const bool large = trial % 4 == 0;  // sums are split
    const Shape x{pick(1, 6), pick(2, large ? 3 : 100), pick(2, large ? 200 : 20), pick(1, large ? 300 : 20)};
    for (const Axes& axes : {Axes{2, 3}, Axes{0, 2, 3}})
      for (const std::string_view op : {"sum/1", "mean/1"})
        check(*backend, op, {tensor(x)}, AttrList().ints(axes).i(trial % 2), ChannelsLast::reads);
  }
}

TEST_CASE_METHOD(Fixture,
                 "max pooling has the same bits in either layout, with ties, NaN and zeros of both signs") {
  CAPTURE(seed);
  for (int trial = 0; trial < 24; ++trial) {
    const int64_t k = trial % 2 == 0 ? 2 : pick(1, 3), s = trial % 2 == 0 ? 2 : pick(1, 3);
    const Shape x{pick(1, 4), pick(2, 40), pick(k, 14), pick(k, 40)};
    const Shape y{x[0], x[1], (x[2] - k) / s + 1, (x[3] - k) / s + 1};
    const auto attrs = [&] { return AttrList().ints(Dims{k, k}).ints(Dims{s, s}).ints(Dims{0, 0}); };
    Operand values = tensor(x), dy = tensor(y);
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double v = std::floor(get(values.data(), DType::f32, i));
      const int64_t kind = pick(0, 20);
      set(values.data(), DType::f32, i,
          kind == 0   ? std::numeric_limits<double>::quiet_NaN()
          : kind == 1 ? -0.0
                      : v);
    }
    for (int64_t i = 0; i < y.numel(); i += 3) set(dy.data(), DType::f32, i, -0.0);
    check(*backend, "max_pool2d/1", {values}, attrs(), ChannelsLast::keeps);
    check(*backend, "max_pool2d_grad/1", {values, dy}, attrs(), ChannelsLast::keeps);
  }
}

TEST_CASE_METHOD(Fixture, "average pooling has the same bits in either layout") {
  CAPTURE(seed);
  for (int trial = 0; trial < 24; ++trial) {
    const int64_t k = pick(1, 3), s = pick(1, 3), p = pick(0, k / 2);
    const Shape x{pick(1, 4), pick(2, 60), pick(k, 14), pick(k, 40)};
    const Shape y{x[0], x[1], (x[2] + 2 * p - k) / s + 1, (x[3] + 2 * p - k) / s + 1};
    const auto attrs = [&] { return AttrList().ints(Dims{k, k}).ints(Dims{s, s}).ints(Dims{p, p}); };
    for (const DType t : {DType::f32, DType::bf16}) {
      if (t == DType::bf16 && !has_avx512()) continue;
      if (x[1] >= 16)
        check(*backend, "avg_pool2d/1", {random.tensor(t, x, -2, 2)}, attrs(), ChannelsLast::keeps);
      if (k <= s)
        check(*backend, "avg_pool2d_grad/1", {random.tensor(t, y, -2, 2)}, attrs().ints(x),
              ChannelsLast::keeps);
    }
  }
}

}  // namespace
}  // namespace tenon::test
