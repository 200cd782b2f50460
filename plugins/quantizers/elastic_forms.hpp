// The discrete forms of a quantised site, and configurations of all sites of a model: what the elastic quantizer offers, and
// what losses and procedures choose from.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tenon_plugin.hpp"

namespace elastic {

constexpr int64_t kMinBits = 2, kMaxBits = 8;

// A form as the number that a supernet's choice carries. Activations are always per tensor.
struct Form {
  int64_t bits = kMaxBits;
  bool per_channel = false, symmetric = true;

  int64_t code() const { return bits * 4 + (per_channel ? 2 : 0) + (symmetric ? 1 : 0); }
  static Form of(int64_t code) { return {code / 4, (code & 2) != 0, (code & 1) != 0}; }
};

// The granularity and symmetry of all sites alike.
struct Style {
  bool per_channel = false, weight_symmetric = true, act_symmetric = true;
  static std::vector<Style> all() {
    std::vector<Style> out;
    for (int i = 0; i < 8; ++i) out.push_back({(i & 4) == 0, (i & 2) == 0, (i & 1) == 0});
    return out;
  }
};

enum class Bits { any, lowest, highest };

// The sites of a model with what each can be.
class Sites {
 public:
  explicit Sites(const tn::Supernet& net) {
    uint32_t i = 0;
    for (const tn_site& s : net.sites()) {
      Site site{s.name, (s.flags & TN_SITE_WEIGHT) != 0, {}};
      for (const int64_t code : net.choices(i++)) site.forms.push_back(Form::of(code));
      if (site.forms.empty()) throw tn::Error("the site '" + site.name + "' has a single form; give its quantizer the option elastic: true");
      sites_.push_back(std::move(site));
    }
    if (sites_.empty()) throw tn::Error("the model has no quantised layers; give the recipe a 'quantizer'");
  }

  struct Site {
    std::string name;
    bool weight = false;
    std::vector<Form> forms;
    // Whether it can have several bit widths.
    bool elastic() const { return forms.front().bits != forms.back().bits; }
  };
  const std::vector<Site>& list() const { return sites_; }

  // Forms drawn independently, of any, the fewest or the most bits.
  std::vector<int64_t> draw(const tn::Ctx& c, uint64_t key, Bits bits) const {
    std::vector<double> u(sites_.size());
    c.extension<tn_rng_api>(TN_EXT_RNG).uniform(key, 0, u.data(), u.size());
    std::vector<int64_t> out;
    for (size_t i = 0; i < sites_.size(); ++i) {
      const std::vector<Form>& forms = sites_[i].forms;
      std::vector<int64_t> candidates;
      for (size_t k = 0; k < forms.size(); ++k)
        if (bits == Bits::any || forms[k].bits == (bits == Bits::lowest ? forms.front() : forms.back()).bits) candidates.push_back(static_cast<int64_t>(k));
      out.push_back(candidates[static_cast<size_t>(u[i] * static_cast<double>(candidates.size()))]);
    }
    return out;
  }

  // The same style everywhere, and bits[i] of site i where it is elastic.
  std::vector<int64_t> of(const Style& style, const std::vector<int64_t>& bits) const {
    std::vector<int64_t> out;
    for (size_t i = 0; i < sites_.size(); ++i) {
      const Site& s = sites_[i];
      const Form wanted{s.elastic() ? bits[i] : s.forms.front().bits, s.weight && style.per_channel, s.weight ? style.weight_symmetric : style.act_symmetric};
      const auto at = std::find_if(s.forms.begin(), s.forms.end(), [&](const Form& f) { return f.code() == wanted.code(); });
      if (at == s.forms.end()) throw tn::Error("the site '" + s.name + "' has no form of " + std::to_string(wanted.bits) + " bits");
      out.push_back(at - s.forms.begin());
    }
    return out;
  }
  std::vector<int64_t> of(const Style& style, int64_t bits) const { return of(style, std::vector<int64_t>(sites_.size(), bits)); }

 private:
  std::vector<Site> sites_;
};

}  // namespace elastic
