// What the callbacks of the kinds get: an optimizer's step, closures, objectives, sessions, stored bytes.
#pragma once

#include "tenon_context.hpp"

namespace tn {

// One parameter in an optimizer's step.
struct Param {
  tn_ctx* ctx;
  const tn_step* step;
  uint32_t index;
  const char* name() const { return step->names[index]; }
  Tensor value() const { return {ctx, step->params[index]}; }
  Tensor grad() const { return {ctx, step->grads ? step->grads[index] : TN_NULL}; }
  Slot operator[](const char* slot) const { return {ctx, slot, index}; }
  void update(Tensor t) const { step->new_params[index] = t.id; }
};

// for (tn::Param p : step) p.update(p.value() - p.grad() * step.lr());
struct Step : Ctx {
  Step(tn_ctx* c, const tn_step* s) : Ctx{c}, raw_step(s) {}
  struct Iterator {
    Param at;
    Param operator*() const { return at; }
    void operator++() { ++at.index; }
    bool operator!=(const Iterator& o) const { return at.index != o.at.index; }
  };
  Iterator begin() const { return {{raw, raw_step, 0}}; }
  Iterator end() const { return {{raw, raw_step, raw_step->n}}; }
  uint32_t size() const { return raw_step->n; }
  Param operator[](uint32_t i) const { return {raw, raw_step, i}; }
  int64_t count() const { return raw_step->count; }  // 1 on the first step
  // Of the step's batch at the current parameters; null when the host does not know it.
  Tensor loss() const { return {raw, TN_COVERS(raw_step, loss) ? raw_step->loss : TN_NULL}; }
  const tn_step* raw_step;
};

// The step's loss as a function of parameters.
struct Closure {
  tn_ctx* ctx;
  const tn_closure* raw;
  std::vector<Tensor> params() const {
    std::vector<Tensor> v;
    for (uint32_t i = 0; i < raw->n; ++i) v.push_back({ctx, raw->params[i]});
    return v;
  }
  // scalar: null the loss, else another emitted number by name.
  Tensor loss(const std::vector<Tensor>& params, const char* scalar = nullptr) const {
    tn_tensor out = TN_NULL;
    raw->loss(raw, ctx, ids(params).data(), scalar, &out);
    return {ctx, out};
  }
  Tensor forward(const std::vector<Tensor>& params) const {
    tn_tensor out = TN_NULL;
    raw->forward(raw, ctx, ids(params).data(), &out);
    return {ctx, out};
  }
  struct Losses {
    Tensor loss, per_sample;
  };
  Losses loss_at(Tensor output) const {
    tn_tensor loss = TN_NULL, per_sample = TN_NULL;
    raw->loss_at(raw, ctx, output.id, &loss, &per_sample);
    return {{ctx, loss}, {ctx, per_sample}};
  }

 private:
  std::vector<tn_tensor> ids(const std::vector<Tensor>& params) const {
    if (params.size() != raw->n) throw Error("closure: wrong number of parameters", TN_STATUS_INTERNAL);
    std::vector<tn_tensor> v;
    for (const Tensor& t : params) v.push_back(t.id);
    return v;
  }
};

struct Objectives {
  tn_ctx* ctx;
  const tn_objectives* raw;
  uint32_t n_params;
  uint32_t size() const { return raw->n; }
  const char* name(uint32_t o) const { return raw->names[o]; }
  double weight(uint32_t o) const { return raw->weights[o]; }
  Tensor value(uint32_t o) const { return {ctx, raw->values[o]}; }
  Tensor grad(uint32_t o, uint32_t i) const { return {ctx, raw->grads[o * n_params + i]}; }
};

// The objective of an attack as a function of the model's input.
struct Target {
  tn_ctx* ctx;
  const tn_attack_target* raw;
  struct At {
    Tensor per_sample, output;
  };
  At operator()(Tensor x) const {
    tn_tensor per_sample = TN_NULL, output = TN_NULL;
    raw->evaluate(raw, ctx, x.id, &per_sample, &output);
    return {{ctx, per_sample}, {ctx, output}};
  }
};

// A graph of a procedure's own; closed at the end of the scope.
struct Session : Ctx {
  explicit Session(const Ctx& run, uint32_t flags = TN_CTX_TRAIN, int64_t step = 0)
      : Ctx{run.extension<tn_session_api>(TN_EXT_SESSION).open(run.raw, flags, step)},
        api(run.extension<tn_session_api>(TN_EXT_SESSION)) {
    if (!raw) throw Error("a session could not be opened", TN_STATUS_STATE);
  }
  ~Session() { api.close(raw); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  // One plan: the values, then everything that was set.
  void run(const std::vector<Tensor>& values = {}) {
    std::vector<tn_tensor> ids;
    for (const Tensor& t : values) ids.push_back(t.id);
    if (int32_t code = api.run(raw, ids.data(), static_cast<uint32_t>(ids.size())))
      throw Error("the evaluation failed", code);
  }
  const tn_session_api& api;
};

// The data streams of the recipe. stream null: the first.
struct Data {
  const Ctx& ctx;
  const char* stream = nullptr;
  int64_t count(const char* split) const {
    int64_t n = 0;
    check(api().count(ctx.raw, stream, split, &n));
    return n;
  }
  // A column of all rows, or of these, in a session.
  Tensor rows(const Session& session, const char* split, const char* column) const {
    return {session.raw, api().rows(session.raw, stream, split, column, nullptr, count(split))};
  }
  Tensor rows(const Session& session, const char* split, const char* column, const std::vector<int64_t>& which) const {
    return {session.raw, api().rows(session.raw, stream, split, column, which.data(), static_cast<int64_t>(which.size()))};
  }
  // The numbers of a column, row-major.
  std::vector<double> values(const char* split, const char* column) const {
    Session s(ctx, 0);
    return to_host(rows(s, split, column));
  }

 private:
  const tn_data_api& api() const { return ctx.extension<tn_data_api>(TN_EXT_DATA); }
  static void check(int32_t code) {
    if (code) throw Error("the data could not be read", code);
  }
};

// The recipe's own training.
struct Fit {
  const Ctx& ctx;
  double train(int64_t first, int64_t steps) const {  // the mean loss
    double loss = 0;
    check(api().train(ctx.raw, first, steps, &loss), "the training failed");
    return loss;
  }
  double metric(const char* split, const char* name) const {
    double v = 0;
    check(api().evaluate(ctx.raw, split, &name, 1, &v), "the metric could not be computed");
    return v;
  }
  std::vector<double> predict(const char* split, const char* model = nullptr) const {
    uint64_t n = 0;
    check(api().predict(ctx.raw, model, split, nullptr, 0, &n), "the prediction failed");
    std::vector<double> out(n);
    check(api().predict(ctx.raw, model, split, out.data(), n, &n), "the prediction failed");
    return out;
  }
  void set_column(const char* split, const char* name, const std::vector<double>& values, const Dims& shape,
                  const char* stream = nullptr) const {
    int64_t strides[TN_MAX_RANK] = {}, step = 1;
    for (uint32_t i = shape.n; i-- > 0; step *= shape.at[i]) strides[i] = step;
    const tn_view v{sizeof(tn_view),  TN_F64, TN_DEVICE_CPU, 0, static_cast<int32_t>(shape.n), TN_VIEW_READ_ONLY,
                    const_cast<double*>(values.data()), shape.at, strides};
    check(api().set_column(ctx.raw, stream, split, name, &v), "the column could not be set");
  }
  void select_rows(const std::vector<int64_t>& rows, uint64_t key, const char* stream = nullptr) const {
    check(api().select_rows(ctx.raw, stream, rows.data(), static_cast<int64_t>(rows.size()), key), "the rows could not be selected");
  }
  void select_all_rows(uint64_t key, const char* stream = nullptr) const {
    check(api().select_rows(ctx.raw, stream, nullptr, 0, key), "the rows could not be selected");
  }

 private:
  const tn_fit_api& api() const { return ctx.extension<tn_fit_api>(TN_EXT_FIT); }
  void check(int32_t code, const char* message) const {
    if (code) throw Error(message, code);
  }
};

// The quantised forms of a model.
struct Supernet {
  const Ctx& ctx;
  const char* model = nullptr;
  std::vector<tn_site> sites() const {
    uint32_t n = 0;
    check(api().sites(ctx.raw, model, nullptr, 0, &n));
    std::vector<tn_site> out(n);
    for (tn_site& s : out) s.struct_size = sizeof s;
    check(api().sites(ctx.raw, model, out.data(), n, &n));
    return out;
  }
  std::vector<int64_t> choices(uint32_t site) const {
    const int64_t* values = nullptr;
    uint32_t n = 0;
    check(api().choices(ctx.raw, model, site, &values, &n));
    return std::vector<int64_t>(values, values + n);
  }
  void configure(const std::vector<int64_t>& c) const {
    check(api().configure(ctx.raw, model, c.data(), static_cast<uint32_t>(c.size())));
  }
  // which: 0 random, 1 smallest, 2 largest.
  std::vector<int64_t> sample(uint64_t key, int32_t which) const {
    std::vector<int64_t> out(sites().size());
    check(api().sample(ctx.raw, model, key, which, out.data(), static_cast<uint32_t>(out.size())));
    return out;
  }
  void recalibrate(int64_t batches) const { check(api().recalibrate(ctx.raw, model, batches)); }

 private:
  const tn_supernet_api& api() const { return ctx.extension<tn_supernet_api>(TN_EXT_SUPERNET); }
  static void check(int32_t code) {
    if (code) throw Error("the quantised forms of the model could not be used", code);
  }
};

// Another plugin: one made here, or one of the recipe.
struct Plugin {
  Plugin(const Ctx& c, const char* kind, const char* id, const std::vector<tn_attr>& options)
      : ctx(c), raw(api().create(c.raw, kind, id, options.data(), static_cast<uint32_t>(options.size()))) {
    if (!raw) throw Error(std::string("the plugin '") + id + "' could not be made");
  }
  Plugin(const Ctx& c, const char* kind, const char* name = nullptr) : ctx(c), raw(api().recipe(c.raw, kind, name)) {
    if (!raw) throw Error(std::string("the recipe has no such plugin of kind ") + kind);
  }
  ~Plugin() {
    if (raw) api().release(ctx.raw, raw);
  }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;
  // What it emits under this name for these inputs.
  Tensor build(const Ctx& session, const std::vector<tn_named>& in, const char* wanted) const {
    std::vector<tn_named> out(64);
    uint32_t n = 0;
    if (api().build(session.raw, raw, in.data(), static_cast<uint32_t>(in.size()), out.data(), 64, &n)) return {};
    for (uint32_t i = 0; i < n && i < 64; ++i)
      if (!std::strcmp(out[i].name, wanted)) return {session.raw, out[i].tensor};
    throw Error(std::string("the plugin emits no '") + wanted + "'");
  }
  void step(const Ctx& session, const char* model, const std::vector<Tensor>& grads) const {
    std::vector<tn_tensor> ids;
    for (const Tensor& g : grads) ids.push_back(g.id);
    api().step(session.raw, raw, model, ids.data(), static_cast<uint32_t>(ids.size()));
  }
  Tensor aggregate(const Ctx& session, const tn_round& round) const {
    tn_tensor out = TN_NULL;
    api().aggregate(session.raw, raw, &round, &out);
    return {session.raw, out};
  }
  void reset() const { api().reset(ctx.raw, raw); }
  const Ctx& ctx;
  tn_instance* raw;

 private:
  const tn_plugins_api& api() const { return ctx.extension<tn_plugins_api>(TN_EXT_PLUGINS); }
};

// Bytes of a checkpoint: put and get plain values.
struct Bytes {
  const tn_stream* stream;
  uint64_t left = ~uint64_t{0};  // still to read
  template <class T>
  void put(const T& v) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (int32_t code = stream->write(stream, &v, sizeof v)) throw Error("state could not be written", code);
  }
  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T v{};
    if (left < sizeof v || stream->read(stream, &v, sizeof v)) throw Error("stored state is too short");
    left -= sizeof v;
    return v;
  }
};

template <class... P>
struct List {};

}  // namespace tn
