// Softmax and cross-entropy in one pass over each row: the worked example of a kernel plugin.
//
//   logits: [.., C]  labels: [..] in 0 .. C-1  ->  loss: [..],  loss = log sum_c exp(logits_c) - logits_label
//
// compose is the same as a graph. It is what other devices and dtypes run, what the kernel is checked against, and where
// derivatives of every order come from; vjp gives the first one in a form that reads the logits once:
//
//   d loss / d logits = (softmax(logits) - onehot(labels)) d loss
#include <algorithm>
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

struct SoftmaxCrossEntropy {
  static constexpr int32_t n_in = 2, n_out = 1, device = TN_DEVICE_CPU;
  explicit SoftmaxCrossEntropy(tn::Setup&) {}

  void infer(const tn_type* const* in, uint32_t, tn_type* const* out, uint32_t) const {
    const tn_type &x = *in[0], &y = *in[1];
    bool fits = x.rank >= 1 && y.rank == x.rank - 1 && x.shape[x.rank - 1] > 0 && (y.dtype == TN_I64 || y.dtype == TN_I32) &&
                (x.dtype == TN_F32 || x.dtype == TN_F64 || x.dtype == TN_BF16);
    for (int i = 0; fits && i < y.rank; ++i) fits = x.shape[i] == y.shape[i];
    if (!fits) throw tn::Error("wants floating logits [.., C] and integer labels [..]");
    out[0]->dtype = x.dtype;
    out[0]->rank = y.rank;
    std::copy(y.shape, y.shape + y.rank, out[0]->shape);
  }

  std::vector<Tensor> compose(const std::vector<Tensor>& in) const { return {logsumexp(in[0], -1) - tn::pick(in[0], in[1])}; }

  std::vector<Tensor> vjp(const std::vector<Tensor>& in, const std::vector<Tensor>&, const std::vector<Tensor>& cotangents) const {
    const Tensor right = tn::one_hot(in[1], in[0].dim(-1), in[0].dtype());
    return {(softmax(in[0]) - right) * unsqueeze(cotangents[0], -1), {}};
  }

  int32_t run(const tn_kernel_call& call) const {
    const tn_view &x = *call.in[0], &y = *call.in[1];
    if (x.dtype == TN_F32) return y.dtype == TN_I64 ? rows<float, int64_t>(call) : rows<float, int32_t>(call);
    if (x.dtype == TN_F64) return y.dtype == TN_I64 ? rows<double, int64_t>(call) : rows<double, int32_t>(call);
    return TN_STATUS_UNSUPPORTED;
  }

 private:
  template <class T, class Label>
  struct Rows {
    const T* logits;
    const Label* labels;
    T* losses;
    int64_t classes;
  };
  template <class T, class Label>
  static int32_t rows(const tn_kernel_call& call) {
    const tn_view& x = *call.in[0];
    for (int i = 0, n = x.rank; i < n; ++i) {  // inputs arrive contiguous; anything else is declined
      int64_t step = 1;
      for (int k = i + 1; k < n; ++k) step *= x.shape[k];
      if (x.shape[i] > 1 && x.strides[i] != step) return TN_STATUS_UNSUPPORTED;
    }
    Rows<T, Label> r{static_cast<const T*>(x.data), static_cast<const Label*>(call.in[1]->data), static_cast<T*>(call.out[0]->data), x.shape[x.rank - 1]};
    int64_t n = 1;
    for (int i = 0; i + 1 < x.rank; ++i) n *= x.shape[i];
    // A label out of range is found by all threads alike: each row checks its own.
    for (int64_t i = 0; i < n; ++i)
      if (r.labels[i] < 0 || r.labels[i] >= r.classes) return TN_STATUS_INVALID;
    const int64_t grain = std::max<int64_t>(1, 16384 / r.classes);
    call.parallel_for(
        &call, n, grain, [](void* user, int64_t begin, int64_t end) {
          const auto& a = *static_cast<const Rows<T, Label>*>(user);
          for (int64_t i = begin; i < end; ++i) {
            const T* row = a.logits + i * a.classes;
            const T top = *std::max_element(row, row + a.classes);
            T total = 0;
            for (int64_t c = 0; c < a.classes; ++c) total += std::exp(row[c] - top);
            a.losses[i] = std::log(total) + top - row[a.labels[i]];
          }
        },
        &r);
    return TN_STATUS_OK;
  }
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::kernel<SoftmaxCrossEntropy>("softmax_cross_entropy/1", "Softmax and cross-entropy in one pass over each row"))
