#!/usr/bin/env python3
"""One training step of bench/step.py's networks in JAX: the whole step is compiled, and buffers are donated. Prints a JSON line with the
median time over the repeats.

usage: jax_mlp.py [--batch N] [--hidden 1024,1024,1024] [--bf16] [--steps N] [--repeat N]
"""
import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy


def network(weights, x, key, kind):
    for i, (weight, bias) in enumerate(weights):
        p = 0.5 if i else 0.2
        kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - p, x.shape)
        x = jnp.where(kept, x / (1 - p), 0)
        x = jnp.dot(x.astype(kind), weight.astype(kind), preferred_element_type=jnp.float32) + bias
        if i + 1 < len(weights):
            x = jax.nn.relu(x)
    return x


def compiled_step(kind):
    def loss(weights, x, labels, key):
        logits = jax.nn.log_softmax(network(weights, x, key, kind))
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], 1))

    def step(weights, velocity, x, labels, key):
        value, gradient = jax.value_and_grad(loss)(weights, x, labels, key)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        return jax.tree.map(lambda w, v: w - 0.01 * v, weights, velocity), velocity, value

    return jax.jit(step, donate_argnums=(0, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", default="1024,1024,1024")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    o = parser.parse_args()
    sizes = [784, *map(int, o.hidden.split(",")), 10]
    random = numpy.random.default_rng(0)
    weights = [(jnp.asarray(random.normal(0, (2 / a) ** 0.5, (a, b)), jnp.float32), jnp.zeros(b, jnp.float32)) for a, b in zip(sizes, sizes[1:])]
    velocity = jax.tree.map(jnp.zeros_like, weights)
    x = jnp.asarray(random.random((o.batch, 784)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 10, o.batch))
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(o.steps)]
    step = compiled_step(jnp.bfloat16 if o.bf16 else jnp.float32)
    times = []
    for repeat in range(o.repeat + 1):  # the first one compiles and warms up
        began = time.perf_counter()
        for key in keys:
            weights, velocity, value = step(weights, velocity, x, labels, key)
        value.block_until_ready()
        if repeat:
            times.append((time.perf_counter() - began) / o.steps)
    print(json.dumps({"ms_per_step": statistics.median(times) * 1e3, "version": f"JAX {jax.__version__}"}))


if __name__ == "__main__":
    main()
