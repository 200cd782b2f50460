// Labels that are wrong on purpose: what a method does about them is measured on right ones.
#include "core/base/random.h"
#include "core/data/transform_util.h"

namespace tenon {
namespace {

class LabelNoise final : public ColumnTransform {
 public:
  LabelNoise() : ColumnTransform("label_noise") { column = "y"; }
  std::string kind = "uniform", mark;
  double rate = 0;
  int64_t classes = 0, seed = 0;
  bool training_only() const override { return true; }

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * y, find(columns));
    const auto id = columns.find("id");
    if (y->shape().rank() != 1 || !is_integer(y->dtype()) || id == columns.end() || id->second.shape() != y->shape())
      return fail("needs class numbers [N] and the column 'id' of sample numbers");
    const uint64_t key = split_key(static_cast<uint64_t>(seed), "label noise");
    HostArray wrong(DType::f32, y->shape());
    for (int64_t i = 0; i < y->numel(); ++i) {
      Philox random(split_key(key, static_cast<uint64_t>(id->second.at(i))));
      if (random.uniform() >= rate) continue;
      const auto right = static_cast<int64_t>(y->at(i));
      const int64_t given = kind == "uniform" ? static_cast<int64_t>(random.below(static_cast<uint64_t>(classes))) : (right + 1) % classes;
      y->set(i, static_cast<double>(given));
      wrong.set(i, given == right ? 0 : 1);
    }
    if (!mark.empty()) columns.insert_or_assign(mark, std::move(wrong));
    return Status::ok();
  }
};

}  // namespace

TransformResult make_label_noise(const Options& options) {
  auto t = std::make_unique<LabelNoise>();
  TN_RETURN_IF_ERROR(OptionBinder(options)
                         .get("column", t->column)
                         .get("kind", t->kind)
                         .get("rate", t->rate)
                         .get("classes", t->classes)
                         .get("seed", t->seed)
                         .get("mark", t->mark)
                         .finish());
  TN_RETURN_IF_ERROR(check_choice("kind", t->kind, {"uniform", "next"}));
  if (!(t->rate >= 0 && t->rate <= 1)) return invalid("rate must be in 0..1");
  if (t->classes < 2 || t->classes > 1'000'000) return invalid("classes must be given, in 2..1000000");
  return TransformResult(std::move(t));
}

}  // namespace tenon
