"""What every part of the benchmark shares: who takes part, where, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks import peers as libraries
from benchmarks.device import CPU
from benchmarks.peers import Peer
from benchmarks.peers.base import NotPossible
from benchmarks.timing import Row, Work, measure


@dataclass
class Setting:
    """One run.

    Attributes:
        peers: name → library, tinygen first.
        why_not: name → why a library that was asked for is not among them.
        device: where tensors live and time is taken.
        threads: of every library.
        turns: of every library at every row.
        quick: smaller works and fewer rows, to see that all of it runs.
        thorough: all libraries take part in everything.
    """

    peers: dict[str, Peer]
    why_not: dict[str, str] = field(default_factory=dict)
    device: CPU = field(default_factory=CPU)
    threads: int = 2
    turns: int = 7
    quick: bool = False
    thorough: bool = False

    def __post_init__(self) -> None:
        self.enter = libraries.entering(self.peers, self.threads)

    @property
    def quick_peers(self) -> list[str]:
        """Those that take part in growth, threads and memory."""
        return [name for name, peer in self.peers.items() if peer.quick or self.thorough]

    @property
    def batch(self) -> int:
        """Images in a training step."""
        return 16 if self.quick else 128

    def row(
        self, name: str, make: Callable[[Peer], Work], flops: float = 0.0, bytes: float = 0.0, only_quick: bool = False,
        turns: int | None = None, longest: float = 5.0,
    ) -> Row:
        """Let every library make its work and measure them; one that cannot, or fails, is in the row with the reason.

        Args:
            make: library → its work.
            flops, bytes: see Row.
            only_quick: leave out the libraries that are slow to compile or to run.
            turns: instead of the setting's.
            longest: seconds for one library.
        """
        works, why_not = {}, {}
        for library, peer in self.peers.items():
            if only_quick and library not in self.quick_peers:
                continue
            self.enter(library)
            try:
                work = make(peer)
                for _ in range(peer.settling):
                    work()
                works[library] = work
            except NotPossible as error:
                why_not[library] = f"{error.said}: {error}"
            except Exception as error:
                why_not[library] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        row = measure(
            name, works, turns or self.turns, enter=self.enter, device=self.device, flops=flops, bytes=bytes,
            least=0.01 if self.quick else 0.05, longest=min(longest, 0.5) if self.quick else longest,
        )
        row.why_not |= why_not
        return row


Part = Callable[[Setting], Iterator[Row]]
