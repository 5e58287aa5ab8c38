"""Processes that train one stage together: each takes its share of a step's micro-batches, and MLX's ring averages the
gradients. One process alone is the usual case, and none of this costs it anything.

What is small goes over the socket pairs that ``engine.runs.ranks`` made: waiting there takes no processor, the ring's
own waiting does, and while the first rank evaluates the others wait for long.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import tempfile
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.nn.utils import average_gradients

from engine.backends.mlx.network import Weights
from engine.runs.exitcodes import ORPHANED
from engine.runs.ranks import PEERS

T = TypeVar("T")


class Ranks:
    """``peers``: the first rank's line to each of the others in order, or another's one line to the first."""

    def __init__(self, rank: int = 0, size: int = 1, peers: list[socket.socket] | None = None) -> None:
        self.rank, self.size = rank, size
        self._lines = [peer.makefile("rwb") for peer in peers or []]
        self._group: mx.distributed.Group | None = None

    @property
    def first(self) -> bool:
        """Whether this one tells, evaluates and saves."""
        return self.rank == 0

    def share(self, parts: list[T]) -> list[T]:
        """This rank's of the parts of a step: every ``size``-th, as accelerate deals batches out."""
        return parts[self.rank :: self.size]

    # ---- words ---------------------------------------------------------------------------------------------------

    def agreed(self, value: Any) -> Any:
        """The first rank's value (JSON), on every rank."""
        if self.first:
            for line in self._lines:
                self._say(line, value)
            return value
        return self._hear(self._lines[0])

    def collected(self, value: Any) -> list[Any]:
        """Every rank's value (JSON) in order, on every rank."""
        if self.first:
            return list(self.agreed([value, *map(self._hear, self._lines)]))
        self._say(self._lines[0], value)
        return list(self.agreed(None))

    def _say(self, line: Any, value: Any) -> None:
        try:
            line.write(json.dumps(value).encode() + b"\n")
            line.flush()
        except OSError:
            self._lost()

    def _hear(self, line: Any) -> Any:
        try:
            heard = line.readline()
        except OSError:
            heard = b""
        return json.loads(heard) if heard else self._lost()

    def _lost(self) -> None:
        if not self.first:
            os._exit(ORPHANED)  # the first rank has said what there was to say
        raise ConnectionError("another process of this stage has ended")

    # ---- arrays --------------------------------------------------------------------------------------------------

    def meet(self) -> None:
        """Make the ring, on ports of the loopback that are free now. Raises RuntimeError when it is not our own."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports = self.collected(free.getsockname()[1])  # each is held until all have chosen
        with tempfile.NamedTemporaryFile("w", suffix=".json") as hosts:
            json.dump([[f"127.0.0.1:{port}"] for port in ports], hosts)
            hosts.flush()
            os.environ.update(MLX_RANK=str(self.rank), MLX_HOSTFILE=hosts.name)
            self._group = mx.distributed.init(strict=True, backend="ring")
        # MLX shares ports (SO_REUSEPORT): another stage that took one at the same moment would not be refused.
        token = self.agreed(secrets.randbits(30))
        tokens = mx.distributed.all_gather(mx.array([token]), group=self._group, stream=mx.cpu)
        if tokens.tolist() != [token] * self.size:
            raise RuntimeError("the ring's ports were taken by another program at the same moment")

    def averaged(self, gradients: Weights, loss: float) -> tuple[Weights, float]:
        """The mean over the ranks of both, the same bits on each. On the CPU's stream: a GPU must not wait for others."""
        if self.size == 1:
            return gradients, loss
        names = sorted(gradients)  # as a list: it would take the dots of a name for a tree
        means = average_gradients([gradients[name] for name in names], self._group, communication_stream=mx.cpu)
        losses = mx.distributed.all_sum(mx.array([loss]), group=self._group, stream=mx.cpu)
        mx.eval(means, losses)
        return dict(zip(names, means, strict=True)), float(losses.item()) / self.size

    def check_same(self, weights: Weights, step: int) -> list[str]:
        """A digest of the weights after ``step`` of every rank. Raises RuntimeError where they differ."""
        if self.size == 1:
            return []
        found: list[str] = self.collected(f"{step} {digest(weights)}")
        if len({*found}) > 1:
            raise RuntimeError(f"the processes of this stage differ in their weights: {found}")
        return [one.split()[1] for one in found]


def digest(weights: Weights) -> str:
    """SHA-256 of names and bytes."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(np.asarray(mx.view(weights[name].reshape(-1), mx.uint8)))
    return found.hexdigest()


def join() -> Ranks:
    """The ranks of this process's stage, as the launcher's environment has them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    peers = [socket.socket(fileno=int(number)) for number in os.environ[PEERS].split(",")]
    ranks = Ranks(int(os.environ["RANK"]), size, peers)
    ranks.meet()
    return ranks
