#include "core/plugin/run_service.h"

#include <algorithm>

namespace tenon {
namespace {

Status not_here(const char* what) { return unsupported(std::string(what) + ": only a procedure of a recipe can ask for it"); }

}  // namespace

Result<HeldPlugin*> RunService::create(const std::string& kind, const std::string& id, const Options& options) {
  auto held = std::make_unique<HeldPlugin>();
  if (kind == TN_KIND_OPTIMIZER) {
    TN_ASSIGN(held->optimizer, OptimizerPlugin::create(*catalog_, id, id, options));
    held->instance = &held->optimizer->instance();
  } else {
    TN_ASSIGN(held->own, Instance::create(*catalog_, kind, id, id, options));
    held->instance = held->own.get();
  }
  if (Status s = on_made(*held); !s.is_ok()) {
    on_release(*held);
    return s;
  }
  held_.push_back(std::move(held));
  return held_.back().get();
}

void RunService::release(HeldPlugin* p) {
  on_release(*p);
  std::erase_if(held_, [&](const auto& held) { return held.get() == p; });
}

Status RunService::on_made(HeldPlugin&) { return Status::ok(); }
void RunService::on_release(HeldPlugin&) {}
Result<HeldPlugin*> RunService::of_recipe(const std::string&, const std::string&) { return not_here("recipe"); }
Result<Call*> RunService::open(Call&, bool, int64_t) { return not_here("open"); }
Status RunService::evaluate(Call&, std::span<const Tensor>) { return not_here("run"); }
void RunService::close(Call&) {}
Status RunService::checkpoint(bool) { return not_here("checkpoint"); }
Result<int64_t> RunService::count(const std::string&, const std::string&) { return not_here("count"); }
Result<std::vector<std::string>> RunService::columns(const std::string&) { return not_here("columns"); }
Result<HostArray> RunService::rows(const std::string&, const std::string&, const std::string&, const std::vector<int64_t>*) {
  return not_here("rows");
}
Result<std::vector<std::pair<std::string, HostArray>>> RunService::next_batch(const std::string&, const std::string&) {
  return not_here("next");
}
Result<double> RunService::train(int64_t, int64_t) { return not_here("train"); }
Result<double> RunService::metric(const std::string&, const std::string&) { return not_here("evaluate"); }
Result<std::vector<double>> RunService::predict(const std::string&, const std::string&) { return not_here("predict"); }
Status RunService::set_column(const std::string&, const std::string&, const std::string&, HostArray) { return not_here("set_column"); }
Status RunService::select_rows(const std::string&, const std::vector<int64_t>*, uint64_t) { return not_here("select_rows"); }
Result<std::vector<RunService::SiteForm>> RunService::sites(const std::string&) { return not_here("sites"); }
Status RunService::configure(const std::string&, const std::vector<int64_t>&) { return not_here("configure"); }
Result<std::vector<int64_t>> RunService::sample(const std::string&, uint64_t, int32_t) { return not_here("sample"); }
Status RunService::recalibrate(const std::string&, int64_t) { return not_here("recalibrate"); }
void RunService::report(const std::string&, double) {}
void RunService::progress(int64_t, int64_t, const std::string&) {}

}  // namespace tenon
