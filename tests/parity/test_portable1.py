"""Tests the second implementation itself, with published vectors and general properties."""

import numpy as np
import portable1
from needs import torch


def test_philox_has_the_published_outputs():
    """Known answers of Random123 1.09 (kat_vectors, philox4x32 10)."""
    ones = 0xFFFFFFFF
    assert [hex(w) for w in portable1.philox([0, 0, 0, 0], (0, 0))] == [
        "0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(w) for w in portable1.philox([ones] * 4, (ones, ones))] == [
        "0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert [hex(w) for w in portable1.philox(pi, (0xA4093822, 0x299F31D0))] == [
        "0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1"]


def test_order_is_a_permutation_that_changes_with_seed_and_epoch():
    for n in (1, 2, 3, 17, 500, 4097):
        assert sorted(portable1.order(9, 0, n)) == list(range(n))
    assert (portable1.order(9, 0, 500) != portable1.order(9, 1, 500)).mean() > 0.9
    assert (portable1.order(9, 0, 500) != portable1.order(10, 0, 500)).mean() > 0.9


def test_masks_keep_a_share_of_one_minus_p():
    for p in (0.2, 0.5, 0.9):
        kept = portable1.kept(1, 3, 400, 2, 7, 333, p)
        assert kept.shape == (400, 333)
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)


def test_shards_are_contiguous_and_the_first_are_longer():
    assert portable1.shard_sizes(11, 4) == [3, 3, 3, 2]
    assert portable1.shard_sizes(2, 4) == [1, 1, 0, 0]


def test_bf16_rounds_as_pytorch_does():
    bits = np.random.default_rng(3).integers(0, 1 << 32, 100000, dtype=np.uint32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000  # half way between two neighbours
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    assert (portable1.bf16(values).view(np.uint32) == expected.view(np.uint32)).all()
    assert portable1.bf16(np.float32([np.nan, -np.nan])).view(np.uint32).tolist() == [0x7FC00000] * 2
