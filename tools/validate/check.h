// The checks of `tenon validate`, each run in a process of its own.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tools/validate/bench.h"

namespace tenon::validate {

enum class Outcome : uint8_t { ok, failed, not_applicable };

struct Verdict {
  Outcome outcome = Outcome::ok;
  std::string text;  // what is wrong, why it does not apply, or what was found; one sentence, may be empty when ok
};
inline Verdict ok(std::string text = {}) { return {Outcome::ok, std::move(text)}; }
inline Verdict failed(std::string text) { return {Outcome::failed, std::move(text)}; }
inline Verdict not_applicable(std::string text) { return {Outcome::not_applicable, std::move(text)}; }

struct Check {
  std::string_view name;
  std::string_view says;  // what holds when it is ok
  Verdict (*run)(const Bench& bench);
};

// All but "load", which comes first and is one for the file: check_load.h.
std::span<const Check> all_checks();

// --- One file each ---
Verdict check_defaults(const Bench&);
Verdict check_edges(const Bench&);
Verdict check_random(const Bench&);
Verdict check_roles(const Bench&);
Verdict check_shapes(const Bench&);
Verdict check_f32(const Bench&);
Verdict check_first_derivative(const Bench&);
Verdict check_second_derivative(const Bench&);
Verdict check_same_key(const Bench&);
Verdict check_instances(const Bench&);
Verdict check_resume(const Bench&);
Verdict check_forms(const Bench&);
Verdict check_leaks(const Bench&);

}  // namespace tenon::validate
