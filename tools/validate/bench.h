// The plugin under check on its bench: options and inputs that it accepts, and calls one after another.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "tools/validate/subject.h"

namespace tenon::validate {

enum class Layout : uint8_t { dense, transposed, spread };  // how an input lies in memory before the plugin sees it

struct Bench {
  Host host;
  const tn_descriptor& descriptor;
  uint64_t seed;
  std::function<void(const std::string&)> doing;  // says what comes next, in case that it does not return

  const Kind* kind = nullptr;  // null: a procedure
  std::vector<Wanted> wanted;
  Choice choice;
  Sizes sizes;           // of the inputs, unless others are asked for
  size_t recipe = 0;     // of a procedure, among the small ones: see procedure.h

  // Looks for inputs, or a recipe, that the plugin accepts with its defaults. Error: it accepts none.
  static Result<Bench> open(Host host, const tn_descriptor& d, uint64_t seed, std::function<void(const std::string&)> doing);

  bool is_procedure() const { return kind == nullptr; }
  std::string who() const;
  Inputs inputs(const Sizes& of, uint64_t variant = 0) const { return make_inputs(wanted, choice, of, seed + variant); }
  Inputs inputs(uint64_t variant = 0) const { return inputs(sizes, variant); }
  Result<std::unique_ptr<Subject>> make(const Options& options = {}) const { return kind->make(host, descriptor, options); }
  // Call number k of a training on this subject: results, gradients of the objective, and what it holds afterwards, by name.
  // Errors: what the plugin says, a check that does not hold.
  Result<Inputs> step(Subject& subject, const Inputs& inputs, int64_t k, Layout layout = Layout::dense) const;
  // A new subject's calls from 0 on, call k with inputs of variant k. A procedure's is one run.
  Result<std::vector<Inputs>> steps(const Options& options, int64_t n, const Sizes& of) const;
  Result<std::vector<Inputs>> steps(const Options& options, int64_t n) const { return steps(options, n, sizes); }
};

// The inputs as leaves of a graph, all in this layout.
Result<std::vector<NamedTensor>> present(Graph& graph, const Inputs& inputs, Layout layout);
// What is different between the results of two calls, as a sentence; "" when all bits are equal, or, with a tolerance, when
// no element is further off than tolerance times its size plus the largest of its tensor.
std::string difference(const Inputs& got, const Inputs& expected, double tolerance = 0);
// The first element that is not finite, as a sentence; "" when there is none.
std::string not_finite(const Inputs& results);

}  // namespace tenon::validate
