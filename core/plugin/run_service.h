// What a procedure may ask of the run that it drives. The trainer provides it; a run without a trainer (golden files)
// offers other plugins only.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/catalog.h"
#include "core/plugin/form_service.h"
#include "core/plugin/instance.h"
#include "core/plugin/optimizer.h"

namespace tenon {

// A plugin that a procedure holds: behind a tn_instance.
struct HeldPlugin {
  std::unique_ptr<Instance> own;               // unless it belongs to the recipe
  Instance* instance = nullptr;
  std::unique_ptr<OptimizerPlugin> optimizer;  // instead, of an optimizer
  int64_t steps = 0;                           // that it made
  // What a checkpoint holds of its slots, by their names in saved_slots(), until its first use declares them.
  std::map<std::string, HostArray> stored;
};

class RunService : public FormService {
 public:
  explicit RunService(Catalog& catalog) : catalog_(&catalog) {}
  RunService(const RunService&) = delete;
  RunService& operator=(const RunService&) = delete;

  // --- other plugins ---
  Catalog& catalog() { return *catalog_; }
  Result<HeldPlugin*> create(const std::string& kind, const std::string& id, const Options& options);
  void release(HeldPlugin* p);
  // One of the recipe, by name ("" the only one).
  virtual Result<HeldPlugin*> of_recipe(const std::string& kind, const std::string& name);

  // --- a graph of the procedure's own; one at a time ---
  virtual Result<Call*> open(Call& procedure, bool train, int64_t step);
  virtual Status evaluate(Call& session, std::span<const Tensor> values);
  virtual void close(Call& session);
  virtual Status checkpoint(bool force);

  // --- data; stream "" is the first ---
  virtual Result<int64_t> count(const std::string& stream, const std::string& split);
  virtual Result<std::vector<std::string>> columns(const std::string& stream);
  // Rows of a column; null: all of them.
  virtual Result<HostArray> rows(const std::string& stream, const std::string& split, const std::string& column,
                                 const std::vector<int64_t>* indices);
  virtual Result<std::vector<std::pair<std::string, HostArray>>> next_batch(const std::string& stream, const std::string& split);

  // --- the recipe's own training ---
  virtual Result<double> train(int64_t first, int64_t steps);
  virtual Result<double> metric(const std::string& split, const std::string& name);
  virtual Result<std::vector<double>> predict(const std::string& model, const std::string& split);
  virtual Status set_column(const std::string& stream, const std::string& split, const std::string& name, HostArray values);
  virtual Status select_rows(const std::string& stream, const std::vector<int64_t>* rows, uint64_t key);

  // --- the quantised forms of a model ---
  Result<std::vector<SiteForm>> sites(const std::string& model) override;
  Status configure(const std::string& model, const std::vector<int64_t>& choices) override;
  Result<std::vector<int64_t>> sample(const std::string& model, uint64_t key, int32_t which) override;
  virtual Status recalibrate(const std::string& model, int64_t batches);

  // --- what the procedure has to say ---
  virtual void report(const std::string& name, double value);
  virtual void progress(int64_t done, int64_t total, const std::string& text);

 protected:
  // A plugin that create made, before its first use; and one that goes.
  virtual Status on_made(HeldPlugin& p);
  virtual void on_release(HeldPlugin& p);
  std::vector<std::unique_ptr<HeldPlugin>> held_;

 private:
  Catalog* catalog_;
};

}  // namespace tenon
