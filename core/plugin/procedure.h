// Procedures: whole training or experiment loops.
#pragma once

#include "core/plugin/run_service.h"

namespace tenon {

// Runs the procedure to its end; hooks.init was called. Errors: what the plugin says; code `cancelled`
// when it stopped because the user asked for it.
Status run_procedure(Instance& procedure, const CallInfo& info, RunService& service);

}  // namespace tenon
