#include "tools/validate/check.h"

namespace tenon::validate {
namespace {

constexpr Check kChecks[] = {
    {"defaults", "the defaults keep to their own schema, and a step with them gives finite values of the right types", check_defaults},
    {"edges", "each option at the ends of its range and at each of its choices builds, or is refused in a sentence", check_edges},
    {"random", "random options build, or are refused in a sentence", check_random},
    {"roles", "missing inputs, other types and other ranks are refused, or taken where they may be; extra ones change nothing", check_roles},
    {"shapes", "empty, single and odd sizes, of a procedure's data, too, build or are refused; inputs may lie in memory in any way", check_shapes},
    {"f32", "numbers in f32 give what they give in f64, to its precision", check_f32},
    {"first-derivative", "derivatives are those that differences in f64 show", check_first_derivative},
    {"second-derivative", "so are their derivatives, or they are refused with a reason", check_second_derivative},
    {"same-key", "the same key and inputs give the same bits", check_same_key},
    {"instances", "two instances do not see each other", check_instances},
    {"resume", "saved, loaded into a new instance and continued, a run gives the same bits; a procedure's, killed after a checkpoint", check_resume},
    {"forms", "what can be computed in two ways is the same in both", check_forms},
    {"leaks", "making, using and destroying instances does not take more and more memory", check_leaks},
};

}  // namespace

std::span<const Check> all_checks() { return kChecks; }

}  // namespace tenon::validate
