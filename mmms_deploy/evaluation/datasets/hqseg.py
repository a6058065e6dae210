"""The four validation sets of HQSeg-44K: thin and intricate objects in large images.

L. Ke et al., "Segment Anything in High Quality", NeurIPS 2023, and its public training code.
"""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.evaluation.datasets.files import nonempty, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, Option, OptionType
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.pairs import Pair, match, paired
from mmms_deploy.evaluation.datasets.surfaces import ObjectRule

SETS = {
    "dis": ("DIS5K-VD", "DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
    "coift": ("COIFT", "thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
    "hrsod": ("HRSOD", "thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    "thin": (
        "ThinObject5K-TE",
        "thin_object_detection/ThinObject5K/images_test",
        "thin_object_detection/ThinObject5K/masks_test",
    ),
}
"""For each set: the first part of its scenes' names, the folder of its images, and that of its masks."""

TREE = """\
PATH/
  DIS5K/DIS-VD/im/NAME.jpg                                    gt/NAME.png
  thin_object_detection/COIFT/images/NAME.jpg                 masks/NAME.png
  thin_object_detection/HRSOD/images/NAME.jpg                 masks_max255/NAME.png
  thin_object_detection/ThinObject5K/images_test/NAME.jpg     masks_test/NAME.png"""

LAYOUT = Layout("hqseg", TREE)


def open_hqseg(path: Path, *, name: str, sets: tuple[str, ...], threshold: int) -> ListedDataset[Pair]:
    """Open the validation sets of HQSeg-44K; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder of a requested set is missing.
        DatasetFileError: An image has no mask.
    """
    root = LAYOUT.root(path)
    pairs: dict[str, Pair] = {}
    for short in sets:
        prefix, images, masks = SETS[short]
        found = nonempty(LAYOUT, root, stems(LAYOUT.folder(root, images)), f"images in {images!r}")
        folder = LAYOUT.folder(root, masks)
        pairs |= {f"{prefix}/{key}": pair for key, pair in match(found, stems(folder), folder).items()}
    return paired(name, nonempty(LAYOUT, root, dict(sorted(pairs.items())), "sets"), ObjectRule(threshold))


KIND = Kind(
    name="hqseg",
    description="HQSeg-44K validation: DIS5K-VD, COIFT, HRSOD, ThinObject5K-TE; one object an image",
    tree=TREE,
    options=(
        Option("sets", "which of the four", tuple(SETS), OptionType.NAMES, tuple(SETS)),
        Option("threshold", "the object is where the mask is above this", 0, OptionType.INTEGER),
    ),
    open=open_hqseg,
)
