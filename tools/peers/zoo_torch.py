#!/usr/bin/env python3
"""The same models, data and budget as models/{mnist_mlp,cifar10_cnn,gpt_char}, in PyTorch.

usage: zoo_torch.py mnist_mlp|cifar10_cnn|gpt_char [seed ...]     env: TENON_DATA, THREADS (2)
Prints one line of JSON a seed: the final test metric (validation loss for gpt_char) and seconds. Initialisation is
PyTorch's own; gpt_char initialises as nanoGPT does (normal 0.02, residual projections 0.02/sqrt(2L)).
"""
import gzip, json, math, os, struct, sys, time

THREADS = int(os.environ.get("THREADS", "2"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F

torch.set_num_threads(THREADS)
ROOT = os.environ.get("TENON_DATA", "../shared/data")


def idx(name):
    with gzip.open(f"{ROOT}/{name}") as f:
        raw = f.read()
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def cosine(opt, steps):
    return torch.optim.lr_scheduler.LambdaLR(opt, lambda s: 0.5 * (1 + math.cos(math.pi * s / steps)))


def classify(model, opt, x, y, tx, ty, batch, epochs):
    steps = epochs * math.ceil(len(x) / batch)
    sched = cosine(opt, steps)
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch):
            b = order[i:i + batch]
            opt.zero_grad(set_to_none=True)
            F.cross_entropy(model(x[b]), y[b]).backward()
            opt.step()
            sched.step()
    model.eval()
    with torch.no_grad():
        hits = sum((model(tx[i:i + 500]).argmax(1) == ty[i:i + 500]).sum().item() for i in range(0, len(tx), 500))
    return {"test/accuracy": hits / len(tx), "steps": steps}


def mnist_mlp():
    f = lambda part: ((idx(f"mnist/{part}-images-idx3-ubyte.gz").float() / 255 - 0.1307) / 0.3081).flatten(1)
    l = lambda part: idx(f"mnist/{part}-labels-idx1-ubyte.gz").long()
    m = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    o = torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=1e-2)
    return classify(m, o, f("train"), l("train"), f("t10k"), l("t10k"), 128, 5)


def cifar10_cnn():
    def part(name):
        with gzip.open(f"{ROOT}/cifar10-subset-jpeg/{name}.bin.gz") as f:
            raw = np.frombuffer(f.read(), np.uint8).reshape(-1, 3073)
        x = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy()).float() / 255
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
        return (x - mean[:, None, None]) / std[:, None, None], torch.from_numpy(raw[:, 0].astype(np.int64))
    layers, c = [], 3
    for o in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(c, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            c = o
        layers += [nn.MaxPool2d(2)] if o < 128 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    m = nn.Sequential(*layers, nn.Linear(128, 10))
    o = torch.optim.AdamW(m.parameters(), 2e-3, weight_decay=1e-2)
    return classify(m, o, *part("train_10k"), *part("test_2k"), 64, 8)


class Block(nn.Module):
    def __init__(s, d, h):
        super().__init__()
        s.h = h
        s.n1, s.n2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        s.qkv, s.o = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        s.up, s.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(s, x):
        B, T, d = x.shape
        q, k, v = s.qkv(s.n1(x)).view(B, T, 3, s.h, d // s.h).permute(2, 0, 3, 1, 4)
        x = x + s.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, d))
        return x + s.down(F.gelu(s.up(s.n2(x))))


class GPT(nn.Module):
    def __init__(s, V, T, d, h, n):
        super().__init__()
        s.e, s.p = nn.Embedding(V, d), nn.Embedding(T, d)
        s.b = nn.Sequential(*[Block(d, h) for _ in range(n)])
        s.n = nn.LayerNorm(d, bias=False)
        for name, w in s.named_parameters():
            if w.ndim == 2:
                nn.init.normal_(w, 0, 0.02 / math.sqrt(2 * n) if name.endswith(("o.weight", "down.weight")) else 0.02)

    def forward(s, x):
        return s.n(s.b(s.e(x) + s.p.weight[:x.shape[1]])) @ s.e.weight.T


def gpt_char():
    text = open(f"{ROOT}/text/tinyshakespeare.txt").read()
    vocabulary = sorted(set(text))
    code = {c: i for i, c in enumerate(vocabulary)}
    data = torch.tensor([code[c] for c in text])
    train, val = data[:int(0.9 * len(data))], data[int(0.9 * len(data)):]
    T, B, steps, warm = 64, 12, 2000, 100
    m = GPT(len(vocabulary), T, 128, 4, 4)
    groups = [{"params": [w for w in m.parameters() if w.ndim == 2], "weight_decay": 0.1},
              {"params": [w for w in m.parameters() if w.ndim == 1], "weight_decay": 0.0}]
    o = torch.optim.AdamW(groups, 2e-3, betas=(0.9, 0.99))
    sched = torch.optim.lr_scheduler.LambdaLR(o, lambda s: (s + 1) / (warm + 1) if s < warm else
                                              0.1 + 0.45 * (1 + math.cos(math.pi * (s - warm) / (steps - warm))))
    for _ in range(steps):
        i = torch.randint(len(train) - T, (B,))
        x, y = torch.stack([train[j:j + T] for j in i]), torch.stack([train[j + 1:j + T + 1] for j in i])
        o.zero_grad(set_to_none=True)
        F.cross_entropy(m(x).flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        o.step()
        sched.step()
    m.eval()
    with torch.no_grad():  # side-by-side windows over the whole validation part
        n = (len(val) - 1) // T
        x, y = val[:n * T].view(n, T), val[1:n * T + 1].view(n, T)
        total = sum(F.cross_entropy(m(x[i:i + 64]).flatten(0, 1), y[i:i + 64].flatten(), reduction="sum").item()
                    for i in range(0, n, 64))
    return {"val/loss": total / (n * T), "steps": steps}


if __name__ == "__main__":
    run = {f.__name__: f for f in (mnist_mlp, cifar10_cnn, gpt_char)}[sys.argv[1]]
    for seed in [int(s) for s in sys.argv[2:]] or [0]:
        torch.manual_seed(seed)
        start = time.perf_counter()
        print(json.dumps({"model": sys.argv[1], "seed": seed, "torch": torch.__version__, **run(),
                          "seconds": round(time.perf_counter() - start, 1)}), flush=True)
