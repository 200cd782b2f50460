#!/usr/bin/env python3
"""The workloads of `tenon bench` in PyTorch and JAX: one line of JSON per (peer, workload).

usage: bench_peers.py torch|compile|jax [workload ...]    time whole training steps
       bench_peers.py serve torch|compile|jax workload    answer "step" and "measure SECONDS" on stdin, as tenon bench
       bench_peers.py versions                            which peers there are: {"torch": "2.15.0", ..}
       bench_peers.py values >tools/bench/torch_values.h  what Tenon's first three steps are compared with
env: THREADS (2), SECONDS (3)

A figure is the median over steps of a whole step (forward, backward, optimizer) in float32, on data that stays in
memory. Initial values and data are made by the formula of tools/bench/values.h, and parameters have Tenon's names.
"""
import json, math, os, statistics, sys, time
from collections import OrderedDict
from importlib import metadata

THREADS = int(os.environ.get("THREADS", "2"))
SECONDS = float(os.environ.get("SECONDS", "3"))
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(THREADS)
import numpy as np


# --- values, as tools/bench/values.h -----------------------------------------------------------------------------

def hashes(name, shape):
    """h >> 8 for each element."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    h = np.uint32(seed) + np.uint32(0x9E3779B9) * np.arange(1, math.prod(shape) + 1, dtype=np.uint32)
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return ((h ^ h >> np.uint32(16)) >> np.uint32(8)).reshape(shape)


def uniform(name, shape, centre, half_width):
    u = hashes(name, shape).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    return np.float32(centre) + np.float32(half_width) * u


def data(name, *shape):
    return uniform(name, shape, 0, np.sqrt(np.float32(3)))


def integers(name, n, *shape):
    return (hashes(name, shape) % n).astype(np.int64)


def initial(name, shape):
    if len(shape) < 2:
        return uniform(name, shape, 0 if name.endswith("bias") else 1, 0.1)
    fan = shape[1] * (shape[2] * shape[3] if len(shape) == 4 else 1)
    return uniform(name, shape, 0, np.float32(1) / np.sqrt(np.float32(fan)))


# --- PyTorch ------------------------------------------------------------------------------------------------------
# A workload is a pair: a step, and what the step gave (the loss, and whatever else Tenon's Workload::outcome says).

def torch_workloads(compiled):
    import torch, torch.nn as nn, torch.nn.functional as F
    torch.set_num_threads(THREADS)
    tensor = torch.from_numpy
    maybe_compiled = torch.compile if compiled else lambda f: f

    def begin(prefix, model):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(tensor(initial(prefix + name, tuple(p.shape))))
        return model

    def supervised(model, x, y, optimizer):
        f = maybe_compiled(lambda x, y: F.cross_entropy(model(x), y))
        x, y, last = tensor(x), tensor(y), [None]

        def step():
            optimizer.zero_grad(set_to_none=True)
            last[0] = f(x, y)
            last[0].backward()
            optimizer.step()
        return step, lambda: [last[0].item()]

    def adamw(model):
        return torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)

    def mlp(prefix, *widths):
        layers = OrderedDict()
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:])):
            layers[f"linear{i}"] = nn.Linear(a, b)
            if i < len(widths) - 2:
                layers[f"relu{i}"] = nn.ReLU()
        return begin(prefix, nn.Sequential(layers))

    def mlp_tabular():
        m = mlp("model.mlp0.", 123, 64, 64, 2)
        return supervised(m, data("x", 64, 123), integers("y", 2, 64), adamw(m))

    def mlp_mnist():
        m = mlp("model.mlp0.", 784, 512, 256, 10)
        return supervised(m, data("x", 128, 784), integers("y", 10, 128), adamw(m))

    def mlp_odd():
        m = mlp("model.mlp0.", 301, 300, 300, 7)
        return supervised(m, data("x", 37, 301), integers("y", 7, 37), adamw(m))

    def cnn(batch, size, channels):
        layers, c = OrderedDict(), 3

        def add(kind, module):
            layers[f"{kind}{len(layers)}"] = module
        for o in channels:
            for _ in range(2):
                add("conv2d", nn.Conv2d(c, o, 3, padding=1, bias=False))
                add("batch_norm", nn.BatchNorm2d(o))
                add("relu", nn.ReLU())
                c = o
            add("pool", nn.MaxPool2d(2) if o != channels[-1] else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        add("linear", nn.Linear(c, 10))
        m = begin("model.", nn.Sequential(layers))
        return supervised(m, data("x", batch, 3, size, size), integers("y", 10, batch),
                          torch.optim.SGD(m.parameters(), 0.1, momentum=0.9))

    class Attention(nn.Module):
        def __init__(s, width, heads):
            super().__init__()
            s.heads, s.qkv, s.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(s, x):
            B, T, C = x.shape
            q, k, v = s.qkv(x).view(B, T, 3, s.heads, C // s.heads).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return s.proj(a.transpose(1, 2).reshape(B, T, C))

    class Moe(nn.Module):
        def __init__(s, width, experts):
            super().__init__()
            s.router = nn.Linear(width, experts, bias=False)
            s.up, s.down = nn.Module(), nn.Module()
            for part in (s.up, s.down):
                part.weight = nn.Parameter(torch.empty(experts, width, width))

        def forward(s, x):
            B, T, C = x.shape
            t = x.reshape(-1, C)
            w, chosen = s.router(t).softmax(-1).topk(2, -1)
            out = torch.zeros_like(t)
            for e in range(len(s.up.weight)):
                row, k = (chosen == e).nonzero(as_tuple=True)
                out = out.index_add(0, row, (F.gelu(t[row] @ s.up.weight[e]) @ s.down.weight[e]) * w[row, k, None])
            return out.view(B, T, C)

    class Block(nn.Module):
        def __init__(s, width, heads, experts):
            super().__init__()
            s.norm1, s.attention, s.norm2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
            if experts:
                s.moe = Moe(width, experts)
            else:
                s.mlp = nn.Sequential(OrderedDict(fc=nn.Linear(width, 4 * width), activation=nn.GELU(),
                                                  proj=nn.Linear(4 * width, width)))
            s.feed = [s.moe if experts else s.mlp]  # in a list: registered once

        def forward(s, x):
            x = x + s.attention(s.norm1(x))
            return x + s.feed[0](s.norm2(x))

    class Gpt(nn.Module):
        def __init__(s, vocab, context, width, heads, blocks, experts):
            super().__init__()
            s.tokens, s.positions = nn.Embedding(vocab, width), nn.Embedding(context, width)
            s.blocks = nn.Sequential(*[Block(width, heads, experts) for _ in range(blocks)])
            s.norm, s.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

        def forward(s, x):
            x = s.tokens(x) + s.positions.weight[:x.shape[1]]
            return s.head(s.norm(s.blocks(x))).flatten(0, 1)

    def gpt(B, T, V, width, heads, blocks, experts=0):
        m = begin("model.gpt0.", Gpt(V, T, width, heads, blocks, experts))
        return supervised(m, integers("x", V, B, T), integers("y", V, B, T).reshape(-1), adamw(m))

    def ldr_chain():
        x, y = tensor(data("logits", 4096, 1000)).requires_grad_(), tensor(integers("labels", 1000, 4096))
        rows, classes, last = torch.arange(4096), torch.arange(1000), [None]

        @maybe_compiled
        def loss(x):
            z = (x - x[rows, y][:, None] + 0.1 * (classes[None] != y[:, None])) / 0.7
            return (0.7 * (torch.logsumexp(z, 1) - math.log(1000))).mean()

        def step():
            x.grad = None
            last[0] = loss(x)
            last[0].backward()
        return step, lambda: [last[0].item(), x.grad.abs().sum().item()]

    def adamw_25m():
        ps = [tensor(data(f"parameter{i}", 5_000_000)).requires_grad_() for i in range(5)]
        for i, p in enumerate(ps):
            p.grad = tensor(data(f"gradient{i}", 5_000_000))
        o = torch.optim.AdamW(ps, 1e-3, weight_decay=1e-2, foreach=True)
        return maybe_compiled(o.step), lambda: [sum((p.double() * p.grad.double()).mean().item() for p in ps)]

    def grad_penalty():
        m = mlp("model.", 64, 256, 256, 1)
        x, y = tensor(data("x", 256, 64)), tensor(data("y", 256, 1))
        o, last = torch.optim.SGD(m.parameters(), 1e-3), [None]

        def step():
            o.zero_grad(set_to_none=True)
            z = x.clone().requires_grad_()
            error = F.mse_loss(m(z), y)
            g, = torch.autograd.grad(error, z, create_graph=True)
            last[0] = error + g.pow(2).sum()
            last[0].backward()
            o.step()
        return step, lambda: [last[0].item()]

    return {"mlp_tabular": mlp_tabular, "mlp_mnist": mlp_mnist, "cnn_cifar": lambda: cnn(64, 32, (32, 64, 128)),
            "gpt_char": lambda: gpt(16, 128, 96, 128, 4, 4), "moe_gpt_char": lambda: gpt(16, 128, 96, 128, 4, 4, experts=8),
            "ldr_chain": ldr_chain, "adamw_25m": adamw_25m, "grad_penalty": grad_penalty, "mlp_odd": mlp_odd,
            "cnn_odd": lambda: cnn(37, 30, (13, 27, 51)), "gpt_odd": lambda: gpt(5, 96, 101, 300, 5, 3)}


# --- JAX ----------------------------------------------------------------------------------------------------------

def jax_workloads():
    # XLA takes all cores that it is allowed to.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    import jax, jax.numpy as jnp, optax

    def supervised(params, forward, x, y, optimizer, loss=None):
        loss = loss or (lambda p: optax.softmax_cross_entropy_with_integer_labels(forward(p, x), y).mean())
        box = [params, optimizer.init(params), None]

        @jax.jit
        def update(p, state):
            value, g = jax.value_and_grad(loss)(p)
            u, state = optimizer.update(g, state, p)
            return optax.apply_updates(p, u), state, value

        def step():
            box[0], box[1], box[2] = update(box[0], box[1])
            box[2].block_until_ready()
        return step, lambda: [float(box[2])]

    def adamw():
        return optax.adamw(1e-3, weight_decay=1e-2)

    def array(name, *shape):
        return jnp.asarray(initial(name, shape))

    def mlp_params(prefix, *widths):
        return [(array(f"{prefix}linear{i}.weight", b, a).T, array(f"{prefix}linear{i}.bias", b))
                for i, (a, b) in enumerate(zip(widths[:-1], widths[1:]))]

    def mlp(p, x):
        for w, b in p[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ p[-1][0] + p[-1][1]

    def mlp_tabular():
        x, y = jnp.asarray(data("x", 64, 123)), jnp.asarray(integers("y", 2, 64))
        return supervised(mlp_params("model.mlp0.", 123, 64, 64, 2), mlp, x, y, adamw())

    def mlp_mnist():
        x, y = jnp.asarray(data("x", 128, 784)), jnp.asarray(integers("y", 10, 128))
        return supervised(mlp_params("model.mlp0.", 784, 512, 256, 10), mlp, x, y, adamw())

    def mlp_odd():
        x, y = jnp.asarray(data("x", 37, 301)), jnp.asarray(integers("y", 7, 37))
        return supervised(mlp_params("model.mlp0.", 301, 300, 300, 7), mlp, x, y, adamw())

    def cnn(batch, size, channels):
        P, c, at = dict(conv=[]), 3, 0
        for o in (o for o in channels for _ in range(2)):
            P["conv"].append((array(f"model.conv2d{at}.weight", o, c, 3, 3).transpose(2, 3, 1, 0),
                              array(f"model.batch_norm{at + 1}.weight", o), array(f"model.batch_norm{at + 1}.bias", o)))
            at += 4 if len(P["conv"]) in (2, 4) else 3
            c = o
        P["w"], P["b"] = array(f"model.linear{at + 1}.weight", 10, c).T, array(f"model.linear{at + 1}.bias", 10)

        def forward(P, x):  # [N, H, W, C], which suits XLA
            for j, (w, g, b) in enumerate(P["conv"]):
                x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
                m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))
                x = jax.nn.relu((x - m) * jax.lax.rsqrt(v + 1e-5) * g + b)
                if j in (1, 3):
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            return x.mean((1, 2)) @ P["w"] + P["b"]
        x = jnp.asarray(data("x", batch, 3, size, size).transpose(0, 2, 3, 1).copy())
        return supervised(P, forward, x, jnp.asarray(integers("y", 10, batch)), optax.sgd(0.1, 0.9))

    def layer_norm(x, g, b):
        m, v = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - m) * jax.lax.rsqrt(v + 1e-5) * g + b

    def gelu(x):
        return jax.nn.gelu(x, approximate=False)

    def gpt(B, T, V, d, h, n, experts=0):
        def block(i):
            a = lambda name, *shape: array(f"model.gpt0.blocks.{i}.{name}", *shape)
            linear = lambda name, o, i: (a(name + ".weight", o, i).T, a(name + ".bias", o))
            norm = lambda name: (a(name + ".weight", d), a(name + ".bias", d))
            q = dict(norm1=norm("norm1"), norm2=norm("norm2"), qkv=linear("attention.qkv", 3 * d, d),
                     proj=linear("attention.proj", d, d))
            if experts:
                q.update(router=a("moe.router.weight", experts, d).T, up=a("moe.up.weight", experts, d, d),
                         down=a("moe.down.weight", experts, d, d))
            else:
                q.update(fc=linear("mlp.fc", 4 * d, d), out=linear("mlp.proj", d, 4 * d))
            return q
        P = dict(tokens=array("model.gpt0.tokens.weight", V, d), positions=array("model.gpt0.positions.weight", T, d),
                 blocks=[block(i) for i in range(n)],
                 norm=(array("model.gpt0.norm.weight", d), array("model.gpt0.norm.bias", d)),
                 head=array("model.gpt0.head.weight", V, d).T)
        mask = jnp.tril(jnp.ones((T, T), bool))

        def moe(q, u):
            t = u.reshape(-1, d)
            w, chosen = jax.lax.top_k(jax.nn.softmax(t @ q["router"]), 2)
            flat = chosen.reshape(-1)
            order = jnp.argsort(flat)
            row, sizes = order // 2, jnp.bincount(flat, length=experts)
            y = jax.lax.ragged_dot(gelu(jax.lax.ragged_dot(t[row], q["up"], sizes)), q["down"], sizes)
            return jnp.zeros_like(t).at[row].add(y * w.reshape(-1)[order][:, None]).reshape(B, T, d)

        def forward(P, x):
            z = P["tokens"][x] + P["positions"]
            for q in P["blocks"]:
                a = layer_norm(z, *q["norm1"]) @ q["qkv"][0] + q["qkv"][1]
                a = a.reshape(B, T, 3, h, d // h).transpose(2, 0, 3, 1, 4)
                s = jnp.where(mask, a[0] @ a[1].swapaxes(-1, -2) * (d // h) ** -0.5, -1e9)
                z = z + (jax.nn.softmax(s) @ a[2]).transpose(0, 2, 1, 3).reshape(B, T, d) @ q["proj"][0] + q["proj"][1]
                u = layer_norm(z, *q["norm2"])
                z = z + (moe(q, u) if experts else gelu(u @ q["fc"][0] + q["fc"][1]) @ q["out"][0] + q["out"][1])
            return layer_norm(z, *P["norm"]) @ P["head"]
        return supervised(P, forward, jnp.asarray(integers("x", V, B, T)), jnp.asarray(integers("y", V, B, T)), adamw())

    def ldr_chain():
        x, y = jnp.asarray(data("logits", 4096, 1000)), jnp.asarray(integers("labels", 1000, 4096))
        last = [None]

        @jax.jit
        def value_and_grad(x):
            def loss(x):
                z = (x - jnp.take_along_axis(x, y[:, None], 1) + 0.1 * (jnp.arange(1000)[None] != y[:, None])) / 0.7
                return (0.7 * (jax.nn.logsumexp(z, 1) - math.log(1000))).mean()
            return jax.value_and_grad(loss)(x)

        def step():
            last[0] = jax.block_until_ready(value_and_grad(x))
        return step, lambda: [float(last[0][0]), float(jnp.abs(last[0][1]).sum())]

    def adamw_25m():
        ps = [jnp.asarray(data(f"parameter{i}", 5_000_000)) for i in range(5)]
        gs = [jnp.asarray(data(f"gradient{i}", 5_000_000)) for i in range(5)]
        o = adamw()
        box = [ps, o.init(ps)]

        def update(p, state, g):
            u, state = o.update(g, state, p)
            return optax.apply_updates(p, u), state
        update = jax.jit(update, donate_argnums=(0, 1))

        def step():
            box[0], box[1] = update(box[0], box[1], gs)
            jax.block_until_ready(box[0])
        return step, lambda: [sum(float((p * g).mean()) for p, g in zip(box[0], gs))]

    def grad_penalty():
        x, y = jnp.asarray(data("x", 256, 64)), jnp.asarray(data("y", 256, 1))

        def loss(p):
            value, g = jax.value_and_grad(lambda z: ((mlp(p, z) - y) ** 2).mean())(x)
            return value + (g ** 2).sum()
        return supervised(mlp_params("model.", 64, 256, 256, 1), None, None, None, optax.sgd(1e-3), loss)

    return {"mlp_tabular": mlp_tabular, "mlp_mnist": mlp_mnist, "cnn_cifar": lambda: cnn(64, 32, (32, 64, 128)),
            "gpt_char": lambda: gpt(16, 128, 96, 128, 4, 4), "moe_gpt_char": lambda: gpt(16, 128, 96, 128, 4, 4, experts=8),
            "ldr_chain": ldr_chain, "adamw_25m": adamw_25m, "grad_penalty": grad_penalty, "mlp_odd": mlp_odd,
            "cnn_odd": lambda: cnn(37, 30, (13, 27, 51)), "gpt_odd": lambda: gpt(5, 96, 101, 300, 5, 3)}


# --- what to do with them -----------------------------------------------------------------------------------------

def workloads_of(peer):
    return jax_workloads() if peer == "jax" else torch_workloads(peer == "compile")


def peak_megabytes():
    """Highest resident memory of this process; getrusage's begins with that of the program that started this one."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) // 1024


def measure(step, seconds):
    """Median milliseconds of a step, and what else `tenon bench --json` says."""
    for _ in range(5):
        step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        a = time.perf_counter()
        step()
        times.append(time.perf_counter() - a)
    return {"ms": round(statistics.median(times) * 1e3, 4), "steps": len(times),
            "peak_mb": peak_megabytes()}


def time_steps(peer, names):
    workloads = workloads_of(peer)
    for name in names or workloads:
        try:
            line = measure(workloads[name]()[0], SECONDS)
        except Exception as e:
            line = {"error": repr(e)[:200]}
        print(json.dumps({"peer": peer, "workload": name, **line}), flush=True)


def serve(peer, name):
    step = None
    for request in sys.stdin:
        words = request.split()
        try:
            step = step or workloads_of(peer)[name]()[0]
            if words[0] == "step":
                step()
                line = {}
            else:
                line = measure(step, float(words[1]))
        except Exception as e:
            line = {"error": repr(e)[:200]}
        print(json.dumps(line), flush=True)


def first_values(workloads):
    """Of each workload's first three steps."""
    out = {}
    for name, make in workloads.items():
        step, outcome = make()
        out[name] = []
        for _ in range(3):
            step()
            out[name] += outcome()
    return out


def versions():
    found = {}
    for package in ("torch", "jax", "optax"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    if "optax" not in found:
        found.pop("jax", None)
    return found


def write_values():
    import torch
    print(f"""// Written by tools/peers/bench_peers.py values: what PyTorch {torch.__version__.split("+")[0]} gives in the first three
// steps of each workload from the values of values.h. The numbers of Workload::outcome(), step by step.
#pragma once

#include <span>
#include <string_view>

namespace tenon::bench {{

struct TorchValues {{
  std::string_view workload;
  std::span<const double> values;
}};
""")
    values = first_values(torch_workloads(False))
    for name, v in values.items():
        print(f"inline constexpr double k_{name}[] = {{{', '.join(f'{x:.9g}' for x in v)}}};")
    print("\ninline constexpr TorchValues kTorchValues[] = {")
    for name in values:
        print(f'    {{"{name}", k_{name}}},')
    print("};\n\n}  // namespace tenon::bench")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what in ("torch", "compile", "jax"):
        time_steps(what, sys.argv[2:])
    elif what == "serve":
        serve(*sys.argv[2:])
    elif what == "versions":
        print(json.dumps(versions()))
    elif what == "values":
        write_values()
    else:
        sys.exit(__doc__)
