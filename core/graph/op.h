// Definition of an operation: signature, shape rule, derivative as graph, plain kernel and sample inputs in one place.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "core/base/status.h"
#include "core/tensor/attrs.h"
#include "core/tensor/host_array.h"
#include "core/tensor/view.h"

namespace tenon {

class Graph;
class Tensor;

struct InferArgs {
  std::span<const TensorType> in;
  Attrs attrs;
  std::vector<TensorType>& out;  // to be filled with one type per output
};

// Inputs, outputs and incoming cotangents of a node (null where none arrives); the rule fills `grads`, one per input,
// leaving null where there is no derivative. It is written with the public ops, so it can be differentiated again.
struct VjpArgs {
  Graph& graph;
  Attrs attrs;
  std::span<const Tensor> in;
  std::span<const Tensor> out;
  std::span<const Tensor> cotangents;
  std::span<Tensor> grads;
  std::span<const uint8_t> needed;  // which grads somebody asked for
};

// Where a view lies in its input's memory: first element and strides, both in elements.
struct ViewSpec {
  int64_t offset = 0;
  Strides strides;
};

// A call for the harness: values (f64 for differentiable inputs) and attributes. Derivatives are checked with respect
// to every f64 input not listed in `constant`.
struct Sample {
  std::vector<HostArray> in;
  AttrList attrs = {};
  std::vector<int> constant = {};
  double tolerance = 1e-6;  // relative, for the comparison with finite differences
};

struct OpDef {
  std::string_view id;  // "matmul/1"; a change of meaning is a new number
  int min_in = 1;
  int max_in = 1;  // -1: any number
  int n_out = 1;
  std::span<const AttrSpec> attrs = {};
  Status (*infer)(const InferArgs&) = nullptr;
  void (*vjp)(VjpArgs&) = nullptr;  // null: piecewise constant, the derivative is zero everywhere
  PlainKernel plain = nullptr;
  std::vector<Sample> (*samples)() = nullptr;
  // Output element i depends on the elements at the same (broadcast) position only.
  bool elementwise = false;
  // Set for ops that only re-address their input (reshape, transpose, ...): nullopt = this layout needs a copy first.
  std::optional<ViewSpec> (*view)(const Layout& in, const Attrs& attrs, const TensorType& out) = nullptr;

  std::string_view name() const { return id.substr(0, id.rfind('/')); }
};

// All operations, and look-up by id ("matmul/1"); null when there is none.
std::span<const OpDef* const> all_ops();
const OpDef* find_op(std::string_view id);

// Leaves of a graph; they have no kernel.
extern const OpDef kInputOp, kScalarOp, kConstantOp;

}  // namespace tenon
