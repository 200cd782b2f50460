// Normalisation layers.
#include <string>

#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

struct Affine {
  ParameterPtr gain, bias;
};

Affine own_affine(Builder& b, Module& m, int64_t channels, bool with_bias = true) {
  Affine a{m.own(b.parameter("weight", {channels}, init::constant(1), Kind::norm)), nullptr};
  if (with_bias) a.bias = m.own(b.parameter("bias", {channels}, init::constant(0), Kind::norm));
  return a;
}

}  // namespace

Layer batch_norm(double momentum, double eps, bool affine) {
  return {"batch_norm", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "batch_norm", in, 2, "[N, C, ..]")) return nullptr;
            const int64_t channels = in[0].shape[1];
            auto m = std::make_shared<Module>(b.path(), "batch_norm");
            Affine a;
            if (affine) a = own_affine(b, *m, channels);
            const ParameterPtr mean = m->own(b.state("running_mean", {channels}, 0));
            const ParameterPtr var = m->own(b.state("running_var", {channels}, 1));
            m->set_forward([=](Context& c, std::span<const Tensor> in_x) -> Tensor {
              const Tensor x = in_x[0];
              if (!x.valid()) return {};
              const Tensor gain = a.gain ? c.parameter(*a.gain) : ones(c.graph(), {channels}, x.dtype());
              const Tensor bias = a.bias ? c.parameter(*a.bias) : zeros(c.graph(), {channels}, x.dtype());
              if (!c.train()) {
                const Tensor known_mean = cast(c.state(*mean), gain.dtype()),
                             known_var = cast(c.state(*var), gain.dtype());
                return batch_norm_eval(x, gain, bias, known_mean, known_var, eps);
              }
              const BatchNorm y = tenon::batch_norm(x, gain, bias, eps);
              const auto n = static_cast<double>(x.numel() / std::max<int64_t>(channels, 1));
              const double unbiased = n > 1 ? n / (n - 1) : 1;
              const double share = c.stats_share > 0 ? c.stats_share : momentum;
              const auto move = [&](const ParameterPtr& p, Tensor batch, double scale) {
                const Tensor old = c.state(*p);
                c.update(p, old * (1 - share) + cast(stop_gradient(batch), old.dtype()) * (share * scale));
              };
              move(mean, y.mean, 1);
              move(var, y.var, unbiased);
              return y.y;
            });
            return m;
          }};
}

Layer layer_norm(double eps, bool bias) {
  return {"layer_norm", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "layer_norm", in, 1, "[.., C]")) return nullptr;
            const int64_t channels = in[0].shape.back();
            auto m = std::make_shared<Module>(b.path(), "layer_norm");
            const Affine a = own_affine(b, *m, channels, bias);
            m->set_forward([=](Context& c, std::span<const Tensor> x) {
              const Tensor gain = c.parameter(*a.gain);
              return tenon::layer_norm(x[0], gain, a.bias ? c.parameter(*a.bias) : zeros_like(gain), eps);
            });
            return m;
          }};
}

Layer rms_norm(double eps) {
  return {"rms_norm", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "rms_norm", in, 1, "[.., C]")) return nullptr;
            auto m = std::make_shared<Module>(b.path(), "rms_norm");
            const Affine a = own_affine(b, *m, in[0].shape.back(), false);
            m->set_forward([=](Context& c, std::span<const Tensor> x) {
              return tenon::rms_norm(x[0], c.parameter(*a.gain), eps);
            });
            return m;
          }};
}

Layer group_norm(int64_t groups, double eps) {
  return {"group_norm", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "group_norm", in, 2, "[N, C, ..]")) return nullptr;
            const int64_t channels = in[0].shape[1];
            if (groups < 1 || channels % groups != 0)
              return b.fail("group_norm", "groups = " + std::to_string(groups) + " must divide the " +
                                              std::to_string(channels) + " channels");
            auto m = std::make_shared<Module>(b.path(), "group_norm");
            const Affine a = own_affine(b, *m, channels);
            m->set_forward([=](Context& c, std::span<const Tensor> x) {
              return tenon::group_norm(x[0], groups, c.parameter(*a.gain), c.parameter(*a.bias), eps);
            });
            return m;
          }};
}

}  // namespace tenon::nn
