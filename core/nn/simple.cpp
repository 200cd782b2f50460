// Layers without parameters: activations, dropout, pooling and shapes.
#include <array>
#include <string>

#include "core/base/nearest.h"
#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {

Layer function(std::string type, std::function<Tensor(Context&, Tensor)> f) {
  return {type, [type, f = std::move(f)](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, type, in, 1)) return nullptr;
            auto m = std::make_shared<Module>(b.path(), type);
            m->set_forward([f](Context& c, std::span<const Tensor> x) { return f(c, x[0]); });
            return m;
          }};
}

namespace {

Layer pointwise(std::string type, Tensor (*f)(Tensor)) {
  return function(std::move(type), [f](Context&, Tensor x) { return f(x); });
}

}  // namespace

Layer relu() { return pointwise("relu", tenon::relu); }
Layer gelu(bool approximate) {
  return approximate ? pointwise("gelu_tanh", tenon::gelu_tanh) : pointwise("gelu", tenon::gelu);
}
Layer silu() { return pointwise("silu", tenon::silu); }
Layer tanh() { return pointwise("tanh", tenon::tanh); }
Layer sigmoid() { return pointwise("sigmoid", tenon::sigmoid); }
Layer softplus() { return pointwise("softplus", tenon::softplus); }
Layer leaky_relu(double slope) {
  return function("leaky_relu", [=](Context&, Tensor x) { return tenon::leaky_relu(x, slope); });
}
Layer softmax(int axis) {
  return function("softmax", [=](Context&, Tensor x) { return tenon::softmax(x, axis); });
}
Layer log_softmax(int axis) {
  return function("log_softmax", [=](Context&, Tensor x) { return tenon::log_softmax(x, axis); });
}

Result<Layer> activation(std::string_view name) {
  const std::pair<std::string_view, Layer> known[] = {
      {"relu", relu()},
      {"gelu", gelu()},
      {"gelu_tanh", gelu(true)},
      {"silu", silu()},
      {"tanh", tanh()},
      {"sigmoid", sigmoid()},
      {"softplus", softplus()},
      {"leaky_relu", leaky_relu()},
      {"softmax", softmax()},
      {"log_softmax", log_softmax()},
      {"identity", function("identity", [](Context&, Tensor x) { return x; })}};
  std::vector<std::string_view> names;
  for (const auto& [n, layer] : known) {
    if (n == name) return layer;
    names.push_back(n);
  }
  return not_found("no activation is called '" + std::string(name) + "'" + did_you_mean(name, names));
}

Layer dropout(double rate) {
  return {"dropout", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!(rate >= 0 && rate < 1))
              return b.fail("dropout", "the rate is " + std::to_string(rate) +
                                           "; it must be at least 0 and less than 1");
            return function("dropout", [=](Context& c, Tensor x) { return apply_dropout(c, x, rate); })
                .make(b, in);
          }};
}

Tensor apply_dropout(Context& c, Tensor x, double rate) {
  return c.train() && rate > 0 ? tenon::dropout(x, rate, c.next_key()) : x;
}

namespace {

// Pools [N, C, H, W]; [N, C, L] is seen as height 1.
Layer pool(std::string type, Tensor (*f)(Tensor, const Pool2dOptions&), std::vector<int64_t> kernel,
           std::vector<int64_t> stride, std::vector<int64_t> padding) {
  const auto make = [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
    if (!expect_inputs(b, type, in, 1)) return nullptr;
    const int axes = in[0].shape.rank() - 2;
    if (axes < 1 || axes > 2) return b.fail(type, "wants [N, C, H, W] or [N, C, L], got " + to_string(in[0]));
    const auto k = per_axis(kernel, axes, 1), s = per_axis(stride.empty() ? kernel : stride, axes, 1),
               p = per_axis(padding, axes, 0);
    if (kernel.empty() || !k || !s || !p)
      return b.fail(type, "kernel, stride and padding must be one number or one for each of " +
                              std::to_string(axes) + " axes");
    Pool2dOptions o{.kernel = *k, .stride = *s, .padding = *p};
    if (axes == 1) {
      o.kernel.insert(0, 1);
      o.stride.insert(0, 1);
      o.padding.insert(0, 0);
    }
    return function(type, [=](Context&,
                              Tensor x) { return axes == 2 ? f(x, o) : squeeze(f(unsqueeze(x, 2), o), 2); })
        .make(b, in);
  };
  return {type, make};
}

}  // namespace

Layer max_pool(std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> padding) {
  return pool("max_pool", max_pool2d, std::move(kernel), std::move(stride), std::move(padding));
}

Layer avg_pool(std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> padding) {
  return pool("avg_pool", avg_pool2d, std::move(kernel), std::move(stride), std::move(padding));
}

Layer adaptive_avg_pool(std::vector<int64_t> size) {
  return {"adaptive_avg_pool", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            const int axes = in[0].shape.rank() - 2;
            const auto out = per_axis(size, axes, 0);
            if (axes < 1 || axes > 2 || size.empty() || !out)
              return b.fail(
                  "adaptive_avg_pool",
                  "wants [N, C, H, W] or [N, C, L] and a size for each axis, got " + to_string(in[0]));
            return function("adaptive_avg_pool",
                            [=, to = *out](Context&, Tensor x) {
                              return axes == 2 ? adaptive_avg_pool2d(x, to)
                                               : squeeze(adaptive_avg_pool2d(unsqueeze(x, 2), {1, to[0]}), 2);
                            })
                .make(b, in);
          }};
}

Layer global_avg_pool() {
  return {"global_avg_pool", [](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            const int rank = in[0].shape.rank();
            if (rank < 3)
              return b.fail("global_avg_pool",
                            "wants [N, C, ..] with axes to average, got " + to_string(in[0]));
            return function("global_avg_pool",
                            [rank](Context&, Tensor x) {
                              Axes axes;
                              for (int i = 2; i < rank; ++i) axes.push_back(i);
                              return tenon::mean(x, axes);
                            })
                .make(b, in);
          }};
}

Layer flatten(int start) {
  return function("flatten", [=](Context&, Tensor x) { return tenon::flatten(x, start); });
}

Layer reshape(std::vector<int64_t> sample_shape) {
  return {"reshape", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (sample_shape.size() >= static_cast<size_t>(kMaxRank) || in[0].shape.empty())
              return b.fail("reshape", "wants a batch of samples and at most 7 dimensions for each, got " +
                                           to_string(in[0]));
            return function("reshape",
                            [=](Context&, Tensor x) {
                              Shape shape{x.dim(0)};
                              for (int64_t d : sample_shape) shape.push_back(d);
                              return tenon::reshape(x, shape);
                            })
                .make(b, in);
          }};
}

Layer mean(std::vector<int64_t> axes) {
  return {"mean", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (axes.empty() || axes.size() > static_cast<size_t>(kMaxRank))
              return b.fail("mean", "wants the axes that are averaged away");
            return function("mean",
                            [=](Context&, Tensor x) {
                              return tenon::mean(x, Axes(std::span<const int64_t>(axes)));
                            })
                .make(b, in);
          }};
}

Layer chunk(int64_t index, int64_t of) {
  return {"chunk", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (of < 1 || index < 0 || index >= of)
              return b.fail("chunk", "part " + std::to_string(index) + " of " + std::to_string(of) + " does not exist; the first is 0");
            if (in[0].shape.empty()) return b.fail("chunk", "wants a batch, got " + to_string(in[0]));
            return function("chunk",
                            [=](Context& c, Tensor x) {
                              if (x.valid() && x.dim(0) % of != 0) {
                                c.graph().fail(invalid("chunk: a batch of " + std::to_string(x.dim(0)) + " has no " + std::to_string(of) +
                                                       " equal parts; its streams need equal batch sizes and drop_last: true"));
                                return Tensor();
                              }
                              return x.valid() ? narrow(x, 0, index * (x.dim(0) / of), x.dim(0) / of) : x;
                            })
                .make(b, in);
          }};
}

Layer stop_gradient() { return pointwise("stop_gradient", tenon::stop_gradient); }

}  // namespace tenon::nn
