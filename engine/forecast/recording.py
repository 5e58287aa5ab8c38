"""What a training step requests of the allocator, written down: replayed on a simulated one, and made longer exactly.

The layers of a decoder request the same, one after the other. So the requests of a model with 32 layers follow from those
of the same model with three and with four: what the fourth added, wherever it did, is repeated. A request is freed by
its place among the live ones of its size and operation, which moves by the same number with each layer. Anything that does not follow this pattern raises Irregular, and the whole model has to be recorded.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace

from engine.forecast.allocator import Block, CachingAllocator

ALLOCATE, WARM_UP, FREE, MARK = range(4)
BEGIN = "begin"
"""The mark at which a step begins; what comes before its last one only prepares."""


class Irregular(Exception):
    """Two recordings that do not differ by whole layers."""


@dataclass(frozen=True)
class Event:
    """``kind`` ALLOCATE: ``size`` bytes for the operation ``name``; WARM_UP: a size that grows with the layers, given back
    at once; FREE: the live request of that size and operation with ``place`` newer ones; MARK: the end of the phase
    ``name``."""

    kind: int
    size: int = 0
    place: int = 0
    name: str = ""

    def key(self) -> tuple[int, int, str]:
        """What has to agree for two events to be the same one in two recordings."""
        return self.kind, 0 if self.kind == WARM_UP else self.size, self.name


@dataclass(frozen=True)
class Request:
    size: int
    name: str
    serial: int


@dataclass(frozen=True)
class Peaks:
    """Bytes: over the last step, and (``reserved``) over everything; ``phases`` by the marks of the last step."""

    allocated: int
    reserved: int
    phases: dict[str, int]


@dataclass
class Recording:
    """Stands where a CachingAllocator does. A mark says the end of a phase, ``BEGIN`` the beginning of a step."""

    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.operation = ""
        """What is requesting."""
        self._live: dict[tuple[int, str], list[int]] = {}
        self._serial = 0
        self._open = True

    def close(self) -> None:
        """What is freed from now on is no longer written down."""
        self._open = False

    def allocate(self, size: int) -> Request:
        self._serial += 1
        self._live.setdefault((size, self.operation), []).append(self._serial)
        self.events.append(Event(ALLOCATE, size, name=self.operation))
        return Request(size, self.operation, self._serial)

    def warm_up(self, size: int) -> None:
        """Request and give back ``size`` bytes, which are a share of each layer."""
        self.events.append(Event(WARM_UP, size))

    def free(self, request: Request) -> None:
        if not self._open:
            return
        live = self._live[request.size, request.name]
        older = bisect_left(live, request.serial)
        self.events.append(Event(FREE, request.size, len(live) - 1 - older, request.name))
        del live[older]

    def mark(self, name: str) -> None:
        self.events.append(Event(MARK, name=name))

    def replay(self, allocator: CachingAllocator) -> Peaks:
        live: dict[tuple[int, str], list[Block]] = {}
        phases: dict[str, int] = {}
        peaks: list[int] = []
        for event in self.events:
            if event.kind == ALLOCATE:
                live.setdefault((event.size, event.name), []).append(allocator.allocate(event.size))
            elif event.kind == WARM_UP:
                allocator.free(allocator.allocate(event.size))
            elif event.kind == MARK:
                if event.name == BEGIN:
                    peaks = []
                else:
                    phases[event.name] = allocator.peak_allocated
                    peaks.append(allocator.peak_allocated)
                allocator.peak_allocated = allocator.allocated
            else:
                held = live[event.size, event.name]
                if not 0 <= event.place < len(held):
                    raise Irregular("a free of what is not there")
                allocator.free(held.pop(-1 - event.place))
        return Peaks(max(peaks, default=allocator.peak_allocated), allocator.peak_reserved, phases)


def extended(fewer: Recording, more: Recording, times: int) -> Recording:
    """What would be recorded if that by which ``more`` goes beyond ``fewer`` were there ``times`` more. Raises Irregular."""
    a, b = settled(fewer.events), settled(more.events)
    keys: dict[tuple[int, int, str], int] = {}
    in_a, in_b = ([keys.setdefault(event.key(), len(keys)) for event in events] for events in (a, b))
    events: list[Event] = []
    i = j = shared = 0
    while i < len(a) or j < len(b):
        if i < len(a) and j < len(b) and in_a[i] == in_b[j]:
            events.append(_later(a[i], b[j], times))
            i, j, shared = i + 1, j + 1, shared + 1
            continue
        period = _period(in_a, in_b, i, j)
        if period > shared:
            raise Irregular(f"what repeats at event {j} is longer than what was the same")
        for copy in range(times + 1):
            for place in range(period):
                before = b[j - period + place]
                moved = _later(a[i - period + place], before, times)
                events.append(_later(before, b[j + place], copy, moved))
        j, shared = j + period, 0
    return Recording(events)


def settled(events: list[Event]) -> list[Event]:
    """The same with frees that follow one another in an order of their own: of those of one size and operation the
    newest first. What is free after them is the same in any order, and autograd's goes by addresses."""
    found: list[Event] = []
    run: list[Event] = []
    for event in [*events, None]:  # None ends the last run
        if event is not None and event.kind == FREE:
            run.append(event)
            continue
        if run:
            found += _newest_first(run) if len(run) > 1 else run
            run = []
        if event is not None:
            found.append(event)
    return found


def _newest_first(run: list[Event]) -> list[Event]:
    freed: dict[tuple[int, str], list[int]] = {}
    """Size and operation -> how many newer ones were live before the run, of each that it frees, in rising order."""
    for event in run:
        places = freed.setdefault((event.size, event.name), [])
        before = event.place
        for other in places:
            before += other <= before
        insort(places, before)
    later: dict[tuple[int, str], int] = {}
    found = []
    for event in run:
        kind = event.size, event.name
        number = later.get(kind, 0)
        later[kind] = number + 1
        found.append(replace(event, place=freed[kind][number] - number))
    return found


def _later(one: Event, other: Event, times: int, since: Event | None = None) -> Event:
    """``other`` came after ``one``: what comes ``times`` after it (after ``since``, in place of ``other``, one more)."""
    if other.kind == FREE:
        move = other.place - one.place
        place = since.place + (times + 1) * move if since else other.place + times * move
        return replace(other, place=place)
    if other.kind == WARM_UP:
        if since:
            raise Irregular("a size that grows with the layers, in each layer")
        return replace(other, size=other.size + times * (other.size - one.size))
    return other


def _period(a: list[int], b: list[int], i: int, j: int) -> int:
    """How many events ``b`` has at ``j`` that repeat those before and after which it goes on as ``a`` does at ``i``."""
    best, longest = 0, -1
    rest = len(a) - i
    for period in range(1, min(j, len(b) - j) + 1):
        if rest and (j + period >= len(b) or b[j + period] != a[i]):
            continue
        if b[j : j + period] != b[j - period : j]:
            continue
        matched = 0
        while matched < rest and j + period + matched < len(b) and a[i + matched] == b[j + period + matched]:
            matched += 1
        if matched > longest:
            best, longest = period, matched
    if not best:
        raise Irregular(f"nothing repeats at event {j}")
    return best
