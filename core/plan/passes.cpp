#include "core/plan/passes.h"

#include <string>
#include <vector>

#include "core/base/nearest.h"

namespace tenon {

std::span<const PassInfo> planner_passes() {
  static constexpr PassInfo passes[] = {
      {"expand", &RuntimeOptions::pass_expand, "one_hot becomes a comparison, which fuses"},
      {"cse", &RuntimeOptions::pass_cse, "equal computations are done once"},
      {"simplify", &RuntimeOptions::pass_simplify, "x*1, x-0, -(-x) and the like are left out"},
      {"epilogue", &RuntimeOptions::pass_epilogue, "a product adds its bias and applies relu itself"},
      {"fuse", &RuntimeOptions::pass_fuse, "element-wise chains become one piece"},
      {"rows", &RuntimeOptions::pass_rows, "folds along rows become part of such pieces"},
      {"joins", &RuntimeOptions::pass_joins, "vectors joined for one piece are read part by part"},
      {"layout", &RuntimeOptions::pass_layout, "images stay channels-last between convolutions"},
      {"widen", &RuntimeOptions::pass_widen, "narrow values are widened by each piece that reads them"},
      {"inplace", &RuntimeOptions::pass_inplace,
       "results take the memory of inputs that end, updates are written through"},
      {"native", &RuntimeOptions::pass_native,
       "fused pieces become machine code where the processor has AVX-512"},
  };
  return passes;
}

Status set_passes(RuntimeOptions& options, std::string_view text) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view name = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const bool off = name.starts_with('-');
    if (off) name.remove_prefix(1);
    bool known = name == "all";
    for (const PassInfo& p : planner_passes())
      if (name == "all" || name == p.name) known = true, options.*p.enabled = !off;
    if (known) continue;
    std::vector<std::string> names{"all"};
    for (const PassInfo& p : planner_passes()) names.emplace_back(p.name);
    return invalid("no planner pass '" + std::string(name) + "'" + did_you_mean(name, names));
  }
  return Status::ok();
}

}  // namespace tenon
