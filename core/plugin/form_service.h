// The quantised forms of the recipe's models, for plugins that choose among them: procedures, and losses that apply a model in
// several forms within a step.
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"

namespace tenon {

class FormService {
 public:
  virtual ~FormService() = default;
  struct SiteForm {
    std::string name;
    uint32_t flags = 0;
    int64_t choice = 0;
    std::vector<int64_t> choices;
  };
  // Model "" is the main one, or a loss's own.
  virtual Result<std::vector<SiteForm>> sites(const std::string& model) = 0;
  virtual Status configure(const std::string& model, const std::vector<int64_t>& choices) = 0;
  virtual Result<std::vector<int64_t>> sample(const std::string& model, uint64_t key, int32_t which) = 0;
};

}  // namespace tenon
