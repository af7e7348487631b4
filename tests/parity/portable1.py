"""A second implementation of parts of portable-1 in NumPy, written from its definition (docs/reference/portable-1.md) without code of common/.

With it, the parity tests start PyTorch from the same weights and feed it the same batches. It is exact wherever the definition uses only f64
arithmetic without functions: uniform initialisation, order, masks."""

import hashlib

import numpy as np

INIT, ORDER, MASK, NOISE = 1, 2, 3, 4
ENSEMBLE = 5
SPLIT = 9


def philox(counters, key):
    """Philox4x32-10. counters: (..., 4) integers, key: two words; returns (..., 4) uint32."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.asarray(counters, dtype=np.uint64)[..., i].copy() for i in range(4)]
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        p0 = c[0] * np.uint64(0xD2511F53)
        p1 = c[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1).astype(np.uint32)


def derive(seed, purpose, shard=0):
    words = philox([purpose, shard, 0x636F7070, 0x69636531], (seed & 0xFFFFFFFF, seed >> 32))
    return int(words[0]), int(words[1])


def order(seed, epoch, n, purpose=ORDER):
    """The row at each position of an epoch's order (D1), by a cycle-walking Feistel network."""
    key = derive(seed, purpose)
    half = max(1, (int(n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1

    def feistel(values):
        left, right = values >> half, values & mask
        for turn in range(8):
            counters = np.stack([right, np.full_like(right, turn), np.full_like(right, epoch), right * 0], axis=-1)
            left, right = right, left ^ (philox(counters, key)[..., 0].astype(np.int64) & mask)
        return left << half | right

    values = feistel(np.arange(n, dtype=np.int64))
    while (values >= n).any():
        outside = values >= n
        values[outside] = feistel(values[outside])
    return values


def shares(wanted, rows, least, most):
    """Distributes `wanted` rows over classes with `rows` rows each, by largest remainders within [least, most]."""
    rows, total = [int(n) for n in rows], int(sum(rows))
    counts = [min(max(wanted * n // total, low), high) for n, low, high in zip(rows, least, most)]

    def deficit(c):
        return wanted * rows[c] - total * counts[c]

    while sum(counts) < wanted:
        counts[max((c for c in range(len(rows)) if counts[c] < most[c]), key=lambda c: (deficit(c), -c))] += 1
    while sum(counts) > wanted:
        counts[min((c for c in range(len(rows)) if counts[c] > least[c]), key=lambda c: (deficit(c), c))] -= 1
    return counts


def split_seed(x, labels):
    """The seed of the split, from samples and labels as stored in the pack."""
    return int.from_bytes(hashlib.sha256(x.tobytes() + labels.astype("<i4").tobytes()).digest()[:8], "little")


def split(seed, labels, validation=0, samples=0):
    """(training rows, validation rows) of `data.split: stratified`. Use equal labels for a job without classes."""
    n = len(labels)
    used = samples or n
    classes, labels = np.unique(labels, return_inverse=True)
    if used == n and not validation:
        return np.arange(n), np.arange(0)
    rows = np.bincount(labels)
    kept_rows = shares(used, rows, [1] * len(classes), rows.tolist())
    aside = shares(validation, kept_rows, [0] * len(classes), [k - 1 for k in kept_rows])
    parts, seen = ([], []), [0] * len(classes)
    for row in order(seed, 0, n, SPLIT):
        c = labels[row]
        if seen[c] < kept_rows[c]:
            parts[seen[c] < aside[c]].append(row)
        seen[c] += 1
    return np.sort(parts[0]), np.sort(parts[1])


def batches(seed, n, batch, steps):
    """Rows of the batches of steps 1 .. steps, including the short last batch of an epoch."""
    per_epoch = -(-n // batch)
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        yield order(seed, epoch, n)[place * batch : (place + 1) * batch]


def shard_sizes(count, shards):
    return [count // shards + (shard < count % shards) for shard in range(shards)]


def init_uniform(seed, layer, parameter, shape, bound):
    count = int(np.prod(shape))
    blocks = np.arange(-(-count // 4), dtype=np.int64)
    zeros = np.zeros_like(blocks)
    counters = np.stack([blocks, zeros, zeros + layer, zeros + parameter], axis=-1)
    words = philox(counters, derive(seed, INIT)).reshape(-1)[:count]
    unit = (words >> np.uint32(8)).astype(np.float64) * 2.0**-24
    return (bound * (2 * unit - 1)).astype(np.float32).reshape(shape)


def init_linear(seed, layer, units, inputs, kind="torch"):
    """Weight and bias of a linear layer. `he` is not implemented, because it needs normal numbers from D4's functions."""
    if kind == "torch":
        bound = 1 / np.sqrt(np.float64(inputs))
        return init_uniform(seed, layer, 0, (units, inputs), bound), init_uniform(seed, layer, 1, (units,), bound)
    if kind == "glorot":
        bound = np.sqrt(6 / np.float64(inputs + units))
        return init_uniform(seed, layer, 0, (units, inputs), bound), np.zeros(units, np.float32)
    raise ValueError(kind)


def kept(seed, shard, samples, layer, step, units, p, scope="sample", purpose=MASK):
    """Masks (D3) of samples 0 .. samples - 1 of a shard: bool (samples, units), true for kept units. For an ensemble, use purpose ENSEMBLE,
    shard 0, and the member's number as step; the samples are then those of a whole part."""
    key = derive(seed, purpose, shard)
    per_block = 128 if p == 0.5 else 8
    blocks = -(-units // per_block)
    counters = np.zeros((samples, blocks, 4), dtype=np.int64)
    counters[..., 0] = np.arange(blocks)
    if scope == "sample":
        counters[..., 1] = np.arange(samples)[:, None]
    counters[..., 2], counters[..., 3] = layer, step
    words = philox(counters, key).astype("<u4")
    raw = words.view(np.uint8).reshape(samples, -1)
    if p == 0.5:
        return np.unpackbits(raw, axis=1, bitorder="little")[:, :units] == 0
    lanes = raw.view("<u2").reshape(samples, -1)[:, :units]
    return lanes >= int(np.floor(p * 65536 + 0.5))


def noise(seed, shard, samples, layer, step, units, scope="sample"):
    """Standard normal numbers (D3) of samples 0 .. samples - 1 of a shard: f64 (samples, units), exact except for the last bits of NumPy's log and cos."""
    blocks = -(-units // 4)
    counters = np.zeros((samples, blocks, 4), dtype=np.int64)
    counters[..., 0] = np.arange(blocks)
    if scope == "sample":
        counters[..., 1] = np.arange(samples)[:, None]
    counters[..., 2], counters[..., 3] = layer, step
    words = philox(counters, derive(seed, NOISE, shard)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[..., 0::2] + 1) * 2.0**-32))
    angle = words[..., 1::2] * 2.0**-32 * (2 * np.pi)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(samples, -1)[:, :units]


def bf16(values):
    """f32 values rounded to bf16 (to the nearest, ties to even), as f32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) & np.uint64(0xFFFF0000)
    rounded = np.where(np.isnan(values), np.uint64(0x7FC00000), rounded)
    return rounded.astype(np.uint32).view(np.float32)


def shard_sum(leaves, wire="f32"):
    """The sum of the shards' gradients along the tree of D5; an absent leaf is None. With `wire: bf16` each node is rounded."""
    if len(leaves) == 1:
        node = leaves[0]
        return node if node is None or wire == "f32" else bf16(node) + np.float32(0)
    half = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = shard_sum(leaves[:half], wire), shard_sum(leaves[half:], wire)
    if left is None or right is None:
        return right if left is None else left
    node = left + right
    return node if wire == "f32" else bf16(node) + np.float32(0)
