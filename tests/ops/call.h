// Calling an op: by its plain kernel on host memory, or as graph on the device under test.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/graph/graph.h"
#include "core/runtime.h"
#include "tests/support/bits.h"

namespace tenon::test {

// Outputs of the op's own kernel for dense inputs.
Result<std::vector<HostArray>> run_plain(const OpDef& op, std::span<const HostArray> in,
                                         const AttrList& attrs);
// The same where it must succeed.
HostArray plain(std::string_view op, std::vector<HostArray> in, const AttrList& attrs = {});

// How an input is laid out before the op sees it.
enum class Style : uint8_t { dense, transposed, flipped, spaced, repeated };
inline constexpr Style kStyles[] = {Style::dense, Style::transposed, Style::flipped, Style::spaced,
                                    Style::repeated};
std::string_view name_of(Style s);

// The value as a graph leaf with views on top, so that a kernel meets it in this style. `repeated` has the
// first slice of the first axis everywhere: see `repeat_first`.
Tensor present(Graph& g, const HostArray& value, Style style);
HostArray repeat_first(const HostArray& value);

Tensor input(Graph& g, const HostArray& value);

// All outputs of the op on the device.
Result<std::vector<HostArray>> run_device(Runtime& rt, const OpDef& op, std::span<const HostArray> in,
                                          const AttrList& attrs, Style style = Style::dense);

HostArray to_dtype(const HostArray& a, DType t);

// What is different, or empty. Elements may differ by `tolerance` (see tolerance.h); NaN equals NaN.
std::string difference(const HostArray& got, const HostArray& expected, double tolerance);

// Ops under test: all, or the one that TENON_TEST_OP names.
std::vector<const OpDef*> ops_under_test();

}  // namespace tenon::test
