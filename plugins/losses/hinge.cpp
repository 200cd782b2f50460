// Hinge losses; p = 2 if squared, else 1.
//
//   binary (logits [B] or [B, 1], y in {0, 1} or {-1, 1}):  l = max(0, margin - y x)^p with y = -1 or 1
//   crammer_singer:   l = max(0, margin + max_{j != y} x_j - x_y)^p
//   weston_watkins:   l = sum_{j != y} max(0, margin + x_j - x_y)^p / C   (PyTorch's MultiMarginLoss)
//
// Crammer & Singer 2001; Weston & Watkins 1999.
#include "tenon_plugin.hpp"

namespace {

class Hinge {
 public:
  explicit Hinge(tn::Setup& s)
      : margin_(s.real("margin", 1, "distance asked for").above(0).finite()),
        squared_(s.flag("squared", false, "square each violation")),
        multi_class_(s.text("multi_class", "crammer_singer",
                            "which rivals count: the strongest, or all of them",
                            {"crammer_singer", "weston_watkins"})),
        reduction_(s) {
    s.input("logits", "[B, C] class scores, or [B] or [B, 1] for two classes").rank(1).rank(2);
    s.input("labels", "[B] class numbers; two classes: 0 or 1, or -1 or 1", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["logits"], labels = b["labels"];
    if (x.rank() < 2 || x.dim(-1) == 1) {
      const tn::Tensor y = tn::match(labels, x);
      return reduction_.emit(b, violation(margin_ - where(y > 0, x, -x)));
    }
    const tn::Tensor index = tn::as_index(labels), own = unsqueeze(pick(x, index), -1);
    const tn::Tensor is_own = one_hot(index, x.dim(-1), x.dtype()) > 0.5;
    if (multi_class_ == "weston_watkins")
      return reduction_.emit(b, mean(where(is_own, 0, violation(margin_ + x - own)), -1));
    const tn::Tensor rival = max(where(is_own, -1e30, x), -1, true);
    reduction_.emit(b, squeeze(violation(margin_ + rival - own), -1));
  }

 private:
  tn::Tensor violation(tn::Tensor v) const { return squared_ ? square(relu(v)) : relu(v); }
  double margin_;
  bool squared_;
  std::string multi_class_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<Hinge>("hinge", "Hinge loss for two or more classes", "Crammer & Singer 2001, JMLR 2"))
