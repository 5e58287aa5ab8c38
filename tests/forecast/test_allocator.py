"""The simulated caching allocator, against the rules of CUDACachingAllocator.cpp."""

from __future__ import annotations

import random

import pytest

from engine.forecast.allocator import MIB, CachingAllocator, OutOfMemory


def test_small_requests_share_a_segment_of_2_mib():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(100_000) for _ in range(20)]
    assert allocator.reserved == 2 * MIB
    assert allocator.allocated == 20 * 100_352  # rounded up to 512
    for block in blocks:
        allocator.free(block)
    assert allocator.allocated == 0 and allocator.reserved == 2 * MIB


@pytest.mark.parametrize("asked,reserved", [(MIB, 2), (MIB + 1, 20), (9 * MIB, 20), (10 * MIB, 10), (11 * MIB + 1, 12)])
def test_the_segment_that_a_first_request_makes(asked, reserved):
    allocator = CachingAllocator()
    allocator.allocate(asked)
    assert allocator.reserved == reserved * MIB


def test_a_freed_block_is_used_again_and_neighbours_merge():
    allocator = CachingAllocator()
    first, second = allocator.allocate(4 * MIB), allocator.allocate(4 * MIB)
    allocator.free(first)
    allocator.free(second)
    allocator.allocate(20 * MIB)
    assert allocator.reserved == 20 * MIB  # the two and the rest of their segment are one block again


def test_a_large_block_is_not_split_for_a_rest_of_a_mebibyte():
    allocator = CachingAllocator()
    block = allocator.allocate(12 * MIB)
    allocator.free(block)
    again = allocator.allocate(11 * MIB)
    assert again.size == 12 * MIB and allocator.allocated == 12 * MIB


def test_the_best_fit_is_taken():
    allocator = CachingAllocator()
    wide, narrow = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
    allocator.free(wide)
    allocator.free(narrow)
    assert allocator.allocate(29 * MIB).size == 30 * MIB or allocator.reserved == 70 * MIB


def test_of_equally_large_blocks_the_newest_segments_is_taken():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(30 * MIB) for _ in range(3)]
    for block in blocks:
        allocator.free(block)
    assert allocator.allocate(30 * MIB).address == blocks[-1].address == min(block.address for block in blocks)


def test_a_full_device_gives_whole_segments_back_before_it_gives_up():
    allocator = CachingAllocator(limit=100 * MIB)
    block = allocator.allocate(60 * MIB)
    allocator.free(block)
    allocator.allocate(80 * MIB)
    assert allocator.reserved == 80 * MIB
    with pytest.raises(OutOfMemory):
        allocator.allocate(30 * MIB)


def test_no_byte_is_lost_over_a_random_history():
    rng = random.Random(0)
    allocator, live, counted = CachingAllocator(), [], 0
    for _ in range(5000):
        if live and rng.random() < 0.5:
            block = live.pop(rng.randrange(len(live)))
            counted -= block.size
            allocator.free(block)
        else:
            block = allocator.allocate(int(2 ** rng.uniform(4, 25)))
            counted += block.size
            live.append(block)
        assert allocator.allocated == counted <= allocator.reserved
    for block in live:
        allocator.free(block)
    allocator.empty_cache()
    assert allocator.allocated == 0 and allocator.reserved == 0
