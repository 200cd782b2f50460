#include "backends/cpu/dnnl_call.h"

#include <omp.h>

#include <algorithm>

namespace tenon::cpu {

DnnlState& dnnl_state(Context& context) {
  if (!context.dnnl) context.dnnl = std::make_shared<DnnlState>();
  return *context.dnnl;
}

ThreadLimit::ThreadLimit(const Context& context, int at_most) : before_(omp_get_max_threads()) {
  const int n = std::min(context.threads, at_most);
  if (n != before_) omp_set_num_threads(n);
}

ThreadLimit::~ThreadLimit() {
  if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
}

std::optional<dnnl::memory::data_type> dnnl_type(DType t) {
  switch (t) {
    case DType::f32:
      return dnnl::memory::data_type::f32;
    case DType::bf16:
      return dnnl::memory::data_type::bf16;
    default:
      return std::nullopt;
  }
}

dnnl::memory::desc dnnl_desc(const Layout& l) {
  dnnl::memory::dims dims(l.shape.begin(), l.shape.end()), strides(l.strides.begin(), l.strides.end());
  return {dims, *dnnl_type(l.dtype), strides};
}

dnnl::primitive_attr dnnl_attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

size_t DnnlCall::add(int dnnl_arg, const dnnl::memory::desc& desc) {
  memories_.emplace_back(desc, dnnl_state(*context_).engine, nullptr);
  args_.push_back({dnnl_arg, memories_.back().get()});
  return args_.size() - 1;
}

void DnnlCall::set(size_t argument, const void* address) {
  dnnl_memory_set_data_handle(args_[argument].memory, const_cast<void*>(address));
}

Status DnnlCall::run() {
  const ThreadLimit limit(*context_, threads_);
  // The C entry point takes the arguments as they are; the C++ one builds a map at each call.
  const dnnl_status_t status = dnnl_primitive_execute(primitive_.get(), dnnl_state(*context_).stream.get(),
                                                      static_cast<int>(args_.size()), args_.data());
  if (status == dnnl_success) return Status::ok();
  return internal_error("oneDNN failed with status " + std::to_string(status) + " while running a primitive");
}

DnnlKernel::DnnlKernel(Context& context, std::string_view name, const Piece& piece, dnnl::primitive primitive,
                       const dnnl::memory::desc& scratchpad)
    : name_(name),
      places_(piece),
      call_(context, std::move(primitive)),
      scratchpad_argument_(call_.add(DNNL_ARG_SCRATCHPAD, scratchpad)),
      scratch_at_(align64(places_.scratch_bytes())),
      scratch_size_(scratchpad.get_size()) {}

void DnnlKernel::input(size_t i, int dnnl_arg, const dnnl::memory::desc& desc) {
  inputs_.push_back({call_.add(dnnl_arg, desc), i});
}

void DnnlKernel::output(size_t o, int dnnl_arg, const dnnl::memory::desc& desc) {
  outputs_.push_back({call_.add(dnnl_arg, desc), o});
}

Status DnnlKernel::run(std::span<void* const> in, std::span<void* const> out, void* scratch) {
  for (const Argument& a : inputs_) call_.set(a.number, in[a.of]);
  for (const Argument& a : outputs_) call_.set(a.number, places_.address(a.of, out, scratch));
  call_.set(scratchpad_argument_, static_cast<std::byte*>(scratch) + scratch_at_);
  return call_.run();
}

bool is_reference(const char* implementation) { return std::string_view(implementation).starts_with("ref"); }

}  // namespace tenon::cpu
