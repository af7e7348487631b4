"""Helpers for several integration tests."""

import random
import socket
import struct


def write_idx(path, dims, values):
    path.write_bytes(struct.pack(">BBBB", 0, 0, 8, len(dims)) + b"".join(struct.pack(">I", d) for d in dims) + bytes(values))


def write_patterns(folder, parts, seed=11):
    """Writes noisy patterns of five classes, 17 x 18 bytes, so that products have more than one block of k."""
    noise = random.Random(seed)  # the Mersenne Twister gives the same bytes everywhere
    patterns = [[noise.getrandbits(8) for _ in range(306)] for _ in range(5)]
    for part, count in parts:
        labels = [i % 5 for i in range(count)]
        pixels = bytearray()
        for label in labels:
            pixels += bytes((value + 2 * noise.getrandbits(8)) // 3 for value in patterns[label])
        write_idx(folder / f"{part}-images", (count, 17, 18), pixels)
        write_idx(folder / f"{part}-labels", (count,), labels)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
