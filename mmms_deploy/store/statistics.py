"""The figures of a store."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TierStats:
    """What one place holds, and what it was asked for.

    Attributes:
        entries: Images whose features are there; on the disk those of all processes.
        bytes: Their bytes.
        budget: The most bytes that it may hold; None for no limit.
        hits: How often features were found there, since the store was opened.
        evictions: How many entries this store took out because of the budget.
    """

    entries: int
    bytes: int
    budget: int | None
    hits: int
    evictions: int


@dataclass(frozen=True)
class StoreStats:
    """The figures of a store at one moment.

    Attributes:
        device: Features on the devices of engines.
        host: Features in the memory of this process.
        disk: Features in the folder; None where there is none.
        misses: How often features were found nowhere.
        shared: How many of the hits waited for another thread that was encoding the same image.
        kept: How many images were kept that were not there.
        rounded: How many of these were rounded to float16.
        damaged: How many entries on the disk were damaged, cut off, foreign or renamed, and were removed.
        failures: How many times the folder could not be read or written.
    """

    device: TierStats
    host: TierStats
    disk: TierStats | None
    misses: int
    shared: int
    kept: int
    rounded: int
    damaged: int
    failures: int

    @property
    def hits(self) -> int:
        """How often features were found, wherever they were."""
        tiers = (self.device, self.host, self.disk)
        return sum(tier.hits for tier in tiers if tier is not None)

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain data for JSON."""
        return asdict(self)
