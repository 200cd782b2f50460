/* Tenon plugin ABI, version 1: the whole contract in one self-contained C11 file (also C++11 and later).
 *
 * You may copy this file into your own repository; a plugin links to nothing. The C++17 convenience layer on
 * top of it is tenon_plugin.hpp. The smallest complete plugin is plugins/examples/hello_loss.c.
 *
 * THE PROMISE. A plugin built with any 1.x header loads in every later 1.y host, and in an older 1.y host
 * unless it requires an extension or op which that host lacks; then it is refused with that name.
 *
 * RULES for both sides
 *  1. Every struct starts with struct_size = end of the last field that its maker knows (sizeof is right; a
 * shorter prefix is legal). A reader uses TN_HAS(p, field) and never compares struct_size with ==. Fields are
 * only ever appended; a change of meaning gets a new extension id. The leaf structs tn_value, tn_attr,
 * tn_named never change.
 *  2. Zero means "default", "none" or "unknown" for every field, as written beside it. Reserved fields are
 * zero.
 *  3. Strings are UTF-8 ending in NUL. Text and arrays passed to a function are borrowed for the call; those
 * reachable from a tn_plugin or tn_descriptor live until deinit. Nothing allocated by one side is freed by
 * the other.
 *  4. Functions that can fail return a TN_STATUS_*; on failure outputs are untouched. Say why with
 * ctx->ops->fail. A callback that returns a failure without a message is reported by its code.
 *  5. No exception, longjmp or abort crosses the boundary. Nothing happens at load time: no threads, no
 * constructors with effects.
 *  6. Thread marks. [load] while loading; [main] the thread that runs the recipe; [build] as [main], while a
 * graph is being built, the only place where tensors may be made; [compute] any thread, several at once, must
 * not touch a tn_ctx; [any] anywhere. An instance is used by one thread at a time.
 *  7. Ids are strings: "focal", "adamw" for plugins that ship with Tenon, "org.example.lion" for everybody
 * else. Extensions are "tenon.<name>/<rev>" or "org.example.<name>/<rev>".
 *
 * THE IDEA. Plugins don't compute, they append nodes to a graph ([build]). The host owns memory, devices,
 * fusion and derivatives of every order. Every callback gets a tn_ctx; what it has to say to the host
 * (results, parts, metrics) it emits by name, and what it must remember lives in named slots of the host.
 */
#ifndef TENON_PLUGIN_H
#define TENON_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ================ A. Base ================ */

#define TN_ABI_MAJOR 1
#define TN_ABI_MINOR 1 /* informs messages; presence of fields and extensions decides behaviour */

#if defined(_WIN32)
#define TN_EXPORT __declspec(dllexport)
#else
#define TN_EXPORT __attribute__((visibility("default")))
#endif

/* Does *p have this field at all? And (TN_HAS) is it also set, i.e. not zero? */
#define TN_COVERS(p, field) \
  ((size_t)((const char*)(&(p)->field + 1) - (const char*)(p)) <= (size_t)(p)->struct_size)
#define TN_HAS(p, field) (TN_COVERS(p, field) && (p)->field)

#define TN_STATUS_OK 0
#define TN_STATUS_INVALID 1     /* the caller's input is wrong: recipe, shapes, options, data */
#define TN_STATUS_UNSUPPORTED 2 /* valid, but not something this side can do */
#define TN_STATUS_NOT_FOUND 3   /* an id, name, file or tensor that is not there */
#define TN_STATUS_STATE 4       /* called in the wrong order, or a stored state that does not fit */
#define TN_STATUS_INTERNAL 5    /* a defect of the program or of the plugin */
#define TN_STATUS_CANCELLED 6   /* the user asked to stop */

/* DLPack's {code, bits, lanes} packed into one word: code | bits << 8 | lanes << 16. 0 = "the same as the
 * parameter", "as the other input" or "any", where allowed. Ops take it as the integer attribute "dtype". */
typedef int32_t tn_dtype;
#define TN_DTYPE(code, bits) ((tn_dtype)((code) | (bits) << 8 | 1 << 16))
#define TN_I32 TN_DTYPE(0, 32)
#define TN_I64 TN_DTYPE(0, 64)
#define TN_U8 TN_DTYPE(1, 8)
#define TN_F32 TN_DTYPE(2, 32)
#define TN_F64 TN_DTYPE(2, 64)
#define TN_BF16 TN_DTYPE(4, 16)
#define TN_BOOL TN_DTYPE(6, 8)

/* DLPack device codes. */
#define TN_DEVICE_CPU 1
#define TN_DEVICE_CUDA 2

#define TN_MAX_RANK 8

/* A value in the graph of the current callback: index and generation, 0 = null. Valid until the callback
 * returns; an old handle is detected, never a wild read. Ops on a null tensor yield null (see tn_ops). */
typedef uint64_t tn_tensor;
#define TN_NULL ((tn_tensor)0)

/* A number, text or list. Lists and strings have `count` elements (bytes, without the NUL). */
typedef struct tn_value {
  int32_t type; /* TN_VALUE_* */
  uint32_t count;
  union {
    int64_t i64;             /* TN_VALUE_I64, and TN_VALUE_BOOL as 0 or 1 */
    double f64;              /* TN_VALUE_F64 */
    const char* str;         /* TN_VALUE_STR, TN_VALUE_JSON */
    const int64_t* i64s;     /* TN_VALUE_I64S */
    const double* f64s;      /* TN_VALUE_F64S */
    const char* const* strs; /* TN_VALUE_STRS */
  } as;
} tn_value;
#define TN_VALUE_NONE 0 /* an option without default that was not given */
#define TN_VALUE_BOOL 1
#define TN_VALUE_I64 2
#define TN_VALUE_F64 3
#define TN_VALUE_STR 4
#define TN_VALUE_I64S 5
#define TN_VALUE_F64S 6
#define TN_VALUE_STRS 7
#define TN_VALUE_JSON 8 /* structured options: text that the host has checked to be JSON */

typedef struct tn_attr { /* an attribute of an op, or an option */
  const char* name;
  tn_value value;
} tn_attr;

typedef struct tn_named { /* an input or output by name */
  const char* name;
  tn_tensor tensor; /* TN_NULL: absent */
} tn_named;

typedef struct tn_type {
  uint32_t struct_size; /* set by the caller, as for every struct that is filled in */
  tn_dtype dtype;
  int32_t rank;
  int32_t reserved;
  int64_t shape[TN_MAX_RANK]; /* first `rank` entries */
} tn_type;

/* A view of memory. Strides count elements and are never NULL (rank 0 aside); of size-1 dimensions they mean
 * nothing; data is NULL iff there are no elements, else aligned to 64 bytes on the CPU when made by the host.
 */
typedef struct tn_view {
  uint32_t struct_size;
  tn_dtype dtype;
  int32_t device_type, device_id;
  int32_t rank;
  uint32_t flags; /* TN_VIEW_* */
  void* data;     /* first element */
  const int64_t* shape;
  const int64_t* strides;
} tn_view;
#define TN_VIEW_READ_ONLY 1u

typedef struct tn_host tn_host;
typedef struct tn_ctx tn_ctx;
typedef struct tn_ops tn_ops;
typedef struct tn_op tn_op; /* opaque */
typedef struct tn_plugin tn_plugin;
typedef struct tn_descriptor tn_descriptor;

/* Bytes to or from a checkpoint; made by the host. */
typedef struct tn_stream {
  uint32_t struct_size, reserved;
  void* self;
  /* Both transfer all n bytes or fail. [main] */
  int32_t (*read)(const struct tn_stream*, void* to, uint64_t n);
  int32_t (*write)(const struct tn_stream*, const void* from, uint64_t n);
} tn_stream;

/* ================ B. Entry ================ */

/* The one symbol that a plugin exports; the major version is in its name. *out stays valid until deinit. May
 * be called again before deinit (calls are counted: initialise on the first, release on the last deinit).
 * [load] */
typedef int32_t (*tn_entry_fn)(const tn_host* host, const tn_plugin** out);
#define TN_ENTRY_NAME "tenon_plugin_v1"
TN_EXPORT int32_t tenon_plugin_v1(const tn_host* host, const tn_plugin** out);

/* ================ C. Host ================ */

struct tn_host {
  uint32_t struct_size;
  uint32_t abi_major, abi_minor;
  uint32_t reserved;
  const char* product; /* "tenon" */
  const char* version; /* "0.1.0" */
  void* self;          /* the host's own */
  /* Table of a host extension, or NULL. Stays valid until deinit. [any] */
  const void* (*get_extension)(const tn_host*, const char* id);
  /* [any] */
  void (*log)(const tn_host*, int32_t level, const char* text);
  /* Heap of the host for a plugin's own data; alignment 64; NULL when there is no memory. free(NULL) is fine.
   * [any] */
  void* (*alloc)(const tn_host*, uint64_t bytes);
  void (*free)(const tn_host*, void*);
  /* Not 0 once the user asked to stop: long loops return TN_STATUS_CANCELLED soon. [any] */
  int32_t (*cancelled)(const tn_host*);
};
#define TN_LOG_DEBUG 0
#define TN_LOG_INFO 1
#define TN_LOG_WARNING 2
#define TN_LOG_ERROR 3

/* Extensions of the host. Those marked * are always there; of the others a plugin asks, or lists them as
 * required. */
#define TN_EXT_OPS "tenon.ops/1"                   /* * tn_ops, section F (also ctx->ops) */
#define TN_EXT_STATE "tenon.state/1"               /* * tn_state_api, section G */
#define TN_EXT_RNG "tenon.rng/1"                   /* * tn_rng_api, section G */
#define TN_EXT_METRICS "tenon.metrics/1"           /* * tn_metrics_api, section G */
#define TN_EXT_THREAD_CHECK "tenon.thread-check/1" /* tn_thread_check, section G; debug hosts, validator */
#define TN_EXT_MODEL "tenon.model/1"               /*   tn_model_api, section H */
#define TN_EXT_SESSION "tenon.session/1"           /*   tn_session_api, section L; procedures */
#define TN_EXT_DATA "tenon.data/1"                 /*   tn_data_api, section L; procedures */
#define TN_EXT_PLUGINS "tenon.plugins/1"           /*   tn_plugins_api, section L; procedures */
#define TN_EXT_FIT "tenon.fit/1"                   /*   tn_fit_api, section L; procedures */
#define TN_EXT_SUPERNET "tenon.supernet/1"         /*   tn_supernet_api, section L; procedures */
#define TN_EXT_TEXT "tenon.text/1"                 /*   tn_text_api, section L; procedures */

/* ================ D. Plugin and descriptors ================ */

struct tn_plugin {
  uint32_t struct_size;
  uint32_t abi_minor; /* TN_ABI_MINOR of the header it was built with; for messages */
  const char* vendor;
  const char* version;
  const char* license; /* SPDX; NULL: not said */
  const char* url;     /* NULL: none */
  /* Without these the plugin is refused, by name. NULL if the count is 0. */
  const char* const* required_extensions;
  const char* const* required_ops; /* "eigh/1" */
  uint32_t n_required_extensions, n_required_ops;
  uint32_t n_descriptors, reserved;
  const tn_descriptor* const* descriptors;
  /* Extensions of the plugin as a whole; NULL: none. [any] */
  const void* (*get_extension)(const char* id);
  /* Called once per successful entry, after the last instance is destroyed. NULL: nothing to do. [main] */
  void (*deinit)(void);
};

/* One option of the schema. The host checks the recipe against it before any code of the plugin runs. */
typedef struct tn_option {
  uint32_t struct_size;
  /* TN_VALUE_*: what the plugin gets; integers for reals, scalars for lists, numbers for text are converted. */
  int32_t type;
  const char* name; /* lower_case */
  const char* help; /* one line; NULL: none */
  uint32_t flags;   /* TN_OPTION_* */
  uint32_t n_choices;
  tn_value fallback; /* default; TN_VALUE_NONE: none (then TN_VALUE_NONE arrives unless TN_OPTION_REQUIRED) */
  double min, max;   /* of each number, if flagged */
  const char* const* choices; /* of a string; NULL: any text */
} tn_option;
#define TN_OPTION_REQUIRED 1u
#define TN_OPTION_MIN 2u      /* value >= min */
#define TN_OPTION_MAX 4u      /* value <= max */
#define TN_OPTION_MIN_OPEN 8u /* with TN_OPTION_MIN: value > min */
#define TN_OPTION_MAX_OPEN 16u
#define TN_OPTION_FINITE 32u /* refuse infinities (NaN is always refused) */

/* One input. The recipe binds it to a data column, a model output or another plugin; unbound, a column or
 * output of that name is taken. Usual names: logits, labels, prediction, target, input, sample_weight [B],
 * sample_ids (i64 [B]: number of the sample in its data set), bag_ids, mask, hidden, embeddings, key; draws
 * such as normal_draws or uniform_draws are optional roles, so that a stochastic plugin can be checked
 * against numbers. */
typedef struct tn_role {
  uint32_t struct_size;
  uint32_t flags; /* TN_ROLE_*; 0: required, once */
  const char* name;
  const char* help;    /* shape and meaning: "[B, C] class scores"; NULL: none */
  int32_t dtype_class; /* TN_CLASS_* */
  uint32_t ranks;      /* bit r set: rank r is allowed; 0: any */
} tn_role;
#define TN_ROLE_OPTIONAL 1u
#define TN_ROLE_MANY 2u /* any number, bound as name0, name1, ...: they follow all other inputs, in order */
#define TN_ROLE_CONSTANT 4u /* no derivative is taken through it */
#define TN_CLASS_ANY 0
#define TN_CLASS_FLOATING 1
#define TN_CLASS_INTEGER 2
#define TN_CLASS_BOOLEAN 3
#define TN_RANK(r) (1u << (r))

/* What one kind of thing needs: an id, a schema, and the functions of its kind. */
struct tn_descriptor {
  uint32_t struct_size;
  uint32_t caps;      /* TN_CAP_* */
  const char* id;     /* unique within its kind */
  const char* kind;   /* TN_KIND_* */
  const char* help;   /* one line */
  const char* paper;  /* "Lin et al. 2017, arXiv 1708.02002"; NULL: none */
  const void* vtable; /* tn_loss, tn_optimizer, ...: as the kind says */
  const tn_option* const* options;
  const tn_role* const* roles;
  uint32_t n_options, n_roles;
  /* Makes an instance from ctx->options (no graph yet). NULL: no instance data; callbacks get inst = NULL.
   * *inst may be anything, NULL too. Check here that ops beyond the required ones exist. [main] */
  int32_t (*create)(tn_ctx*, void** inst);
  void (*destroy)(void* inst); /* NULL: nothing to free. [main] */
  /* Table of a plugin extension for this descriptor (TN_EXT_HOOKS, TN_EXT_PROBE, ...), or NULL. NULL: none.
   * [any] */
  const void* (*get_extension)(const char* id);
  /* With TN_CAP_FIRST_ORDER: why, in a sentence that ends up in the error message. */
  const char* second_order_reason;
};
#define TN_CAP_FIRST_ORDER 1u  /* a derivative of its derivative is refused, with second_order_reason */
#define TN_CAP_WHOLE_BATCH 2u  /* no micro-batches: a function of the whole batch; replicas gather inputs */
#define TN_CAP_STATEFUL 4u     /* has slots or saved bytes */
#define TN_CAP_STOCHASTIC 8u   /* uses ctx->key */
#define TN_CAP_HOST_VALUES 16u /* reads values while building (value, to_host) */
#define TN_CAP_USES_MODEL 32u  /* applies the model again: TN_EXT_MODEL */
#define TN_CAP_OWN_UPDATES 64u /* changes large parameters of its own in its slots, with ctx->lr */
#define TN_CAP_NONDETERMINISTIC 128u

#define TN_KIND_LOSS "tenon.loss/1"
#define TN_KIND_REWEIGHTER "tenon.reweighter/1"
#define TN_KIND_OPTIMIZER "tenon.optimizer/1"
#define TN_KIND_PARAMETRIZATION "tenon.parametrization/1"
#define TN_KIND_ROUTER "tenon.router/1"
#define TN_KIND_QUANTIZER "tenon.quantizer/1"
#define TN_KIND_ATTACK "tenon.attack/1"
#define TN_KIND_AGGREGATOR "tenon.aggregator/1"
#define TN_KIND_PROCEDURE "tenon.procedure/1"
#define TN_KIND_MODULE "tenon.module/1"
#define TN_KIND_KERNEL "tenon.kernel/1"

/* ================ E. Context ================ */

/* Given to every callback, valid until it returns. Numbers here change from step to step: bring them into the
 * graph with ops->scalar, never as constants or attributes, or every step needs a new plan. */
struct tn_ctx {
  uint32_t struct_size;
  uint32_t flags; /* TN_CTX_* */
  const tn_host* host;
  const tn_ops* ops;      /* never NULL; outside [build] only find, fail and status work */
  const tn_attr* options; /* checked, with defaults, in the schema's order; live as long as the instance */
  void* self;             /* the host's own */
  int64_t epoch;          /* from 0 */
  int64_t step;           /* steps of the run completed before this one: 0 at first */
  int64_t total_steps;    /* 0: unknown */
  /* Effective learning rate, schedule included: of an optimizer's group; elsewhere of the group that the
   * plugin's own parameters are in. 0: none. */
  double lr;
  tn_tensor key; /* i64, rank 0; fold_in makes other keys. TN_NULL outside [build] */
  uint32_t n_options;
  int32_t device_type; /* where the graph will run; a hint */
  int64_t n_samples;   /* of the data set that sample_ids count; 0: unknown */
};
#define TN_CTX_TRAIN 1u  /* training; otherwise evaluation: deterministic, slots stay as they are */
#define TN_CTX_REPLAY 2u /* the same batch again (closure, second backward): same key, set() is dropped */
#define TN_CTX_EAGER 4u  /* each node is computed when made */

/* ================ F. Ops ================ */

/* Derivative of one's own: `cotangent` has y's type; fill out[i] (xs[i]'s type) or leave it TN_NULL (zero).
 * It is built later than the forward pass, so other tensors of the forward pass are out of scope: pass them
 * in xs. `user` is the host's copy of the bytes given, aligned to 16. [build] */
typedef int32_t (*tn_vjp_fn)(const void* user, tn_ctx*, tn_tensor y, const tn_tensor* xs, uint32_t n,
                             tn_tensor cotangent, tn_tensor* out);

/* Errors are sticky: a function that fails keeps the first message in the context and yields null; null in
 * gives null out. So build without looking, and return ops->status(ctx) at the end. All [build] unless
 * marked. */
struct tn_ops {
  uint32_t struct_size, reserved;
  /* An op by id ("softmax/1"), or NULL. Good for as long as the plugin is loaded: look up once. [any] */
  const tn_op* (*find)(const tn_host*, const char* id);
  /* out[0..n_out) (n_out <= outputs of the op). Attributes by name; those left out get their default. op ==
   * NULL is an error that says so. */
  int32_t (*apply)(tn_ctx*, const tn_op*, const tn_tensor* in, uint32_t n_in, const tn_attr* attrs,
                   uint32_t n_attrs, tn_tensor* out, uint32_t n_out);
  /* A number bound at run time, rank 0: may differ in every step without a new plan. */
  tn_tensor (*scalar)(tn_ctx*, double value, tn_dtype);
  /* A number that is part of the structure, rank 0. */
  tn_tensor (*constant)(tn_ctx*, double value, tn_dtype);
  /* A copy of host memory (device_type CPU) as a tensor. */
  tn_tensor (*from_host)(tn_ctx*, const tn_view*);
  /* dtype and shape, known at once. [build] */
  int32_t (*type)(tn_ctx*, tn_tensor, tn_type*);
  /* d(sum y * seed)/d xs[i] into out[i], of xs[i]'s type: graph again, so it can be differentiated. seed
   * TN_NULL: ones. An x that y does not depend on gives zeros. */
  int32_t (*grad)(tn_ctx*, tn_tensor y, tn_tensor seed, const tn_tensor* xs, uint32_t n, tn_tensor* out);
  /* y's value, with fn's derivative with respect to xs (y's own is cut). */
  tn_tensor (*custom_gradient)(tn_ctx*, tn_tensor y, const tn_tensor* xs, uint32_t n, tn_vjp_fn fn,
                               const void* user, uint64_t user_bytes);
  /* Explicit evaluation points: computed now; a visible cost that the profile counts. value: rank 0 or one
   * element. to_host: row-major into `to`, which must have exactly numel * size bytes. materialize: many in
   * one go; later uses read them. */
  int32_t (*value)(tn_ctx*, tn_tensor, double* out);
  int32_t (*to_host)(tn_ctx*, tn_tensor, void* to, uint64_t bytes);
  int32_t (*materialize)(tn_ctx*, const tn_tensor*, uint32_t n);
  /* The same value as a handle that other callbacks of this instance may use until the step ends. */
  tn_tensor (*keep)(tn_ctx*, tn_tensor);
  /* A result for the host under this name (see TN_OUT_*); survives the callback. The same name twice is an
   * error. */
  int32_t (*emit)(tn_ctx*, const char* name, tn_tensor, int32_t as);
  /* The same for text and for numbers that are known already; nothing is differentiated. */
  int32_t (*emit_value)(tn_ctx*, const char* name, const tn_value*);
  /* Records an error unless there is one already; returns `code`. [main] and [build] */
  int32_t (*fail)(tn_ctx*, int32_t code, const char* message);
  /* TN_STATUS_* of the first error, TN_STATUS_OK if none. [main] and [build] */
  int32_t (*status)(const tn_ctx*);
};
/* How an emitted tensor is used. Unused results cost nothing: dead nodes are removed. */
#define TN_OUT_VALUE 0  /* a result of the kind (weights, weight, x_adv, gates, ...), or just to look at */
#define TN_OUT_LOSS 1   /* what is differentiated: rank 0, or [B] (the host takes the mean) */
#define TN_OUT_REPORT 2 /* rank 0: shown as the loss instead of TN_OUT_LOSS (a surrogate's true value) */
#define TN_OUT_PER_SAMPLE 3 /* [B] losses before reduction, for reweighters and per-sample reports */
/* Rank 0: an objective of its own (multi-objective optimizers), also logged; without a TN_OUT_LOSS the loss
 * is the sum of the parts. */
#define TN_OUT_PART 4
#define TN_OUT_METRIC 5 /* rank 0 or [B] (mean): logged, not differentiated */
#define TN_OUT_CHECK 6  /* bool, rank 0 or [B]: must hold, or the step fails with the name (and sample) as message */

/* clang-format off */
/* Op ids (all end in "/1"), inputs and attributes ("name" = integer, "name." = real, "name[]" = integers;
 * * = required):
 *  element-wise  neg exp log log1p expm1 sqrt rsqrt square reciprocal tanh sigmoid softplus erf gelu gelu_tanh
 *                silu relu leaky_relu(slope.) sin cos asin acos atan abs sign floor ceil round is_finite
 *                clamp(min., max.) logical_not cast(dtype*) stop_gradient round_ste
 *  binary        add sub mul div pow minimum maximum, equal not_equal less less_equal greater greater_equal,
 *                logical_and logical_or; they broadcast as numpy's do (rank 0 with anything) and want equal
 *                dtypes; where(cond, a, b)
 *  reduce        sum mean max min prod logsumexp any all (axes[], keepdims) var(axes[], keepdims, ddof)
 *                argmax argmin (axis*, keepdims) cumsum(axis*, reverse) cumprod cummax (axis*); no axes: all
 *  shape         reshape(shape[]*) transpose(perm[]) broadcast_to(shape[]*) squeeze(axis*) unsqueeze(axis*)
 *                concat(axis) slice(start[]*, stop[]*, step[]) pad(low[]*, high[]*, value.) flip(axes[]*)
 *                arange(n*, dtype)
 *  index         gather(x, idx; axis) scatter_add(base, idx, src; axis) take_along_axis(x, idx; axis)
 *                put_along_axis_add(base, idx, src; axis) one_hot(idx; depth*, dtype) bincount(idx; n*)
 *  linear        matmul(a, b; transpose_a, transpose_b) cholesky triangular_solve(t, b; lower, transpose_a)
 *                solve(a, b; transpose_a) inverse logdet eigh(-> values, vectors)
 *  other         softmax(axis) log_softmax(axis) cross_entropy(logits, labels; label_smoothing., ignore_index)
 *                sort(-> values, indices; axis, descending) argsort(axis, descending)
 *                top_k(-> values, indices; k*, axis) searchsorted(edges, x; right) sort_by_expert(idx; n*)
 *                grouped_matmul(x, w, offsets; transpose_b)
 *  random        random_uniform random_normal random_exponential random_gumbel (key; shape[], dtype*)
 *                random_bernoulli(key, p; shape[]) random_integers(key; shape[], low, high*)
 *                random_permutation(key; n*) random_categorical(key, logits) random_gamma(key, alpha)
 *                fold_in(key; number*)
 * Attributes not marked * have a default. The host's own list: `tenon describe op:<id>`. */
/* clang-format on */

/* ================ G. Services ================ */

/* "tenon.state/1": slots, i.e. tensors that the host keeps, moves, checkpoints and resets. Declared in
 * hooks.init (or an optimizer's init), then read and set by name. */
typedef struct tn_slot {
  uint32_t struct_size;
  int32_t kind; /* TN_SLOT_* */
  const char* name;
  tn_dtype dtype;           /* 0: f32, or the parameter's. State may be TN_F64 when the model is f32 */
  int32_t rank;             /* of shape; ignored with TN_SLOT_PER_PARAM */
  const int64_t* shape;     /* TN_SLOT_TABLE: of one row */
  double initial;           /* every element, unless: */
  tn_tensor initial_tensor; /* of that type; TN_NULL: use `initial` */
  uint32_t flags;           /* TN_SLOT_FLAG_* */
  uint32_t reserved;
  /* TN_SLOT_TRAINABLE: parameter group of the recipe; NULL: the one named as the plugin, or the main one. */
  const char* group;
  double lr_scale; /* TN_SLOT_TRAINABLE: factor of the group's learning rate; 0: 1 */
} tn_slot;
#define TN_SLOT_STATE 0     /* one tensor, changed by set */
#define TN_SLOT_TRAINABLE 1 /* one tensor, differentiable, trained by an optimizer of the recipe */
#define TN_SLOT_TABLE 2     /* [rows, shape..]: a row per sample id or client; the host knows how many */
#define TN_SLOT_PER_PARAM 3 /* optimizers: a tensor of the parameter's shape for each one */
#define TN_SLOT_FLAG_FROM_PARAM 1u /* with TN_SLOT_PER_PARAM: starts as a copy of the parameter */
#define TN_SLOT_FLAG_NOT_SAVED 2u  /* a cache: rebuilt, not checkpointed */
#define TN_SLOT_FLAG_NO_DECAY 4u   /* with TN_SLOT_TRAINABLE: no weight decay */

typedef struct tn_state_api {
  uint32_t struct_size, reserved;
  /* In init only. Declaring what a checkpoint already holds keeps the stored value. [build] */
  int32_t (*declare)(tn_ctx*, const tn_slot*);
  /* Value of a slot: what was last set in this step, else what is stored. `index`: the parameter
   * (TN_SLOT_PER_PARAM; its place in the arrays of tn_step), else 0. [build] */
  tn_tensor (*get)(tn_ctx*, const char* name, uint32_t index);
  /* New value, same type; takes effect when the step is evaluated, once, and only if TN_CTX_TRAIN without
   * TN_CTX_REPLAY (or in a procedure's session). Called in the vjp of a custom gradient it takes effect if
   * that backward pass is the step's own: so a layer can update itself as its gradient passes. [build] */
  int32_t (*set)(tn_ctx*, const char* name, uint32_t index, tn_tensor);
  /* All elements back to their initial values, the given slot or (NULL) all of this instance. [main] and
   * [build] */
  int32_t (*reset)(tn_ctx*, const char* name);
} tn_state_api;

/* "tenon.rng/1": counter-based random numbers (Philox 4x32-10); the same on every device and after a resume.
 * In a graph use ctx->key with the random ops; this is for numerics on the host. Use a key for one purpose
 * only. [any] */
typedef struct tn_rng_api {
  uint32_t struct_size, reserved;
  /* From the recipe's seed, the step and the label. [main] and [build] */
  uint64_t (*key)(const tn_ctx*, const char* label);
  uint64_t (*split)(uint64_t key, uint64_t number);
  /* Draws first .. first + n of this key: in [0, 1) with 53 bits; mean 0, variance 1. */
  void (*uniform)(uint64_t key, uint64_t first, double* out, uint64_t n);
  void (*normal)(uint64_t key, uint64_t first, double* out, uint64_t n);
  tn_tensor (*tensor)(tn_ctx*, uint64_t key); /* a key for random ops. [build] */
} tn_rng_api;

/* "tenon.metrics/1": numbers that were computed on the host. Tensors are emitted instead. [main] and [build]
 */
typedef struct tn_metrics_api {
  uint32_t struct_size, reserved;
  int32_t (*report)(tn_ctx*, const char* name, double value); /* "test/regret" */
  /* total 0: unknown; text may be NULL. */
  int32_t (*progress)(tn_ctx*, int64_t done, int64_t total, const char* text);
} tn_metrics_api;

/* "tenon.thread-check/1". [any] */
typedef struct tn_thread_check {
  uint32_t struct_size, reserved;
  int32_t (*is_main)(const tn_host*);
  int32_t (*is_building)(const tn_host*);
} tn_thread_check;

/* Extensions that a descriptor may offer, for any kind. */

/* "tenon.hooks/1": called by the host at these moments; NULL: not wanted. */
#define TN_EXT_HOOKS "tenon.hooks/1"
typedef struct tn_hooks {
  uint32_t struct_size, reserved;
  /* Before the first use, with the inputs of that use (types known; a parametrization may evaluate the
   * initial weight): declare slots here. [build] */
  int32_t (*init)(void* inst, tn_ctx*, const tn_named* in, uint32_t n);
  /* Before the first step of each epoch. [build] */
  int32_t (*on_epoch)(void* inst, tn_ctx*);
  /* After the optimizer's step was built: get sees new values, kept tensors are still there (load balancing).
   * [build] */
  int32_t (*after_step)(void* inst, tn_ctx*);
} tn_hooks;

/* "tenon.bytes/1": state beside the slots, as bytes with the plugin's own version. A load of garbage or of an
 * unknown version must fail and leave the instance as it was. [main] */
#define TN_EXT_BYTES "tenon.bytes/1"
typedef struct tn_bytes {
  uint32_t struct_size;
  uint32_t version; /* that save writes */
  int32_t (*save)(void* inst, tn_ctx*, const tn_stream* to);
  int32_t (*load)(void* inst, tn_ctx*, uint32_t version, const tn_stream* from, uint64_t bytes);
} tn_bytes;

/* "tenon.probe/1": named pure functions of options (ctx->options, by the probe's own schema) and inputs, for
 * checking the parts of a plugin against independent numbers. Results are emitted. "default" is the one meant
 * when none is named. */
#define TN_EXT_PROBE "tenon.probe/1"
typedef struct tn_probe {
  uint32_t struct_size;
  uint32_t n_options, n_roles, reserved;
  const char* name;
  const char* help;
  const tn_option* const* options;
  const tn_role* const* roles; /* inputs beyond the declared ones are passed by name, too */
  int32_t (*run)(tn_ctx*, const tn_named* in, uint32_t n); /* [build]; may evaluate and use from_host */
} tn_probe;
typedef struct tn_probes {
  uint32_t struct_size, n_probes;
  const tn_probe* const* probes;
} tn_probes;

/* ================ H. Loss, and the model again ================ */

/* in[i] belongs to roles[i] (TN_NULL if optional and unbound); those of TN_ROLE_MANY follow. Emit one
 * TN_OUT_LOSS (or parts), and what else is worth knowing. Also used by reweighters and attacks. [build] */
typedef int32_t (*tn_build_fn)(void* inst, tn_ctx*, const tn_named* in, uint32_t n);

typedef struct tn_loss {
  uint32_t struct_size, reserved;
  tn_build_fn build;
} tn_loss;

/* "tenon.model/1": the models of the recipe as functions. All [build] unless marked. */
typedef struct tn_model_call {
  uint32_t struct_size;
  uint32_t flags;     /* TN_MODEL_* */
  const char* model;  /* name in the recipe; NULL: the one whose output the plugin gets (or the only one) */
  const tn_named* in; /* by the model's input names; name NULL in the first: the only input */
  const tn_tensor* params;   /* instead of its own, in the order of `parameters`; NULL: its own, shared */
  const char* const* wanted; /* outputs or nodes inside (hidden representations); NULL: the output */
  uint32_t n_in, n_params, n_wanted, reserved;
  tn_tensor key; /* for dropout; TN_NULL: the step's, so that calls see the same masks */
} tn_model_call;
#define TN_MODEL_FROZEN 1u       /* no gradient to its parameters */
#define TN_MODEL_EVAL 2u         /* as in evaluation (dropout off, running statistics) */
#define TN_MODEL_FREEZE_STATS 4u /* batch statistics are used, running ones not updated */

typedef struct tn_model_api {
  uint32_t struct_size, reserved;
  int32_t (*apply)(tn_ctx*, const tn_model_call*, tn_tensor* out); /* out[n_wanted], at least one */
  /* Parameters by name: fills up to `capacity` and says how many there are; names live until the step ends.
   */
  int32_t (*parameters)(tn_ctx*, const char* model, tn_named* out, uint32_t capacity, uint32_t* n);
  /* All trainable parameters as one vector [P], and a new value for all of them (as tn_state_api.set). */
  tn_tensor (*flat)(tn_ctx*, const char* model);
  int32_t (*assign_flat)(tn_ctx*, const char* model, tn_tensor value);
  int32_t (*assign)(tn_ctx*, const char* model, uint32_t index, tn_tensor value);
  /* Which parameters are trained from now on (by name prefix; n = 0: all), with fresh optimizer slots if
   * reset. [main] */
  int32_t (*train_only)(tn_ctx*, const char* model, const char* const* prefixes, uint32_t n,
                        int32_t reset_slots);
  /* New initial values from this key. [main] */
  int32_t (*reinitialize)(tn_ctx*, const char* model, uint64_t key);
} tn_model_api;

/* ================ I. Optimizer ================ */

/* One instance serves one parameter group. An element-wise optimizer may get all tensors of a group as one
 * flat vector. */
typedef struct tn_step {
  uint32_t struct_size;
  uint32_t n; /* parameters with a gradient in this step; the others and their slots stay as they are */
  const char* const* names;
  const tn_tensor* params;
  const tn_tensor* grads; /* same types as params */
  tn_tensor* new_params;  /* out; arrives as a copy of params */
  int64_t count;          /* steps of this group since its slots were made, this one included: 1 at first */
  tn_tensor loss;         /* rank 0: the loss of the step's batch at params; TN_NULL: not known */
} tn_step;

typedef struct tn_optimizer {
  uint32_t struct_size;
  uint32_t flags; /* TN_OPT_* */
  /* Declares slots, of kind TN_SLOT_PER_PARAM or TN_SLOT_STATE. NULL: none. [build] */
  int32_t (*init)(void* inst, tn_ctx*, const tn_named* params, uint32_t n);
  /* Fills new_params; slots through "tenon.state/1"; the rate is ctx->lr. Diagnostics are emitted as
   * TN_OUT_METRIC. NULL if the optimizer offers one of the extensions below instead. [build] */
  int32_t (*step)(void* inst, tn_ctx*, const tn_step*);
  /* Whether this instance, with its options, is element-wise. NULL: as the flag says. [main] */
  int32_t (*is_elementwise)(void* inst);
} tn_optimizer;
#define TN_OPT_ELEMENTWISE 1u /* element i of the result depends on parameter, gradient, slots at i only */

/* Every optimizer has a real option "lr"; the host multiplies it by the schedule's factor and gives the
 * result as ctx->lr. */

/* "tenon.optimizer.closure/1": an optimizer that evaluates at other parameters. The closure is the step's own
 * batch, replayed with the same random numbers and without side effects (TN_CTX_REPLAY). Derivatives:
 * ops->grad with respect to the tensors given as params, or to the outputs; a given upstream gradient is the
 * seed. All [build]. */
#define TN_EXT_CLOSURE "tenon.optimizer.closure/1"
typedef struct tn_closure {
  uint32_t struct_size;
  uint32_t n; /* all trainable parameters of the group, also those without gradient now */
  void* self;
  const char* const* names;
  const tn_tensor* params; /* current values */
  /* loss of the batch at these parameters (NULL: params). `scalar`: NULL the loss, else a part, metric or
   * other emitted rank-0 value by name (a second scalar: "mean_prediction"). */
  int32_t (*loss)(const struct tn_closure*, tn_ctx*, const tn_tensor* params, const char* scalar,
                  tn_tensor* out);
  /* In two halves: the model's output at these parameters; then the loss at a given output (per_sample may be
   * NULL). */
  int32_t (*forward)(const struct tn_closure*, tn_ctx*, const tn_tensor* params, tn_tensor* output);
  int32_t (*loss_at)(const struct tn_closure*, tn_ctx*, tn_tensor output, tn_tensor* loss,
                     tn_tensor* per_sample);
} tn_closure;
typedef struct tn_optimizer_closure {
  uint32_t struct_size, reserved;
  /* As tn_optimizer.step; s->grads is NULL (take only those that are needed) and s->n == closure->n. */
  int32_t (*step)(void* inst, tn_ctx*, const tn_step* s, const tn_closure*);
} tn_optimizer_closure;

/* "tenon.optimizer.multi-loss/1": one gradient per objective. [build] */
#define TN_EXT_MULTI_LOSS "tenon.optimizer.multi-loss/1"
typedef struct tn_objectives {
  uint32_t struct_size;
  uint32_t n;               /* losses and parts of the recipe that act on this group */
  const char* const* names; /* the recipe's; a held-out guidance objective is one of them */
  const tn_tensor* values;  /* [n], rank 0 */
  const tn_tensor* grads;   /* [n][s->n]: objective o, parameter i at grads[o * s->n + i] */
  const double* weights;    /* [n]: the recipe's coefficients */
} tn_objectives;
typedef struct tn_optimizer_multi_loss {
  uint32_t struct_size, reserved;
  /* s->grads holds the weighted sum. */
  int32_t (*step)(void* inst, tn_ctx*, const tn_step* s, const tn_objectives*);
} tn_optimizer_multi_loss;

/* "tenon.optimizer.projection/1": after the step of this or, bound as a projection in the recipe, of any
 * other optimizer: s->params are the updated parameters, s->grads NULL; fills new_params (clamp, ball,
 * simplex). [build] */
#define TN_EXT_PROJECTION "tenon.optimizer.projection/1"
typedef struct tn_optimizer_projection {
  uint32_t struct_size, reserved;
  int32_t (*project)(void* inst, tn_ctx*, const tn_step* s);
} tn_optimizer_projection;

/* ============================================================================================== J.
 * Graph-composed kinds */

/* Reweighter: roles such as losses [B], sample_ids, logits, labels; emits "weights" [B] and, where the loss is
 * not the sum of weight times loss, "coefficients" [B] that it is the sum with (the host stops gradients unless
 * the recipe says otherwise). Called in training only. */
typedef struct tn_reweighter {
  uint32_t struct_size, reserved;
  tn_build_fn build;
} tn_reweighter;

/* Parametrization: one instance per weight. Role "raw", the stored parameter; emits "weight", the effective
 * one (also what export folds in). Own trainables (scale, exponent) are slots declared in hooks.init, which
 * sees the initial weight and may emit "raw", what training starts from instead. A TN_OUT_LOSS or TN_OUT_PART
 * of rank 0 is added to the objective in training (a penalty on the effective weight). */
typedef struct tn_parametrization {
  uint32_t struct_size, reserved;
  tn_build_fn build;
  /* Role "weight" in, emits "raw": to start from given weights. NULL: cannot be inverted. [build] */
  tn_build_fn invert;
} tn_parametrization;

/* Router: one instance per layer. Role logits [T, E]; emits indices (i64 [T, K]), gates [T, K], load [E] and
 * parts such as aux_loss, which are added to the objective in training. Bias and other untrained state are slots, updated in hooks.after_step; loads are
 * summed over replicas with op "replica_sum/1" (identity on one). Ties go to the lowest index. */
typedef struct tn_router {
  uint32_t struct_size, reserved;
  tn_build_fn build;
} tn_router;

/* Attack: roles input and labels (start, mask, ... optional); emits "x_adv" of the input's type, and values
 * such as kappa. The objective is the recipe's loss as a function of the model's input. */
typedef struct tn_attack_target {
  uint32_t struct_size, reserved;
  void* self;
  /* Model output and per-sample loss [B] at input x, parameters frozen, running statistics untouched; each
   * out pointer may be NULL. [build] */
  int32_t (*evaluate)(const struct tn_attack_target*, tn_ctx*, tn_tensor x, tn_tensor* per_sample,
                      tn_tensor* output);
} tn_attack_target;
typedef struct tn_attack {
  uint32_t struct_size, reserved;
  int32_t (*build)(void* inst, tn_ctx*, const tn_attack_target*, const tn_named* in,
                   uint32_t n); /* [build] */
} tn_attack;

/* Quantizer: one instance per quantised tensor (a site), with trainable tables as slots; role x; emits "y"
 * with a straight-through derivative, and parts for extra losses. A supernet quantises one model in several
 * discrete forms in a step: `choice` is the index into choices() for this pass. */
typedef struct tn_site {
  uint32_t struct_size;
  uint32_t flags;   /* TN_SITE_* */
  const char* name; /* "encoder.fc1.weight" */
  int64_t choice;
  uint32_t index, n_sites; /* place among the sites of the model */
} tn_site;
#define TN_SITE_WEIGHT 1u
#define TN_SITE_ACTIVATION 2u
#define TN_SITE_FIRST 4u /* first or last layer, often kept at high precision */
#define TN_SITE_LAST 8u
#define TN_SITE_CALIBRATE 16u /* statistics are being collected, no training */

typedef struct tn_quantizer {
  uint32_t struct_size, reserved;
  /* Instead of hooks.init: declares slots, from the first x if it likes (initial scale). NULL: none. [build]
   */
  int32_t (*init)(void* inst, tn_ctx*, const tn_site*, const tn_named* in, uint32_t n);
  /* y for this choice. [build] */
  int32_t (*build)(void* inst, tn_ctx*, const tn_site*, const tn_named* in, uint32_t n);
  /* The values that a site may take (bit widths), as a list that lives as long as the instance. NULL: a
   * single form. [main] */
  int32_t (*choices)(void* inst, tn_ctx*, const tn_site*, const int64_t** values, uint32_t* n);
  /* A random configuration: out[n_sites] indices into choices. `which`: 0 random, 1 smallest, 2 largest.
   * NULL: the host draws each site independently. [main] */
  int32_t (*sample)(void* inst, tn_ctx*, uint64_t key, int32_t which, int64_t* out, uint32_t n_sites);
} tn_quantizer;

/* Aggregator: one federated round. Tensors are flat vectors of all parameters. Emits "params", the new global
 * vector. State per client is in slots of kind TN_SLOT_TABLE (rows = clients) or in the plugin (with
 * "tenon.bytes/1"). */
typedef struct tn_round {
  uint32_t struct_size;
  uint32_t n_active;
  int64_t round;                 /* from 0 */
  int64_t n_clients;             /* all of them */
  const uint8_t* participation;  /* [n_clients]: 1 = active in this round */
  const int64_t* active;         /* [n_active]: numbers of the active clients, ascending */
  const int64_t* client_samples; /* [n_clients]: size of each data set; NULL: unknown */
  tn_tensor params;              /* [P] */
  tn_tensor deltas;              /* [n_active, P]: local minus global; TN_NULL if n_active is 0 */
  const tn_named* in;            /* the descriptor's roles ("probabilities" [n_clients]) */
  uint32_t n_in, reserved;
} tn_round;
typedef struct tn_aggregator {
  uint32_t struct_size, reserved;
  int32_t (*aggregate)(void* inst, tn_ctx*, const tn_round*); /* [build] */
} tn_aggregator;

/* Module: a layer as a function of named tensors, its weights among them. Emits its outputs, the first of them
 * "y". */
typedef struct tn_module {
  uint32_t struct_size, reserved;
  tn_build_fn build;
} tn_module;

/* ================ K. Kernel ================ */

/* A fused op: the optimisation of a graph, never the only form of it. The descriptor's id is the op id
 * ("org.example.swiglu/1", found by ops->find) or, with `replaces`, a faster form of a built-in op. Its
 * option schema are the op's attributes; an instance is made for each set of attribute values. */
typedef struct tn_kernel_call {
  uint32_t struct_size;
  uint32_t n_in, n_out, reserved;
  const tn_view* const* in; /* read-only */
  const tn_view* const* out;
  void* scratch; /* scratch_bytes() bytes, aligned to 64; NULL if 0 */
  void* stream;  /* cudaStream_t of the primary context: enqueue only, no synchronisation; NULL on the CPU */
  /* CPU: calls body(user, begin, end) over parts of [0, n) on the host's threads and waits. [compute] */
  void (*parallel_for)(const struct tn_kernel_call*, int64_t n, int64_t grain,
                       void (*body)(void*, int64_t, int64_t), void* user);
  void* self;
} tn_kernel_call;

typedef struct tn_kernel {
  uint32_t struct_size;
  int32_t n_in, n_out;  /* n_in -1: any number */
  int32_t device_type;  /* TN_DEVICE_*: where run works */
  const char* replaces; /* "softmax/1"; NULL: a new op */
  /* Types of the outputs. [any] */
  int32_t (*infer)(void* inst, tn_ctx*, const tn_type* const* in, uint32_t n_in, tn_type* const* out,
                   uint32_t n_out);
  /* The same as graph: the reference, the derivative of every order, and what runs elsewhere. NULL only with
   * `replaces`. [build] */
  int32_t (*compose)(void* inst, tn_ctx*, const tn_tensor* in, uint32_t n_in, tn_tensor* out, uint32_t n_out);
  /* A derivative better than compose's, as graph. NULL: compose's. out[i] TN_NULL: zero. [build] */
  int32_t (*vjp)(void* inst, tn_ctx*, const tn_tensor* in, uint32_t n_in, const tn_tensor* y,
                 const tn_tensor* cotangents, uint32_t n_out, tn_tensor* out);
  /* NULL: none needed. [any] */
  uint64_t (*scratch_bytes)(void* inst, const tn_type* const* in, uint32_t n_in);
  /* TN_STATUS_UNSUPPORTED: this case is declined and compose is used. Allocates nothing. [compute] */
  int32_t (*run)(void* inst, const tn_kernel_call*);
} tn_kernel;

/* ================ L. Procedure and its services ================ */

/* A whole training or experiment loop; plain host numerics are welcome. Slots (declared in hooks.init) and
 * bytes are saved at checkpoint(), so that a resumed run continues. */
typedef struct tn_procedure {
  uint32_t struct_size, reserved;
  int32_t (*run)(void* inst, tn_ctx*); /* [main]: this ctx has no graph, open sessions for that */
} tn_procedure;

/* "tenon.session/1": a graph of one's own. [main] */
typedef struct tn_session_api {
  uint32_t struct_size, reserved;
  /* A context in which tensors may be made until close. flags: TN_CTX_TRAIN or 0. NULL on failure (see
   * ops->status). */
  tn_ctx* (*open)(tn_ctx* parent, uint32_t flags, int64_t step);
  /* Evaluates in one plan: `values` (read afterwards with to_host, at no further cost), then all pending sets
   * and assigns. */
  int32_t (*run)(tn_ctx*, const tn_tensor* values, uint32_t n);
  void (*close)(tn_ctx*);
  /* Slots, bytes and models may be saved now; writes a checkpoint if one is due (or always, if force). */
  int32_t (*checkpoint)(tn_ctx*, int32_t force);
} tn_session_api;

/* "tenon.data/1": streams of the recipe; split is "train", "val", "test" or another of the recipe's. */
typedef struct tn_data_api {
  uint32_t struct_size, reserved;
  /* Samples; 0 where the stream has no such part. [main] and [build] */
  int32_t (*count)(tn_ctx*, const char* stream, const char* split, int64_t* n);
  int32_t (*columns)(tn_ctx*, const char* stream, const char** names, uint32_t capacity, uint32_t* n);
  /* The samples with these numbers (host memory, in this order; NULL: 0 .. n), one column. [build] */
  tn_tensor (*rows)(tn_ctx*, const char* stream, const char* split, const char* column,
                    const int64_t* indices, int64_t n);
  /* The next batch by the recipe's sampler, all columns; says how many there are. [build] */
  int32_t (*next)(tn_ctx*, const char* stream, const char* split, tn_named* out, uint32_t capacity,
                  uint32_t* n);
} tn_data_api;

/* "tenon.plugins/1": other plugins, by id or by their name in the recipe. */
typedef struct tn_instance tn_instance; /* opaque; destroyed by the host when the run ends, or by release */
typedef struct tn_plugins_api {
  uint32_t struct_size, reserved;
  tn_instance* (*create)(tn_ctx*, const char* kind, const char* id, const tn_attr* options,
                         uint32_t n);                                  /* [main] */
  tn_instance* (*recipe)(tn_ctx*, const char* kind, const char* name); /* NULL name: the only one. [main] */
  void (*release)(tn_ctx*, tn_instance*);                              /* [main] */
  /* Losses, reweighters, ...: what it emits comes out, up to `capacity`, and how much there is. [build] */
  int32_t (*build)(tn_ctx*, tn_instance*, const tn_named* in, uint32_t n_in, tn_named* out, uint32_t capacity,
                   uint32_t* n);
  /* Optimizer step on a model's parameters (in the order of tn_model_api.parameters). [build] */
  int32_t (*step)(tn_ctx*, tn_instance*, const char* model, const tn_tensor* grads, uint32_t n);
  int32_t (*perturb)(tn_ctx*, tn_instance*, const tn_attack_target*, const tn_named* in, uint32_t n_in,
                     tn_named* out, uint32_t capacity, uint32_t* n);               /* attack. [build] */
  int32_t (*aggregate)(tn_ctx*, tn_instance*, const tn_round*, tn_tensor* params); /* aggregator. [build] */
  int32_t (*reset)(tn_ctx*, tn_instance*); /* slots back to their initial values. [main] */
} tn_plugins_api;

/* "tenon.fit/1": the recipe's own training, as the built-in procedure does it. Streams NULL: the first. [main] */
typedef struct tn_fit_api {
  uint32_t struct_size, reserved;
  /* n steps of the recipe (forward, losses, optimizers) with the schedules at step `first` of total_steps, and the
   * mean of the losses (may be NULL). A loss that is no longer finite is an error. */
  int32_t (*train)(tn_ctx*, int64_t first, int64_t n, double* mean_loss);
  /* Metrics of the recipe ("accuracy", "loss") on a split, out[n]. */
  int32_t (*evaluate)(tn_ctx*, const char* split, const char* const* metrics, uint32_t n, double* out);
  /* A model's output for every row of a split, row-major; says how many numbers there are, and writes them if
   * `capacity` is enough. model NULL: the main one. */
  int32_t (*predict)(tn_ctx*, const char* model, const char* split, double* out, uint64_t capacity, uint64_t* n);
  /* A column for losses to bind to, in place of one of that name; the first axis are the rows of the split. */
  int32_t (*set_column)(tn_ctx*, const char* stream, const char* split, const char* name, const tn_view*);
  /* Training draws its batches from these rows of the training part from now on (NULL: from all), in an order that
   * `key` decides. */
  int32_t (*select_rows)(tn_ctx*, const char* stream, const int64_t* rows, int64_t n, uint64_t key);
} tn_fit_api;

/* "tenon.supernet/1": the quantised forms of a model; model NULL: the main one. */
typedef struct tn_supernet_api {
  uint32_t struct_size, reserved;
  /* The sites in order, with their present choice: fills up to `capacity` and says how many; names live until the next
   * such call. [main] and [build] */
  int32_t (*sites)(tn_ctx*, const char* model, tn_site* out, uint32_t capacity, uint32_t* n);
  /* The values that a site may take, a list that lives until the next such call. [main] and [build] */
  int32_t (*choices)(tn_ctx*, const char* model, uint32_t site, const int64_t** values, uint32_t* n);
  /* Indices into the choices for all n sites, for whatever is built from now on. [main] and [build] */
  int32_t (*configure)(tn_ctx*, const char* model, const int64_t* choices, uint32_t n);
  /* A configuration as tn_quantizer.sample gives it, or else drawn independently. [any] */
  int32_t (*sample)(tn_ctx*, const char* model, uint64_t key, int32_t which, int64_t* out, uint32_t n);
  /* Running statistics become their means over n training batches, in the present form. [main] */
  int32_t (*recalibrate)(tn_ctx*, const char* model, int64_t batches);
} tn_supernet_api;

/* "tenon.text/1": the tokens of a language model, and generation. [main] */
typedef struct tn_text_api {
  uint32_t struct_size, reserved;
  /* Fill up to `capacity` and say how many there are. */
  int32_t (*encode)(tn_ctx*, const char* stream, const char* text, int64_t* ids, uint64_t capacity,
                    uint64_t* n);
  int32_t (*decode)(tn_ctx*, const char* stream, const int64_t* ids, uint64_t n_ids, char* text,
                    uint64_t capacity, uint64_t* n);
  /* Continues `batch` prompts of equal length: prompts [batch][n_prompt] to ids [batch][n_prompt + n_new].
   * temperature 0: greedy. */
  int32_t (*generate)(tn_ctx*, const char* model, const int64_t* prompts, int64_t batch, int64_t n_prompt,
                      int64_t n_new, double temperature, uint64_t key, int64_t* ids);
} tn_text_api;

/* ================ M. Checks ================ */

#ifdef __cplusplus
#define TN_STATIC_ASSERT_ static_assert
#else
#define TN_STATIC_ASSERT_ _Static_assert
#endif
TN_STATIC_ASSERT_(sizeof(void*) == 8, "the ABI is defined for 64-bit platforms");
TN_STATIC_ASSERT_(sizeof(tn_value) == 16 && sizeof(tn_attr) == 24 && sizeof(tn_named) == 16,
                  "leaf structs never change");
TN_STATIC_ASSERT_(offsetof(tn_type, shape) == 16 && offsetof(tn_view, data) == 24, "layout");
TN_STATIC_ASSERT_(offsetof(tn_ctx, key) == 72 && offsetof(tn_descriptor, create) == 72, "layout");
#undef TN_STATIC_ASSERT_

#ifdef __cplusplus
}
#endif
#endif /* TENON_PLUGIN_H */
