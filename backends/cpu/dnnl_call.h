// oneDNN primitives with their memory objects, made when a piece is compiled and run with changing addresses.
#pragma once

#include <climits>
#include <dnnl.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "backends/cpu/kernels.h"

namespace tenon::cpu {

// The engine and the (synchronous) stream that all primitives of a backend run on. oneDNN itself keeps
// recently made primitives by problem, so that equal pieces share their generated code.
struct DnnlState {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};
DnnlState& dnnl_state(Context& context);

// While this lives, oneDNN uses the backend's number of threads, or fewer. It asks OpenMP for them, whose setting
// belongs to the whole program and is given back.
class ThreadLimit {
 public:
  explicit ThreadLimit(const Context& context, int at_most = INT_MAX);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

std::optional<dnnl::memory::data_type> dnnl_type(DType t);
dnnl::memory::desc dnnl_desc(const Layout& layout);

// One primitive. Arguments are added once, in any order; set() gives argument i its address for the next run.
class DnnlCall {
 public:
  DnnlCall() = default;
  // `threads`: at most so many run it. It must have been made under the same ThreadLimit.
  DnnlCall(Context& context, dnnl::primitive primitive, int threads = INT_MAX)
      : context_(&context), primitive_(std::move(primitive)), threads_(threads) {}
  // Returns the argument's number for set().
  size_t add(int dnnl_arg, const dnnl::memory::desc& desc);
  void set(size_t argument, const void* address);
  Status run();

 private:
  Context* context_ = nullptr;
  dnnl::primitive primitive_;
  int threads_ = INT_MAX;
  std::vector<dnnl::memory> memories_;
  std::vector<dnnl_exec_arg_t> args_;
};

// A kernel that is one primitive, which takes all tensors as they lie.
class DnnlKernel final : public Kernel {
 public:
  DnnlKernel(Context& context, std::string_view name, const Piece& piece, dnnl::primitive primitive,
             const dnnl::memory::desc& scratchpad);
  // Input i, or output o of the piece's node, is this argument of the primitive.
  void input(size_t i, int dnnl_arg, const dnnl::memory::desc& desc);
  void output(size_t o, int dnnl_arg, const dnnl::memory::desc& desc);

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override;
  size_t scratch_bytes() const override { return scratch_at_ + scratch_size_; }
  std::string_view name() const override { return name_; }

 private:
  struct Argument {
    size_t number, of;
  };
  std::string_view name_;
  OutputPlaces places_;
  DnnlCall call_;
  std::vector<Argument> inputs_, outputs_;
  size_t scratchpad_argument_, scratch_at_, scratch_size_;
};

// Whether oneDNN has only its reference code for a problem, which is slower than ours.
bool is_reference(const char* implementation);

// Attributes for primitives whose scratch memory comes from the plan's arena.
dnnl::primitive_attr dnnl_attributes();

// Runs `make`, which may throw dnnl::error for what oneDNN can't do; then, as for null, the piece is
// declined.
template <class F>
std::unique_ptr<Kernel> decline_on_error(F&& make) {
  try {
    return make();
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

}  // namespace tenon::cpu
