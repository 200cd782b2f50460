#include "core/plan/plan.h"

#include "core/runtime.h"

namespace tenon {

size_t Plan::host_bytes() const {
  size_t n = sizeof(Plan) + leaf_ids_.size() * 8 + scalar_staging_.size() * 2;
  for (const Step& s : steps_) n += 512 + (s.in.size() + s.out.size()) * sizeof(Ref);
  return n;
}

Status Plan::run(const Graph& g, std::span<const uint32_t> leaves, std::span<const Update> updates,
                 std::vector<Array>& results) {
  Runtime& rt = g.runtime();
  Backend& backend = rt.backend();
  ++rt.stats().evals;

  bases_.clear();
  TN_ASSIGN(void* arena, rt.arena(arena_bytes_));
  bases_.push_back(arena);
  bases_.push_back(scalars_ ? scalars_->data() : nullptr);
  for (uint32_t id : leaves) bases_.push_back(g.array_of(id).data());
  results.clear();
  for (const TensorType& t : root_types_) {
    TN_ASSIGN(Array a, Array::allocate(backend, t.dtype, t.shape));
    bases_.push_back(a.data());
    results.push_back(std::move(a));
  }
  for (const Update& u : updates) bases_.push_back(u.target.data());

  if (scalars_) {
    for (const Scalar& s : runtime_scalars_)
      write_scalar(g, g.node_of(s.value), scalar_staging_.data() + s.slot * 8);
    TN_RETURN_IF_ERROR(backend.upload(scalars_->data(), scalar_staging_.data(), scalar_staging_.size()));
  }

  const auto resolve = [&](const Ref& r) -> void* {
    return static_cast<std::byte*>(bases_[r.base]) + r.offset;
  };
  for (Step& s : steps_) {
    pointers_.clear();
    for (const Ref& r : s.in) pointers_.push_back(resolve(r));
    for (const Ref& r : s.out) pointers_.push_back(resolve(r));
    const std::span<void* const> all(pointers_);
    if (Status st = s.kernel->run(all.first(s.in.size()), all.subspan(s.in.size()), resolve(s.scratch));
        !st.is_ok()) {
      results.clear();
      return st;
    }
  }
  rt.stats().kernels += static_cast<int64_t>(steps_.size());
  return Status::ok();
}

}  // namespace tenon
