// my_plugin: the op that it computes in one pass, in a sentence.
//
//   x [..], y [..] of the same shape  ->  x sigmoid(y)
//
// `compose` is the same as a graph: the reference, what other types and devices run, and where derivatives of every order
// come from. `tenon validate` compares the two. Other plugins call the op by its id, "my_plugin/1".
//
// This is an example that works: replace the formula and the types by yours.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  static constexpr int32_t n_in = 2, n_out = 1, device = TN_DEVICE_CPU;
  explicit MyPlugin(tn::Setup&) {}

  // The types of the outputs, or an error.
  void infer(const tn_type* const* in, uint32_t, tn_type* const* out, uint32_t) const {
    bool fits = in[0]->rank == in[1]->rank && in[0]->dtype == in[1]->dtype && (in[0]->dtype & 0xff) == (TN_F32 & 0xff);
    for (int i = 0; fits && i < in[0]->rank; ++i) fits = in[0]->shape[i] == in[1]->shape[i];
    if (!fits) throw tn::Error("wants two floating tensors of one type");
    *out[0] = *in[0];
  }

  std::vector<Tensor> compose(const std::vector<Tensor>& in) const { return {in[0] * sigmoid(in[1])}; }

  // May run on any thread; allocates nothing. A case that it does not take is left to `compose`.
  int32_t run(const tn_kernel_call& call) const {
    if (!contiguous(*call.in[0]) || !contiguous(*call.in[1])) return TN_STATUS_UNSUPPORTED;
    if (call.in[0]->dtype == TN_F32) return run_as<float>(call);
    if (call.in[0]->dtype == TN_F64) return run_as<double>(call);
    return TN_STATUS_UNSUPPORTED;
  }

 private:
  static int64_t count(const tn_view& v) {
    int64_t n = 1;
    for (int i = 0; i < v.rank; ++i) n *= v.shape[i];
    return n;
  }
  static bool contiguous(const tn_view& v) {
    int64_t step = 1;
    for (int i = v.rank; i-- > 0; step *= v.shape[i])
      if (v.shape[i] > 1 && v.strides[i] != step) return false;
    return true;
  }

  template <class T>
  struct Data {
    const T *x, *y;
    T* out;
  };
  template <class T>
  static int32_t run_as(const tn_kernel_call& call) {
    Data<T> data{static_cast<const T*>(call.in[0]->data), static_cast<const T*>(call.in[1]->data), static_cast<T*>(call.out[0]->data)};
    call.parallel_for(
        &call, count(*call.in[0]), 4096,
        [](void* user, int64_t begin, int64_t end) {
          const auto& d = *static_cast<const Data<T>*>(user);
          for (int64_t i = begin; i < end; ++i) d.out[i] = d.x[i] / (1 + std::exp(-d.y[i]));
        },
        &data);
    return TN_STATUS_OK;
  }
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::kernel<MyPlugin>("my_plugin/1", "x sigmoid(y) in one pass"))
