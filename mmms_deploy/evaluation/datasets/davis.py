"""DAVIS: frames of videos. F. Perazzi et al., CVPR 2016; J. Pont-Tuset et al., arXiv 1704.00675 (2017).

The field evaluates on 345 of the frames (W.-D. Jang, C.-S. Kim, CVPR 2019), which RITM packaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmms_deploy.evaluation.datasets.files import nonempty, partner, read_list, stems
from mmms_deploy.evaluation.datasets.kind import ANY_INTEGER, Kind, Layout, Option, OptionType
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.pairs import Pair, match, paired
from mmms_deploy.evaluation.datasets.surfaces import ObjectRule, Rule, SurfaceRule

TREE = """\
PATH/
  img/NAME.jpg                               RITM's 345 frames
  gt/NAME.png                                not 0 on the object
or PATH/
  JPEGImages/480p/SEQUENCE/NNNNN.jpg         DAVIS 2016 or 2017 as published
  Annotations/480p/SEQUENCE/NNNNN.png        2016: 0, 255; 2017: number of the object
  ImageSets/480p/val.txt                     for the option split (2017: ImageSets/2017/val.txt)
or PATH/
  images/SEQUENCE/NNNNN.jpg
  masks/SEQUENCE/NNNNN.png"""

LAYOUT = Layout("davis", TREE)
ONE, EACH = "one", "each"


def open_davis(
    path: Path,
    *,
    name: str,
    split: str | None,
    resolution: str,
    every: int,
    frames: str | None,
    objects: str,
    void: int | None,
) -> ListedDataset[Pair]:
    """Open DAVIS; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: The folder has none of the layouts, or a requested list is missing.
        DatasetFileError: A frame has no mask, or a listed frame is missing.
    """
    root = LAYOUT.root(path, "DAVIS")
    images, masks = _folders(root, resolution)
    found = stems(images)
    if split is not None:
        sequences = _sequences(root, split)
        found = {key: file for key, file in found.items() if key.rpartition("/")[0] in sequences}
    pairs = match(nonempty(LAYOUT, root, found, f"frames in {images.relative_to(root)}"), stems(masks), masks)
    if frames is not None:
        pairs = _listed(pairs, Path(frames), images)
    if every > 1:
        pairs = _thinned(pairs, every)
    ignored = frozenset() if void is None else frozenset({void})
    rule: Rule = ObjectRule(void=ignored, numbered=True) if objects == ONE else SurfaceRule(void=ignored)
    return paired(name, pairs, rule)


def _folders(root: Path, resolution: str) -> tuple[Path, Path]:
    """Return the folders of images and masks of the first layout that fits."""
    layouts = (("img", "gt"), (f"JPEGImages/{resolution}", f"Annotations/{resolution}"), ("images", "masks"))
    for images, masks in layouts:
        if (root / images).is_dir():
            return root / images, LAYOUT.folder(root, masks)
    raise LAYOUT.error(root, f"there is no folder {' nor '.join(repr(images) for images, _ in layouts)}")


def _sequences(root: Path, split: str) -> frozenset[str]:
    """Return the sequences of a split: lines are sequences (2017), or frames (2016)."""
    candidates = [root / "ImageSets" / folder / f"{split}.txt" for folder in ("", "480p", "2016", "2017", "1080p")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise LAYOUT.error(root, f"there is no list ImageSets/480p/{split}.txt for split={split}")
    lines = map(PurePosixPath, read_list(file))
    return frozenset(line.parent.name if line.suffix else line.name for line in lines)


def _listed(pairs: Mapping[str, Pair], file: Path, where: Path) -> dict[str, Pair]:
    nested = any("/" in name for name in pairs)
    wanted = []
    for line in read_list(file):
        parts = PurePosixPath(line).with_suffix("").parts
        wanted.append("/".join(parts[-2:] if nested else parts[-1:]))
    return partner(sorted(set(wanted)), pairs.get, "frame", where)


def _thinned(pairs: Mapping[str, Pair], every: int) -> dict[str, Pair]:
    """Return every n-th frame of each sequence, beginning with its first."""
    kept: dict[str, Pair] = {}
    position: dict[str, int] = {}
    for name, pair in pairs.items():
        sequence = name.rpartition("/")[0]
        position[sequence] = position.get(sequence, -1) + 1
        if position[sequence] % every == 0:
            kept[name] = pair
    return kept


KIND = Kind(
    name="davis",
    description="DAVIS 2016 or 2017: frames of videos; RITM's 345 frames, or as published",
    tree=TREE,
    options=(
        Option("split", "sequences in ImageSets/480p/SPLIT.txt (as published); all unless given"),
        Option("resolution", "folder in JPEGImages and Annotations (as published)", "480p"),
        Option("every", "take every n-th frame of a sequence", 1, OptionType.INTEGER, least=1),
        Option("frames", "file with the frames to take, a line SEQUENCE/NNNNN each; all unless given"),
        Option("objects", "everything marked is one object, or each value is one", ONE, choices=(ONE, EACH)),
        Option(
            "void", "value that is neither object nor background, e.g. 255", type=OptionType.INTEGER, least=ANY_INTEGER
        ),
    ),
    open=open_davis,
)
