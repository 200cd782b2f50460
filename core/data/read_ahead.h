// Batches made by a second thread, while the one before is trained on.
#pragma once

#include "core/data/batcher.h"

namespace tenon {

// The same batches as `of`, bit for bit. After make(step) a thread makes step + 1, so that asking for it next
// finds it ready; any other order works as without. Batches that take less than 50 us are not worth the
// thread's waking.
std::unique_ptr<Batcher> read_ahead(std::unique_ptr<Batcher> of);

}  // namespace tenon
