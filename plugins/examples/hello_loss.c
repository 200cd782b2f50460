/* A first loss in plain C11: no library, no libc. Squared error that saturates,
 *   l = scale * mean(log(1 + (prediction - target)^2 / scale)).
 * Build: cc -std=c11 -O2 -fPIC -fvisibility=hidden -shared hello_loss.c -o hello_loss.so */
#include "tenon_plugin.h"

static tn_tensor apply(tn_ctx* ctx, const char* id, tn_tensor a, tn_tensor b) {
  const tn_tensor in[2] = {a, b};
  tn_tensor out = TN_NULL;
  ctx->ops->apply(ctx, ctx->ops->find(ctx->host, id), in, b == TN_NULL ? 1 : 2, 0, 0, &out, 1);
  return out; /* null after an error: whatever is built from it is null, too */
}

static int32_t build(void* inst, tn_ctx* ctx, const tn_named* in, uint32_t n) {
  const tn_tensor prediction = in[0].tensor, target = in[1].tensor; /* in the order of the roles */
  tn_type type = {.struct_size = sizeof(tn_type)};
  ctx->ops->type(ctx, prediction, &type);
  const tn_tensor scale = ctx->ops->scalar(ctx, ctx->options[0].value.as.f64, type.dtype);
  const tn_tensor error = apply(ctx, "sub/1", prediction, target);
  const tn_tensor ratio = apply(ctx, "div/1", apply(ctx, "square/1", error, TN_NULL), scale);
  const tn_tensor mean = apply(ctx, "mean/1", apply(ctx, "log1p/1", ratio, TN_NULL), TN_NULL);
  ctx->ops->emit(ctx, "loss", apply(ctx, "mul/1", mean, scale), TN_OUT_LOSS);
  (void)inst, (void)n;
  return ctx->ops->status(ctx);
}

static const tn_option scale = {.struct_size = sizeof(tn_option),
                                .type = TN_VALUE_F64,
                                .name = "scale",
                                .help = "error at which it flattens",
                                .flags = TN_OPTION_MIN | TN_OPTION_MIN_OPEN,
                                .fallback = {TN_VALUE_F64, 0, {.f64 = 1.0}}};
static const tn_role prediction = {sizeof(tn_role), 0, "prediction", "[B, ..]", TN_CLASS_FLOATING, 0};
static const tn_role target = {sizeof(tn_role), 0, "target", "[B, ..]", TN_CLASS_FLOATING, 0};
static const tn_option* const options[] = {&scale};
static const tn_role* const roles[] = {&prediction, &target};
static const tn_loss loss = {sizeof(tn_loss), 0, build};

static const tn_descriptor descriptor = {.struct_size = sizeof(tn_descriptor),
                                         .id = "hello_c",
                                         .kind = TN_KIND_LOSS,
                                         .help = "Squared error that saturates (Cauchy loss), in plain C",
                                         .vtable = &loss,
                                         .options = options,
                                         .roles = roles,
                                         .n_options = 1,
                                         .n_roles = 2};
static const tn_descriptor* const descriptors[] = {&descriptor};
static const char* const required_ops[] = {"sub/1", "div/1", "mul/1", "square/1", "log1p/1", "mean/1"};
static const tn_plugin plugin = {.struct_size = sizeof(tn_plugin),
                                 .vendor = "Example",
                                 .version = "1.0",
                                 .required_ops = required_ops,
                                 .n_required_ops = 6,
                                 .n_descriptors = 1,
                                 .descriptors = descriptors};

int32_t tenon_plugin_v1(const tn_host* host, const tn_plugin** out) {
  (void)host;
  *out = &plugin;
  return TN_STATUS_OK;
}
