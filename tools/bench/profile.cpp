#include "tools/bench/profile.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/io/file.h"

namespace tenon::bench {

// Forwards everything; what Backend and Kernel learn to do must be forwarded here, too.
class ProfiledKernel final : public Kernel {
 public:
  ProfiledKernel(std::unique_ptr<Kernel> kernel, Backend& backend, Profile& profile, size_t row)
      : kernel_(std::move(kernel)), backend_(backend), profile_(profile), row_(row) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const auto begin = Clock::now();
    TN_RETURN_IF_ERROR(kernel_->run(in, out, scratch));
    TN_RETURN_IF_ERROR(backend_.synchronize());
    profile_.ran(row_, begin, Clock::now());
    return Status::ok();
  }
  size_t scratch_bytes() const override { return kernel_->scratch_bytes(); }
  std::string_view name() const override { return kernel_->name(); }

 private:
  std::unique_ptr<Kernel> kernel_;
  Backend& backend_;
  Profile& profile_;
  size_t row_;
};

class ProfiledBackend final : public Backend {
 public:
  ProfiledBackend(std::unique_ptr<Backend> backend, Profile& profile)
      : backend_(std::move(backend)), profile_(profile) {}

  std::string_view name() const override { return backend_->name(); }
  Result<void*> allocate(size_t bytes) override {
    count(profile_.counts_.allocations);
    if (profile_.running_) profile_.counts_.allocated_bytes += static_cast<double>(bytes);
    return backend_->allocate(bytes);
  }
  void release(void* p, size_t bytes) override { backend_->release(p, bytes); }
  Status upload(void* device, const void* host, size_t bytes) override {
    count(profile_.counts_.uploads);
    return backend_->upload(device, host, bytes);
  }
  Status download(void* host, const void* device, size_t bytes) override {
    count(profile_.counts_.downloads);
    return backend_->download(host, device, bytes);
  }
  Status copy(void* to, const void* from, size_t bytes) override { return backend_->copy(to, from, bytes); }
  Status zero(void* p, size_t bytes) override { return backend_->zero(p, bytes); }
  Status synchronize() override {
    count(profile_.counts_.synchronisations);
    return backend_->synchronize();
  }
  bool fuses(std::string_view op, DType dtype) const override { return backend_->fuses(op, dtype); }
  uint32_t wants_contiguous(const Piece& piece) const override { return backend_->wants_contiguous(piece); }
  ChannelsLast channels_last(const Piece& piece) override { return backend_->channels_last(piece); }
  bool reads_bf16(std::string_view op, const Shape& x) const override { return backend_->reads_bf16(op, x); }
  Result<std::unique_ptr<Kernel>> compile(const Piece& piece) override {
    TN_ASSIGN(auto kernel, backend_->compile(piece));
    count(profile_.counts_.compiled);
    const size_t row = profile_.add(*kernel, piece);
    return std::unique_ptr<Kernel>(
        std::make_unique<ProfiledKernel>(std::move(kernel), *backend_, profile_, row));
  }
  void set_threads(int n) override { backend_->set_threads(n); }
  int threads() const override { return backend_->threads(); }

 private:
  void count(int64_t& n) const {
    if (profile_.running_) ++n;
  }
  std::unique_ptr<Backend> backend_;
  Profile& profile_;
};

std::unique_ptr<Backend> profiled(std::unique_ptr<Backend> backend, Profile& profile) {
  return std::make_unique<ProfiledBackend>(std::move(backend), profile);
}

namespace {

std::string ops_of(const Piece& piece) {
  std::string ops;
  for (const PieceNode& n : piece.nodes)
    ops += (ops.empty() ? "" : "+") + std::string(n.op.substr(0, n.op.rfind('/')));
  return ops;
}

// Operands where they say what is done (of products), the largest one where it is not as large as what comes
// out, and what comes out.
std::string shapes_of(const Piece& piece) {
  const TensorType out = piece.output_type(0);
  std::string text;
  const auto add = [&](const Layout& l) { text += to_string(TensorType{l.dtype, l.shape}) + " "; };
  if (std::any_of(piece.nodes.begin(), piece.nodes.end(),
                  [](const PieceNode& n) { return is_product(n.op); })) {
    for (size_t i = 0; i < std::min<size_t>(piece.inputs.size(), 2); ++i) add(piece.inputs[i]);
  } else if (!piece.inputs.empty()) {
    const auto largest =
        std::max_element(piece.inputs.begin(), piece.inputs.end(),
                         [](const Layout& a, const Layout& b) { return a.numel() < b.numel(); });
    if (largest->shape != out.shape) add(*largest);
  }
  return text + "-> " + to_string(out);
}

}  // namespace

size_t Profile::add(const Kernel& kernel, const Piece& piece) {
  Row row{.kernel = std::string(kernel.name()),
          .ops = ops_of(piece),
          .shapes = shapes_of(piece),
          .cost = cost_of(piece)};
  const auto [it, fresh] = known_.try_emplace(row.kernel + '\n' + row.ops + '\n' + row.shapes, rows_.size());
  if (fresh) rows_.push_back(std::move(row));
  return it->second;
}

void Profile::ran(size_t row, Clock::time_point begin, Clock::time_point end) {
  if (!running_) return;
  ++counts_.kernels;
  ++rows_[row].calls;
  rows_[row].seconds += std::chrono::duration<double>(end - begin).count();
  kernel_events_.push_back({row, begin, end});
}

void Profile::span(std::string name, Clock::time_point begin, Clock::time_point end) {
  spans_.push_back({std::move(name), {0, begin, end}});
}

std::vector<Profile::Row> Profile::rows() const {
  std::vector<Row> out;
  for (const Row& r : rows_)
    if (r.calls > 0) out.push_back(r);
  std::sort(out.begin(), out.end(), [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return out;
}

Status Profile::write_trace(const std::string& path) const {
  using nlohmann::ordered_json;
  Clock::time_point start = Clock::time_point::max();
  for (const Event& e : kernel_events_) start = std::min(start, e.begin);
  for (const auto& [name, e] : spans_) start = std::min(start, e.begin);
  const auto us = [](Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); };
  ordered_json events = ordered_json::array();
  const auto track = [&](int id, const char* name) {
    events.push_back(
        {{"name", "thread_name"}, {"ph", "M"}, {"pid", 1}, {"tid", id}, {"args", {{"name", name}}}});
  };
  const auto complete = [&](int id, const std::string& name, const char* category,
                            const Event& e) -> ordered_json& {
    events.push_back({{"name", name},
                      {"cat", category},
                      {"ph", "X"},
                      {"ts", us(e.begin - start)},
                      {"dur", us(e.end - e.begin)},
                      {"pid", 1},
                      {"tid", id}});
    return events.back();
  };
  track(1, "steps");
  track(2, "kernels");
  for (const auto& [name, e] : spans_) complete(1, name, "step", e);
  for (const Event& e : kernel_events_) {
    const Row& r = rows_[e.row];
    complete(2, r.ops, "kernel", e)["args"] = {
        {"kernel", r.kernel}, {"shapes", r.shapes}, {"flops", r.cost.flops}, {"bytes", r.cost.bytes}};
  }
  return write_atomically(path,
                          ordered_json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump());
}

}  // namespace tenon::bench
