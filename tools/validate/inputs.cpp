#include "tools/validate/inputs.h"

#include <algorithm>
#include <map>

#include "core/base/random.h"

namespace tenon::validate {
namespace {

constexpr size_t kTries = 3000;  // choices that are looked at

// What stands in square brackets, one after another.
std::vector<std::string> brackets(const std::string& help) {
  std::vector<std::string> out;
  for (size_t at = 0; (at = help.find('[', at)) != std::string::npos;) {
    const size_t end = help.find(']', at);
    if (end == std::string::npos) break;
    out.push_back(help.substr(at + 1, end - at - 1));
    at = end;
  }
  return out;
}

std::vector<std::string> axes_of(const std::string& shape) {
  std::vector<std::string> out;
  for (size_t at = 0; at < shape.size();) {
    const size_t end = std::min(shape.find(',', at), shape.size());
    const size_t first = shape.find_first_not_of(' ', at), last = shape.find_last_not_of(' ', end - 1);
    if (first < end) out.push_back(shape.substr(first, last - first + 1));
    at = end + 1;
  }
  return out;
}

bool is_more(const std::string& axis) { return axis.starts_with(".."); }

// Sizes of the letters of all inputs of one call.
class Letters {
 public:
  explicit Letters(const Sizes& sizes) : sizes_(sizes) {}
  Shape shape(const std::string& text) {
    Shape out;
    const std::vector<std::string> axes = axes_of(text);
    for (const std::string& axis : axes) {
      if (is_more(axis)) {
        if (axes.size() == 1) out.push_back(sizes_.batch);
        out.push_back(sizes_.more);
      } else {
        out.push_back(size(axis));
      }
    }
    return out;
  }
  // Labels stay below every size but the batch's, since any of them may count the classes.
  int64_t classes() const {
    int64_t least = 0;
    for (size_t i = 0; i < others_; ++i) least = i == 0 ? sizes_.others[i] : std::min(least, sizes_.others[i]);
    return others_ == 0 ? 2 : least;
  }

 private:
  int64_t size(const std::string& axis) {
    if (const size_t plus = axis.find(" + "); plus != std::string::npos) return size(axis.substr(0, plus)) + size(axis.substr(plus + 3));
    if (axis.find_first_not_of("0123456789") == std::string::npos) return std::stoll(axis);
    if (const auto it = sizes_.fixed.find(axis); it != sizes_.fixed.end()) return it->second;
    if (const auto it = known_.find(axis); it != known_.end()) return it->second;
    const bool batch = known_.empty() || axis == "B";
    return known_[axis] = batch ? sizes_.batch : sizes_.others[std::min(others_++, sizes_.others.size() - 1)];
  }
  const Sizes& sizes_;
  std::map<std::string, int64_t> known_;
  size_t others_ = 0;
};

void fill(HostArray& a, Values values, int64_t classes, uint64_t key) {
  Philox random(key);
  const int64_t n = a.numel();
  for (int64_t i = 0; i < n; ++i) {
    switch (values) {
      case Values::normal: a.set(i, 1.2 * random.normal() + 0.05); break;
      case Values::unit:
      case Values::simplex: a.set(i, 0.05 + 0.9 * random.uniform()); break;
      case Values::signs: a.set(i, random.uniform() < 0.5 ? -1 : 1); break;
      // Each class twice in a row, so that there are pairs of one class and of different ones.
      case Values::classes: a.set(i, static_cast<double>((i + static_cast<int64_t>(key % 2)) / 2 % std::max<int64_t>(classes, 1))); break;
      case Values::binary: a.set(i, random.uniform() < 0.5 ? 1 : 0); break;
      case Values::numbers: a.set(i, static_cast<double>(n - 1 - i)); break;
      case Values::truth: a.set(i, random.uniform() < 0.7 ? 1 : 0); break;
      case Values::absent: break;
    }
  }
  if (values != Values::simplex || a.shape().rank() == 0) return;
  const int64_t width = a.shape()[a.shape().rank() - 1];
  for (int64_t row = 0; width > 0 && row < n / width; ++row) {
    double total = 0;
    for (int64_t i = 0; i < width; ++i) total += a.at(row * width + i);
    for (int64_t i = 0; i < width; ++i) a.set(row * width + i, a.at(row * width + i) / total);
  }
}

bool contains(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

struct Sort {
  DType dtype;
  Values values;
};

// From the likeliest on: names say much ("probs", "sample_ids").
std::vector<Sort> sorts_for(const std::string& name, int32_t dtype_class) {
  const std::vector<Sort> whole = contains(name, "ids") || contains(name, "index") || contains(name, "indices")
                                      ? std::vector<Sort>{{DType::i64, Values::numbers}}
                                      : std::vector<Sort>{{DType::i64, Values::classes}, {DType::i64, Values::binary}, {DType::i64, Values::signs}};
  std::vector<Sort> real{{DType::f64, Values::normal}, {DType::f64, Values::unit}, {DType::f64, Values::simplex}};
  if (contains(name, "prob") || contains(name, "weight")) std::swap(real[0], real[1]);
  switch (dtype_class) {
    case TN_CLASS_FLOATING: return real;
    case TN_CLASS_INTEGER: return whole;
    case TN_CLASS_BOOLEAN: return {{DType::boolean, Values::truth}};
    default: break;
  }
  std::vector<Sort> any = contains(name, "label") || contains(name, "ids") ? whole : real;
  for (const Sort& s : any[0].dtype == DType::i64 ? real : whole) any.push_back(s);
  any.push_back({DType::boolean, Values::truth});
  return any;
}

Wanted wanted(const std::string& name, const std::vector<std::string>& shapes, int32_t dtype_class, uint32_t flags) {
  Wanted w{name, {}, flags};
  for (const Sort& sort : sorts_for(name, dtype_class))
    for (const std::string& shape : shapes) w.forms.push_back({shape, sort.dtype, sort.values});
  if (flags & (TN_ROLE_OPTIONAL | TN_ROLE_MANY)) w.forms.push_back({"", DType::f64, Values::absent});
  return w;
}

}  // namespace

std::map<std::string, int64_t> letters_of_options(const tn_descriptor& d) {
  std::map<std::string, int64_t> out;
  for (uint32_t i = 0; TN_COVERS(&d, n_roles) && i < d.n_options; ++i) {
    const tn_option& o = *d.options[i];
    if (o.type != TN_VALUE_I64 || !TN_HAS(&o, help) || o.fallback.type != TN_VALUE_I64 || o.fallback.as.i64 < 1) continue;
    const std::string help = o.help, first = help.substr(0, help.find_first_of(",:; "));
    if (!first.empty() && first.size() <= 2) out[first] = o.fallback.as.i64;
  }
  return out;
}

Wanted wanted_input(const std::string& name, const std::string& help, int32_t dtype_class) {
  return wanted(name, brackets(help), dtype_class, 0);
}

namespace {

// Shapes for a role whose help gives none: those of the inputs before it, one that the help names ("of the prediction's
// shape") first; a number or a row for each sample.
std::vector<std::string> likely_shapes(const std::string& help, uint32_t ranks, const std::vector<Wanted>& before) {
  std::vector<std::string> all;
  for (const bool named : {true, false})
    for (auto w = before.rbegin(); w != before.rend(); ++w)
      if (contains(help, w->name.c_str()) == named) all.push_back(w->forms[0].shape);
  all.insert(all.end(), {"B", "B, C"});
  std::vector<std::string> out;
  for (const std::string& s : all)
    if ((ranks == 0 || (ranks & TN_RANK(axes_of(s).size()))) && std::find(out.begin(), out.end(), s) == out.end()) out.push_back(s);
  if (!out.empty()) return out;
  std::string shape = "B";
  for (int rank = 1; rank < TN_MAX_RANK && !(ranks & TN_RANK(rank)); ++rank) shape += ", C" + std::to_string(rank);
  return {shape};
}

}  // namespace

std::vector<Wanted> wanted_by_roles(const tn_descriptor& d) {
  std::vector<Wanted> out;
  for (uint32_t i = 0; TN_COVERS(&d, n_roles) && i < d.n_roles; ++i) {
    const tn_role& r = *d.roles[i];
    const std::string help = TN_HAS(&r, help) ? r.help : "";
    std::vector<std::string> shapes = brackets(help);
    if (shapes.empty()) shapes = likely_shapes(help, TN_COVERS(&r, ranks) ? r.ranks : 0, out);
    const int32_t dtype_class = TN_COVERS(&r, dtype_class) ? r.dtype_class : TN_CLASS_ANY;
    const bool many = (r.flags & TN_ROLE_MANY) != 0;
    for (int copy = 0; copy < (many ? 2 : 1); ++copy)
      out.push_back(wanted(r.name + (many ? std::to_string(copy) : ""), shapes, dtype_class, r.flags));
  }
  return out;
}

Inputs make_inputs(const std::vector<Wanted>& wanted, const Choice& choice, const Sizes& sizes, uint64_t seed) {
  Letters letters(sizes);
  Inputs out;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (choice[i].values != Values::absent) out.emplace_back(wanted[i].name, HostArray(choice[i].dtype, letters.shape(choice[i].shape)));
  size_t at = 0;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (choice[i].values != Values::absent) {
      fill(out[at].second, choice[i].values, letters.classes(), split_key(seed, wanted[i].name));
      ++at;
    }
  return out;
}

Result<Choice> find_choice(const std::vector<Wanted>& wanted, const std::function<Status(const Choice&)>& accepts) {
  std::vector<size_t> at(wanted.size(), 0);
  Status first;
  for (size_t tries = 0; tries < kTries; ++tries) {
    Choice choice;
    for (size_t i = 0; i < wanted.size(); ++i) choice.push_back(wanted[i].forms[at[i]]);
    const Status s = accepts(choice);
    if (s.is_ok()) return choice;
    if (first.is_ok()) first = s;
    size_t i = wanted.size();  // the next one; the last input changes fastest
    while (i > 0 && ++at[i - 1] == wanted[i - 1].forms.size()) at[--i] = 0;
    if (i == 0) break;
  }
  return first;
}

}  // namespace tenon::validate
