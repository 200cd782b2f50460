#include "backends/reference/reference.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace tenon {
namespace {

// Device addresses are host addresses with a bit set that makes them non-canonical: arithmetic works, and any access
// that does not go through this backend faults. So code in core that touches device memory fails in a test.
constexpr uintptr_t kTag = uintptr_t{1} << 62;

void* host(void* p) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(p) & ~kTag); }
const void* host(const void* p) { return reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) & ~kTag); }

class PlainPiece final : public Kernel {
 public:
  // Runs the nodes of a piece one after the other; reference pieces hold a single node, since nothing fuses.
  explicit PlainPiece(const Piece& piece)
      : plain_(piece.nodes[0].plain), name_("plain:" + std::string(piece.nodes[0].op)) {
    const auto words = piece.nodes[0].attrs.words();
    spec_ = piece.nodes[0].attrs.spec();
    words_.assign(words.begin(), words.end());
    for (int i : piece.nodes[0].inputs) in_.emplace_back(piece.inputs[static_cast<size_t>(i)], nullptr);
    for (const TensorType& t : piece.nodes[0].outputs) out_.emplace_back(Layout(t), nullptr);
    inputs_ = piece.nodes[0].inputs;
  }
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i].data = host(in[static_cast<size_t>(inputs_[i])]);
    for (size_t i = 0; i < out_.size(); ++i) out_[i].data = host(out[i]);
    return plain_({in_, out_, Attrs(spec_, words_)});
  }
  std::string_view name() const override { return name_; }

 private:
  PlainKernel plain_;
  std::string name_;
  std::span<const AttrSpec> spec_;
  std::vector<int64_t> words_;
  std::vector<int> inputs_;
  std::vector<View> in_, out_;
};

class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  Result<void*> allocate(size_t bytes) override {
    void* p = std::aligned_alloc(64, (bytes / 64 + 1) * 64);
    if (!p) return internal_error("out of memory: could not allocate " + std::to_string(bytes) + " bytes");
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(p) | kTag);
  }
  void release(void* p, size_t) override { std::free(host(p)); }
  Status upload(void* device, const void* from, size_t bytes) override { return copy_bytes(host(device), from, bytes); }
  Status download(void* to, const void* device, size_t bytes) override { return copy_bytes(to, host(device), bytes); }
  Status copy(void* to, const void* from, size_t bytes) override { return copy_bytes(host(to), host(from), bytes); }
  Status zero(void* p, size_t bytes) override {
    if (bytes > 0) std::memset(host(p), 0, bytes);
    return Status::ok();
  }
  Status synchronize() override { return Status::ok(); }
  bool fuses(std::string_view, DType) const override { return false; }
  uint32_t wants_contiguous(const Piece&) const override { return 0; }
  ChannelsLast channels_last(const Piece&) override { return ChannelsLast::never; }
  bool reads_bf16(std::string_view, const Shape&) const override { return false; }
  Result<std::unique_ptr<Kernel>> compile(const Piece& piece) override {
    if (piece.nodes.size() != 1 || !piece.nodes[0].plain)
      return internal_error("reference: '" + std::string(piece.nodes[0].op) + "' has no plain kernel");
    return std::unique_ptr<Kernel>(std::make_unique<PlainPiece>(piece));
  }
  void set_threads(int) override {}
  int threads() const override { return 1; }

 private:
  static Status copy_bytes(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return Status::ok();
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace tenon
