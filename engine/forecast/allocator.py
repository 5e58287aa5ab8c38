"""A simulation of PyTorch's CUDA caching allocator: what is reserved, given what is allocated and freed, in order.

The rules and sizes are those of ``c10/cuda/CUDACachingAllocator.cpp`` with default settings (no expandable segments):
requests are rounded up to 512 bytes; up to 1 MiB they live in 2 MiB segments, up to 10 MiB in 20 MiB segments, above
that in a segment of their own rounded up to 2 MiB. The best fitting free block of the pool is taken and split when
enough is left; freed blocks merge with free neighbours; segments are given back only when the device is full.

Among equally large blocks the one at the lowest address is taken, so it matters where the driver puts segments: each new
one below the earlier ones. That is no documented rule; it follows from the T4's unquantized rows (assets/measured), whose
reserved memory comes out the same to the MiB in 12 of 16 settings, 20 MiB off at most; with rising addresses 500.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 2**20
ROUND = 512
SMALL = MIB
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
OWN_SEGMENT = 10 * MIB
ROUND_LARGE = 2 * MIB


class OutOfMemory(Exception):
    """A request that the simulated device cannot meet even with an empty cache."""


class Block:
    """A piece of a segment. ``previous`` and ``next`` are its neighbours in the same segment, or None."""

    __slots__ = ("size", "address", "small", "free", "previous", "next")

    def __init__(self, size: int, address: int, small: bool) -> None:
        self.size = size
        self.address = address
        self.small = small
        self.free = False
        self.previous: Block | None = None
        self.next: Block | None = None

    def key(self) -> tuple[int, int]:
        return self.size, self.address


class CachingAllocator:
    """``allocated``, ``reserved`` and their peaks in bytes. ``limit`` is the device's size; None means endless."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.operation = ""
        """What is requesting; it makes no difference here (engine.forecast.recording)."""
        self.allocated = self.peak_allocated = 0
        self.reserved = self.peak_reserved = 0
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        """Small pool? -> (size, address) of its free blocks, sorted."""
        self._blocks: dict[int, Block] = {}
        self._lowest_address = 2**62

    def reset_peaks(self) -> None:
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def allocate(self, size: int) -> Block:
        """Raises OutOfMemory if the device has a limit and it is reached."""
        size = max(ROUND, -(-size // ROUND) * ROUND)
        small = size <= SMALL
        block = self._take(size, small) or self._segment(size, small)
        remaining = block.size - size
        if remaining >= ROUND if small else remaining > SMALL:
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        self.allocated -= block.size
        block.free = True
        for other in (block.previous, block.next):
            if other is not None and other.free:
                self._forget(other)
                block = self._merged(block, other)
        self._remember(block)

    def empty_cache(self) -> None:
        """Give every whole free segment back."""
        for size, address in [*self._free[True], *self._free[False]]:
            block = self._blocks[address]
            if block.previous is None and block.next is None:
                self._forget(block)
                del self._blocks[address]
                self.reserved -= size

    def _take(self, size: int, small: bool) -> Block | None:
        pool = self._free[small]
        place = bisect_left(pool, (size, -1))
        if place == len(pool):
            return None
        block = self._blocks[pool[place][1]]
        del pool[place]
        return block

    def _segment(self, size: int, small: bool) -> Block:
        if small:
            wanted = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            wanted = LARGE_SEGMENT
        else:
            wanted = -(-size // ROUND_LARGE) * ROUND_LARGE
        if self.limit is not None and self.reserved + wanted > self.limit:
            self.empty_cache()
            if self.reserved + wanted > self.limit:
                raise OutOfMemory(f"{wanted / MIB:.0f} MiB more with {self.reserved / MIB:.0f} MiB reserved")
        self._lowest_address -= wanted + ROUND_LARGE  # segments are not neighbours
        block = Block(wanted, self._lowest_address, small)
        self._blocks[block.address] = block
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.size - size, block.address + size, block.small)
        rest.previous, rest.next = block, block.next
        if block.next is not None:
            block.next.previous = rest
        block.next, block.size, rest.free = rest, size, True
        self._blocks[rest.address] = rest
        self._remember(rest)

    def _merged(self, one: Block, other: Block) -> Block:
        first, second = (one, other) if one.address < other.address else (other, one)
        first.size += second.size
        first.next = second.next
        if second.next is not None:
            second.next.previous = first
        del self._blocks[second.address]
        first.free = True
        return first

    def _remember(self, block: Block) -> None:
        insort(self._free[block.small], block.key())

    def _forget(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, block.key())]
