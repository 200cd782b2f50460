#include "tools/bench/cost.h"

#include <algorithm>
#include <array>

namespace tenon::bench {
namespace {

double real(int64_t n) { return static_cast<double>(n); }

constexpr std::array kMoves{
    "arange/1",    "broadcast_to/1", "cast/1",    "concat/1",        "contiguous/1",
    "flip/1",      "gather/1",       "one_hot/1", "pad/1",           "reshape/1",
    "slice/1",     "slice_grad/1",   "squeeze/1", "stop_gradient/1", "take_along_axis/1",
    "transpose/1", "unsqueeze/1"};
constexpr std::array kProducts{
    "attention/1",      "attention_grad/1",        "conv2d/1", "conv2d_input_grad/1", "conv2d_weight_grad/1",
    "grouped_matmul/1", "grouped_matmul_weight/1", "matmul/1", "mixed_matmul/1"};

template <size_t N>
bool one_of(const std::array<const char*, N>& list, std::string_view op) {
  return std::find(list.begin(), list.end(), op) != list.end();
}

// T queries of width D, S keys, values of width Dv, in every batch and head: products with D and with Dv.
double attention_flops(const PieceNode& n, std::span<const Shape> in, double with_d, double with_dv) {
  const Shape &q = in[0], &k = in[1], &v = in[2];
  const int r = q.rank();
  const double pairs = real(q.numel() / std::max<int64_t>(q[r - 1], 1)) * real(k[r - 2]);
  const double all = 2 * pairs * (with_d * real(q[r - 1]) + with_dv * real(v[r - 1]));
  return n.attrs.flag("causal") ? all / 2 : all;
}

// in: shapes of the node's inputs.
double flops_of(const PieceNode& n, std::span<const Shape> in) {
  const std::string_view op = n.op;
  const Shape& out = n.outputs[0].shape;
  if (one_of(kMoves, op)) return 0;
  if (op == "matmul/1" || op == "mixed_matmul/1") {
    const Shape& a = in[0];
    const int64_t k = a.rank() == 0 ? 1 : a[a.rank() - (a.rank() > 1 && n.attrs.flag("transpose_a") ? 2 : 1)];
    return 2 * real(out.numel()) * real(k);
  }
  if (op == "conv2d/1") return 2 * real(out.numel()) * real(in[1].numel() / in[1][0]);
  // w and dy; x and dy. Each element of dy meets each weight of its channel.
  if (op == "conv2d_input_grad/1") return 2 * real(in[1].numel()) * real(in[0].numel() / in[0][0]);
  if (op == "conv2d_weight_grad/1") return 2 * real(in[1].numel()) * real(out.numel() / out[0]);
  if (op == "grouped_matmul/1") return 2 * real(out.numel()) * real(in[0][1]);
  if (op == "grouped_matmul_weight/1") return 2 * real(in[0].numel()) * real(in[1][1]);
  if (op == "attention/1") return attention_flops(n, in, 1, 1);
  if (op == "attention_grad/1") return attention_flops(n, in, 3, 2);
  const auto matrix = [&](double per_cube) {  // per_cube n^3 for each matrix of the batch
    const double size = real(in[0].back());
    return per_cube * size * real(in[0].numel());
  };
  if (op == "cholesky/1") return matrix(1.0 / 3);
  if (op == "logdet/1") return matrix(2.0 / 3);
  if (op == "inverse/1") return matrix(2);
  if (op == "eigh/1") return matrix(9);
  if (op == "solve/1") return matrix(2.0 / 3) + 2 * real(in[0].back()) * real(out.numel());
  if (op == "triangular_solve/1") return real(in[0].back()) * real(out.numel());
  int64_t largest = out.numel();
  for (const Shape& s : in) largest = std::max(largest, s.numel());
  return real(largest);
}

// Elements that a layout touches: an axis of stride 0 repeats them.
int64_t touched(const Layout& l) {
  int64_t n = 1;
  for (int i = 0; i < l.shape.rank(); ++i)
    if (l.strides[i] != 0) n *= l.shape[i];
  return n;
}

}  // namespace

bool is_product(std::string_view op) { return one_of(kProducts, op); }

double Cost::least_seconds(double flops_per_second, double bytes_per_second) const {
  return std::max(flops / flops_per_second, bytes / bytes_per_second);
}

Cost cost_of(const Piece& piece) {
  Cost cost;
  double out_bytes = 0;
  for (size_t i = 0; i < piece.outputs.size(); ++i) {
    const TensorType& t = piece.output_type(i);
    out_bytes += real(t.shape.numel()) * real(static_cast<int64_t>(size_of(t.dtype)));
  }
  // A look-up reads the rows that it gives, not the whole table.
  const std::string_view op = piece.nodes[0].op;
  const bool looks_up = piece.nodes.size() == 1 && (op == "gather/1" || op == "take_along_axis/1");
  for (size_t i = 0; i < piece.inputs.size(); ++i) {
    const double bytes =
        real(touched(piece.inputs[i])) * real(static_cast<int64_t>(size_of(piece.inputs[i].dtype)));
    cost.bytes += looks_up && i == 0 ? std::min(bytes, out_bytes) : bytes;
  }
  cost.bytes += out_bytes;
  for (const PieceNode& n : piece.nodes) {
    std::vector<Shape> in;
    for (const int i : n.inputs)
      in.push_back(i >= 0 ? piece.inputs[static_cast<size_t>(i)].shape
                          : piece.nodes[static_cast<size_t>(~i)].outputs[0].shape);
    cost.flops += flops_of(n, in);
  }
  return cost;
}

}  // namespace tenon::bench
