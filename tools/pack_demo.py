"""Packs a bundle or a checkpoint for the package: its part of an archive, and the SHA-256 of every file in it.

    python -m tools.pack_demo training/runs/thermal/demo-thermal.safetensors
    python -m tools.pack_demo build/demo-bundle/demo       (make demo-bundle and make demo-small-bundle export it first)

A checkpoint is packed before its bundle: tensors of the packed checkpoint and of the frozen backbone are not packed
with the bundle, because the package takes them from there. The archive keeps the other bundles that it holds. The same
bundles always give the same archive: sorted names, no times, no owners.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mmms_deploy.bundle import MANIFEST_NAME, Bundle
from mmms_deploy.bundle.names import CARD_NAME
from mmms_deploy.bundle.packed import CHECKPOINTS, PIECES, Kind, Packed, checkpoint_file, checkpoint_tensors
from mmms_deploy.bundle.pieces import Bytes, Piece, Positions, Recipe, Source, Stored, Tensors
from mmms_deploy.files import write_file
from mmms_deploy.weights import find_weights
from mmms_deploy.weights.safetensors_file import read_safetensors
from tools.find_pieces import PieceFinder, halves

DEMO = Path(__file__).parents[1] / "mmms_deploy" / "demo"
_WORTH = 0.01
"""Share of a checkpoint from which another one is unpacked for it."""


def packed(bundle: Bundle, sources: Mapping[str, tuple[Source, Tensors]]) -> tuple[dict[str, bytes], bytes]:
    """Return what the archive has to hold of a bundle, and its list of hashes in the form of ``sha256sum``.

    Args:
        bundle: The bundle.
        sources: What has tensors that need not be packed, by the names that pieces get: what to write about each, and
            the tensors.

    Returns:
        Contents by name; ``pieces.json`` is first, where tensors were found.
    """
    members, sums, made = {}, [], {}
    finder = PieceFinder({name: tensors for name, (_, tensors) in sources.items()})
    card = [] if bundle.manifest.card is None else [CARD_NAME]
    for name in sorted([MANIFEST_NAME, *card, *bundle.manifest.files]):
        file = bundle.path / name
        pieces, members[name] = finder.pieces(file)
        if any(not isinstance(piece, Bytes) for piece in pieces):
            made[name] = tuple(pieces)
        sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n")
    if made:
        recipe = Recipe({name: source for name, (source, _) in sources.items() if _taken(made, name)}, made)
        members = {PIECES: msgspec.json.encode(recipe), **members}
    return members, "".join(sums).encode()


def packed_weights(checkpoint: Path, before: Mapping[str, Tensors] | None = None) -> tuple[dict[str, bytes], bytes]:
    """Return what the archive has to hold of a checkpoint of float16 numbers, and its list of hashes.

    Args:
        checkpoint: The checkpoint.
        before: The tensors of the packed checkpoints before it, by their names: what one of them has, too, need not be
            packed, where that is enough to unpack two for one.
    """
    content = checkpoint.read_bytes()
    most = (1 - _WORTH) * len(content)
    before = {name: found for name, found in (before or {}).items() if len(halves(content, {name: found})[1]) < most}
    pieces, held = halves(content, before)
    made = {checkpoint.name: tuple(pieces)}
    sources = {name: Source(file=checkpoint_file(name)) for name in before if _taken(made, name)}
    recipe = msgspec.json.encode(Recipe(sources, made))
    sums = f"{hashlib.sha256(content).hexdigest()}  {checkpoint.name}\n"
    return {PIECES: recipe, checkpoint.name: held}, sums.encode()


def _taken(made: Mapping[str, tuple[Piece, ...]], source: str) -> bool:
    return any(
        isinstance(one, Stored | Positions) and one.source == source for pieces in made.values() for one in pieces
    )


def archive_of(bundles: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """Return the archive of bundles, by name: what :func:`packed` gives of each."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(bundles):
            for file, content in bundles[name].items():
                entry = tarfile.TarInfo(f"{name}/{file}")
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 32 << 20}]
    return lzma.compress(tar.getvalue(), format=lzma.FORMAT_XZ, filters=filters)


def bundles_in(archive: Path) -> dict[str, dict[str, bytes]]:
    """Return what an archive holds, by bundle and file; nothing where there is none."""
    bundles: dict[str, dict[str, bytes]] = {}
    if archive.is_file():
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None, f"{member.name} is no file"
                name, _, file = member.name.partition("/")
                bundles.setdefault(name, {})[file] = content.read()
    return bundles


def main() -> None:
    """Pack a bundle into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", type=Path, help="the bundle, as mmms-export --ckpt NAME writes it, or a checkpoint")
    parser.add_argument("--backbone-ckpt", type=Path, help="the backbone's weights; without it they are looked for")
    parser.add_argument("--out", type=Path, default=DEMO, help="the folder of the archives")
    options = parser.parse_args()
    if options.given.suffix == ".safetensors":
        name = options.given.stem
        if name not in CHECKPOINTS:
            parser.error(f"{options.given}: name it {' or '.join(map(checkpoint_file, CHECKPOINTS))}")
        there = [one for one in CHECKPOINTS[: CHECKPOINTS.index(name)] if _is_packed(options.out, one)]
        before = {one: checkpoint_tensors(one, options.out) for one in there}
        write(options.out, Packed(Kind.CHECKPOINT, name), *packed_weights(options.given, before))
        return
    bundle = Bundle(options.given)
    name, provenance = bundle.manifest.name, bundle.manifest.provenance
    checkpoint = Path(provenance.checkpoint)
    sources = {"checkpoint": (Source(file=checkpoint.name), checkpoint_tensors(checkpoint.stem, options.out))}
    if provenance.backbone_checkpoint is not None:
        backbone = provenance.description["backbone"]["name"]
        weights = find_weights(backbone, file=options.backbone_ckpt)
        sources["backbone"] = (Source(backbone=backbone), read_safetensors(weights))
    write(options.out, Packed(Kind.BUNDLE, name), *packed(bundle, sources))


def _is_packed(folder: Path, checkpoint: str) -> bool:
    return (folder / Packed(Kind.CHECKPOINT, checkpoint).archive).is_file()


def write(out: Path, one: Packed, members: Mapping[str, bytes], sums: bytes) -> None:
    """Write what was packed to a folder, and say how large it is."""
    file = out / one.archive
    archive = archive_of({**bundles_in(file), one.name: members})
    write_file(file, archive)
    write_file(out / one.sums, sums)
    print(f"{file}: {len(archive) / 1e6:.2f} MB; of the {one} before it was compressed:")
    for member, content in members.items():
        print(f"  {len(content):>9} bytes  {member}")


if __name__ == "__main__":
    main()
