#include "core/plugin/procedure.h"

#include "core/plugin/build.h"

namespace tenon {

Status run_procedure(Instance& procedure, const CallInfo& info, RunService& service) {
  const auto& functions = table_of<tn_procedure>(procedure);
  if (!TN_HAS(&functions, run)) return has_no_function(procedure, "run");
  Call call(procedure, nullptr, info);
  call.run = &service;
  return call.outcome(guarded(call, [&] { return functions.run(procedure.pointer(), call.ctx()); }));
}

}  // namespace tenon
