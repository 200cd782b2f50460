// matmul and mixed_matmul on oneDNN: batched, with broadcast batch dimensions and plain or transposed
// operands read in place; with a bias and relu in the same call.
#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/row_ops.h"

namespace tenon::cpu {
namespace {

// a: [.., M, K]  b: [.., K, N]  ->  [.., M, N]
struct Problem {
  Layout a, b, c;
};

// Whether oneDNN reads the matrices of this operand in place: rows or columns lie without gaps inside them.
bool readable(const Layout& l) {
  const int r = l.shape.rank() - 2, c = r + 1;
  for (int i = 0; i < r; ++i)
    if (l.shape[i] > 1 && l.strides[i] < 0) return false;
  const auto unit = [&](int fast, int slow) {
    return (l.strides[fast] == 1 || l.shape[fast] == 1) &&
           (l.shape[slow] == 1 || l.strides[slow] >= l.shape[fast]);
  };
  return unit(c, r) || unit(r, c);
}

// Strides of dimensions of size 1 mean nothing to us, but oneDNN recognises layouts by them. A repeated batch
// dimension (stride 0) becomes one that oneDNN broadcasts.
Layout canonical(Layout l) {
  const int r = l.shape.rank() - 2, c = r + 1;
  if (l.shape[c] == 1 && l.strides[r] != 1) l.strides[c] = 1;
  if (l.shape[r] == 1) l.strides[r] = l.strides[c] == 1 ? l.shape[c] : 1;
  if (l.shape[c] == 1) l.strides[c] = l.strides[r] == 1 ? l.shape[r] : 1;
  int64_t extent = std::max(l.strides[r] * l.shape[r], l.strides[c] * l.shape[c]);
  for (int i = r - 1; i >= 0; --i) {
    if (l.strides[i] == 0) l.shape[i] = 1;
    if (l.shape[i] == 1)
      l.strides[i] = extent;
    else
      extent = std::max(extent, l.strides[i] * l.shape[i]);
  }
  return l;
}

Layout with_rank(Layout l, int rank) {
  while (l.shape.rank() < rank) {
    l.shape.insert(0, 1);
    l.strides.insert(0, 0);
  }
  return l;
}

// [.., M, K] x [K, N] is one large matrix product when a's rows follow each other evenly.
Problem merge_rows(const Problem& p) {
  const int rank = p.c.shape.rank();
  int64_t rows = 1;
  for (int i = 0; i < rank - 2; ++i)
    if (p.b.shape[i] != 1 || p.a.shape[i] != p.c.shape[i]) return p;
  int64_t stride = 0;
  for (int i = rank - 2; i >= 0; --i) {
    if (p.a.shape[i] == 1) continue;
    if (rows == 1)
      stride = p.a.strides[i];
    else if (p.a.strides[i] != stride * rows)
      return p;
    rows *= p.a.shape[i];
  }
  if (rows > 1 && stride == 0) return p;
  const int64_t k = p.a.shape[rank - 1], n = p.c.shape[rank - 1];
  Problem m;
  m.a = Layout(p.a.dtype, {rows, k}, {stride, p.a.strides[rank - 1]});
  m.b = Layout(p.b.dtype, {k, n}, {p.b.strides[rank - 2], p.b.strides[rank - 1]});
  m.c = Layout(TensorType{p.c.dtype, {rows, n}});
  return readable(m.a) ? m : p;
}

// A product of fewer multiplications (about 10 us) is done before another thread could have helped much.
constexpr int64_t kThreadWork = int64_t{1} << 20;

int worthwhile_threads(const Context& context, const Problem& p) {
  const int64_t multiplications = p.c.numel() * p.a.shape.back();
  return static_cast<int>(std::clamp<int64_t>(multiplications / kThreadWork, 1, context.threads));
}

// What is done to each element of the product in the same call.
struct Epilogue {
  bool bias = false, relu = false;
};

// relu as oneDNN's post-operations. Its own turns NaN into 0, and so hides a run that has diverged; prelu
// with slope 0 keeps NaN. It gives -0 for x < 0, which the sum with 0 makes 0, and NaN for -infinity, which
// has diverged, too.
dnnl::post_ops relu_that_keeps_nan() {
  dnnl::post_ops ops;
  ops.append_prelu(0);
  ops.append_eltwise(dnnl::algorithm::eltwise_linear, 1.f, 0.f);
  return ops;
}
constexpr int kSlope = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_WEIGHTS;

class DnnlMatmul final : public Kernel {
 public:
  DnnlMatmul(Context& context, const Problem& p, Epilogue epilogue) : epilogue_(epilogue) {
    const int threads = worthwhile_threads(context, p);
    const ThreadLimit limit(context, threads);
    const auto a = dnnl_desc(p.a), b = dnnl_desc(p.b), c = dnnl_desc(p.c);
    dnnl::memory::desc bias_desc;
    if (epilogue.bias) {
      Shape row(Dims::filled(p.c.shape.rank(), 1));
      row[row.rank() - 1] = p.c.shape.back();
      bias_desc = dnnl_desc(Layout(TensorType{DType::f32, row}));
    }
    dnnl::primitive_attr attributes = dnnl_attributes();
    if (epilogue.relu) attributes.set_post_ops(relu_that_keeps_nan());
    const dnnl::matmul::primitive_desc pd(dnnl_state(context).engine, a, b, bias_desc, c, attributes);
    // The reference implementation is there for every type, and slow.
    if (p.a.dtype == DType::bf16 && std::string_view(pd.impl_info_str()).starts_with("ref"))
      throw dnnl::error(dnnl_unimplemented, "no optimised bf16 matmul");
    call_ = DnnlCall(context, dnnl::matmul(pd), threads);
    a_ = call_.add(DNNL_ARG_SRC, a);
    b_ = call_.add(DNNL_ARG_WEIGHTS, b);
    c_ = call_.add(DNNL_ARG_DST, c);
    if (epilogue.bias) bias_ = call_.add(DNNL_ARG_BIAS, bias_desc);
    static constexpr float slope = 0;
    if (epilogue.relu)
      call_.set(call_.add(kSlope, dnnl_desc(Layout(TensorType{DType::f32, Shape{1}}))), &slope);
    scratch_ = call_.add(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
    scratch_bytes_ = pd.scratchpad_desc().get_size();
  }
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    call_.set(a_, in[0]);
    call_.set(b_, in[1]);
    call_.set(c_, out[0]);
    call_.set(scratch_, scratch);
    if (epilogue_.bias) call_.set(bias_, in[2]);
    return call_.run();
  }
  size_t scratch_bytes() const override { return scratch_bytes_; }
  std::string_view name() const override {
    if (epilogue_.relu) return epilogue_.bias ? "onednn:matmul+bias+relu" : "onednn:matmul+relu";
    return epilogue_.bias ? "onednn:matmul+bias" : "onednn:matmul";
  }

 private:
  Epilogue epilogue_;
  DnnlCall call_;
  size_t a_ = 0, b_ = 0, c_ = 0, bias_ = 0, scratch_ = 0, scratch_bytes_ = 0;
};

// Whether the elements fill a range of memory, in whatever order.
bool fills_memory(const Layout& l) {
  int64_t last = 0;
  for (int i = 0; i < l.shape.rank(); ++i) {
    if (l.shape[i] > 1 && l.strides[i] < 0) return false;
    last += (l.shape[i] - 1) * l.strides[i];
  }
  return last + 1 == l.numel();
}

// bf16 on machines where oneDNN has no code for it: operands are widened to f32 as they lie, the product is
// rounded if it is to be bf16.
class WidenedMatmul final : public Kernel {
 public:
  WidenedMatmul(Context& context, Problem p, Epilogue epilogue)
      : context_(context),
        a_(p.a.numel()),
        b_(p.b.numel()),
        c_(p.c.numel()),
        rounds_(p.c.dtype == DType::bf16) {
    p.a.dtype = p.b.dtype = p.c.dtype = DType::f32;
    product_ = std::make_unique<DnnlMatmul>(context, p, epilogue);
    at_b_ = align64(static_cast<size_t>(a_) * sizeof(float));
    at_c_ = at_b_ + align64(static_cast<size_t>(b_) * sizeof(float));
    inner_ = at_c_ + (rounds_ ? align64(static_cast<size_t>(c_) * sizeof(float)) : 0);
  }
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    std::byte* const base = static_cast<std::byte*>(scratch);
    const auto floats = [&](size_t at) { return reinterpret_cast<float*>(base + at); };
    const auto widen = [&](const void* from, int64_t n, float* to) {
      parallel_for(context_.threads, n, kMovedGrain, [&](int64_t begin, int64_t end) {
        row_ops().expand(static_cast<const bf16*>(from) + begin, static_cast<size_t>(end - begin),
                         to + begin);
      });
    };
    widen(in[0], a_, floats(0));
    widen(in[1], b_, floats(at_b_));
    void *const operands[] = {floats(0), floats(at_b_), in.back()}, *const result[] = {rounds_ ? floats(at_c_)
                                                                                               : out[0]};
    TN_RETURN_IF_ERROR(product_->run(std::span(operands, in.size()), result, base + inner_));
    if (!rounds_) return Status::ok();
    parallel_for(context_.threads, c_, kMovedGrain, [&](int64_t begin, int64_t end) {
      row_ops().shrink(floats(at_c_) + begin, static_cast<size_t>(end - begin),
                       static_cast<bf16*>(out[0]) + begin);
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return inner_ + product_->scratch_bytes(); }
  std::string_view name() const override { return "onednn:matmul(f32)"; }

 private:
  Context& context_;
  int64_t a_, b_, c_;  // elements
  bool rounds_;
  std::unique_ptr<DnnlMatmul> product_;
  size_t at_b_ = 0, at_c_ = 0, inner_ = 0;
};

Layout transposed(Layout l) {
  const int r = l.shape.rank() - 2, c = r + 1;
  std::swap(l.shape[r], l.shape[c]);
  std::swap(l.strides[r], l.strides[c]);
  return l;
}

uint32_t matmul_wants_contiguous(const Piece& piece) {
  const Layout &a = piece.inputs[0], &b = piece.inputs[1];
  if (a.shape.rank() < 2 || b.shape.rank() < 2) return 0;
  if (piece.nodes[0].outputs[0].dtype == DType::f64) return matmul_f64_wants_contiguous(piece);
  uint32_t mask = 0;
  for (size_t i = 0; i < 2; ++i) {
    const Layout& l = piece.inputs[i];
    if (!readable(l) || (l.dtype == DType::bf16 && !fills_memory(l))) mask |= 1u << i;
  }
  // oneDNN wants each batch dimension of the result in at least one operand, not repeated in both.
  const auto varies = [](const Layout& l, int from_end) {
    const int d = l.shape.rank() - from_end;
    return d >= 0 && l.shape[d] > 1 && l.strides[d] != 0;
  };
  const Shape& c = piece.nodes[0].outputs[0].shape;
  const int rank = c.rank();
  for (int d = 3; d <= rank; ++d)
    if (c[rank - d] > 1 && !varies(a, d) && !varies(b, d))
      mask |= d <= a.shape.rank() && a.shape[a.shape.rank() - d] > 1 ? 1u : 2u;
  return mask;
}

// What the piece's first node multiplies, or nothing where oneDNN can't.
std::optional<Problem> problem_of(const Piece& piece) {
  Layout a = piece.inputs[0], b = piece.inputs[1];
  const TensorType& c = piece.nodes[0].outputs[0];
  if (!dnnl_type(a.dtype) || a.shape.rank() < 2 || b.shape.rank() < 2) return std::nullopt;
  if (piece.nodes[0].attrs.flag("transpose_a")) a = transposed(a);
  if (piece.nodes[0].attrs.flag("transpose_b")) b = transposed(b);
  if (a.numel() == 0 || b.numel() == 0 || matmul_wants_contiguous(piece)) return std::nullopt;
  const int rank = c.shape.rank();
  Problem p = merge_rows({with_rank(a, rank), with_rank(b, rank), Layout(c)});
  p.a = canonical(p.a);
  p.b = canonical(p.b);
  return p;
}

// What the piece does to the product, or nothing where that is none of ours.
std::optional<Epilogue> epilogue_of(const Piece& piece) {
  Epilogue e{.bias = piece.nodes[0].inputs.size() == 3};
  for (int i = 1; i < static_cast<int>(piece.nodes.size()); ++i) {
    const PieceNode& n = piece.nodes[static_cast<size_t>(i)];
    const int before = ~(i - 1);
    if (n.op == "add/1" && !e.bias && !e.relu && n.inputs.size() == 2 &&
        (n.inputs == std::vector<int>{before, 2} || n.inputs == std::vector<int>{2, before}))
      e.bias = true;
    else if (n.op == "relu/1" && !e.relu && n.inputs == std::vector<int>{before})
      e.relu = true;
    else if (n.op != "reshape/1" || n.inputs != std::vector<int>{before})
      return std::nullopt;
  }
  const std::vector<int> in_order =
      piece.nodes[0].inputs.size() == 3 ? std::vector<int>{0, 1, 2} : std::vector<int>{0, 1};
  if (piece.nodes[0].inputs != in_order || piece.inputs.size() != (e.bias ? 3u : 2u)) return std::nullopt;
  return e;
}

}  // namespace

std::unique_ptr<Kernel> make_product(Context& context, const Piece& piece) {
  if (piece.nodes[0].op == "mixed_matmul/1") {
    if (piece.inputs[0].dtype != DType::bf16 || piece.inputs[1].dtype != DType::bf16) return nullptr;
  } else if (piece.nodes[0].outputs[0].dtype == DType::f64) {
    return piece.nodes.size() == 1 ? make_matmul_f64(context, piece) : nullptr;
  }
  if (product_wants_contiguous(piece)) return nullptr;
  const std::optional<Epilogue> epilogue = epilogue_of(piece);
  const std::optional<Problem> p = epilogue ? problem_of(piece) : std::nullopt;
  if (!p) return nullptr;
  auto kernel = decline_on_error([&] { return std::make_unique<DnnlMatmul>(context, *p, *epilogue); });
  if (!kernel && p->a.dtype == DType::bf16)
    kernel = decline_on_error([&] { return std::make_unique<WidenedMatmul>(context, *p, *epilogue); });
  return kernel;
}

bool is_product(const Piece& piece) {
  return piece.nodes[0].op == "matmul/1" || piece.nodes[0].op == "mixed_matmul/1";
}

uint32_t product_wants_contiguous(const Piece& piece) {
  return matmul_wants_contiguous(piece) |
         (piece.inputs.size() == 3 && !piece.inputs[2].contiguous() ? 4u : 0u);
}

std::span<const KernelEntry> matmul_kernels() {
  static constexpr KernelEntry entries[] = {
      {"matmul/1", make_product, product_wants_contiguous},
      {"mixed_matmul/1", make_product, product_wants_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
