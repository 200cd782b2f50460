// Random draws of f32 on all threads. Element i is a function of the key and i alone, so these are the plain
// kernels' numbers, bit for bit.
#include <cmath>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "core/base/philox.h"

namespace tenon::cpu {
namespace {

float unit(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }
double open_unit(uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

// Calls f(first element, words, count) for each Philox block of the n elements.
template <class F>
void for_each_block(int threads, uint64_t key, int64_t n, F&& f) {
  parallel_for(threads, (n + 3) / 4, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      f(4 * block, philox(key, static_cast<uint64_t>(block), philox_domain::kDraw),
        std::min<int64_t>(4, n - 4 * block));
  });
}

uint64_t key_of(const void* p) { return static_cast<uint64_t>(*static_cast<const int64_t*>(p)); }

class Uniform final : public Kernel {
 public:
  Uniform(Context& context, const Piece& piece)
      : context_(context), n_(Layout(piece.output_type(0)).numel()) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    float* to = static_cast<float*>(out[0]);
    for_each_block(context_.threads, key_of(in[0]), n_, [&](int64_t at, const auto& words, int64_t count) {
      for (int64_t i = 0; i < count; ++i) to[at + i] = unit(words[static_cast<size_t>(i)]);
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:random_uniform"; }

 private:
  Context& context_;
  int64_t n_;
};

// Box-Muller: elements i and i + 1 are the cosine and the sine of one pair.
class Normal final : public Kernel {
 public:
  Normal(Context& context, const Piece& piece)
      : context_(context), n_(Layout(piece.output_type(0)).numel()) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    float* to = static_cast<float*>(out[0]);
    for_each_block(context_.threads, key_of(in[0]), n_, [&](int64_t at, const auto& words, int64_t count) {
      for (int64_t i = 0; i < count; i += 2) {
        const auto w = static_cast<size_t>(i);
        const float radius = std::sqrt(-2.0f * static_cast<float>(std::log(open_unit(words[w]))));
        const float angle = static_cast<float>(open_unit(words[w + 1]) * 6.283185307179586);
        to[at + i] = radius * std::cos(angle);
        if (i + 1 < count) to[at + i + 1] = radius * std::sin(angle);
      }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:random_normal"; }

 private:
  Context& context_;
  int64_t n_;
};

// p: f32, contiguous or one number for all.
class Bernoulli final : public Kernel {
 public:
  Bernoulli(Context& context, const Piece& piece)
      : context_(context),
        n_(Layout(piece.output_type(0)).numel()),
        step_(piece.inputs[1].numel() == n_ ? 1 : 0) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const float* p = static_cast<const float*>(in[1]);
    bool* to = static_cast<bool*>(out[0]);
    for_each_block(context_.threads, key_of(in[0]), n_, [&](int64_t at, const auto& words, int64_t count) {
      for (int64_t i = 0; i < count; ++i)
        to[at + i] = unit(words[static_cast<size_t>(i)]) < p[(at + i) * step_];
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:random_bernoulli"; }

 private:
  Context& context_;
  int64_t n_, step_;
};

template <class K>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  if (piece.output_type(0).dtype != DType::f32) return nullptr;
  return std::make_unique<K>(context, piece);
}
std::unique_ptr<Kernel> make_bernoulli(Context& context, const Piece& piece) {
  const Layout& p = piece.inputs[1];
  const bool all = p.shape == piece.output_type(0).shape;
  if (p.dtype != DType::f32 || !p.contiguous() || (!all && p.numel() != 1)) return nullptr;
  return std::make_unique<Bernoulli>(context, piece);
}

}  // namespace

std::span<const KernelEntry> random_kernels() {
  static constexpr KernelEntry entries[] = {
      {"random_uniform/1", make<Uniform>, nullptr},
      {"random_normal/1", make<Normal>, nullptr},
      {"random_bernoulli/1", make_bernoulli, nullptr},
  };
  return entries;
}

}  // namespace tenon::cpu
