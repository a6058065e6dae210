"""GrabCut and Berkeley, as RITM packaged them: one object an image, with an undecided band along its border.

GrabCut: C. Rother, V. Kolmogorov, A. Blake, "GrabCut", SIGGRAPH 2004. Berkeley: K. McGuinness, N. O'Connor, "A
comparative evaluation of interactive segmentation algorithms", Pattern Recognition 2010.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mmms_deploy.evaluation.datasets.files import nonempty, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.mistaken import UNDECIDED
from mmms_deploy.evaluation.datasets.pairs import Pair, match, paired
from mmms_deploy.evaluation.datasets.surfaces import ObjectRule

RULE = ObjectRule(threshold=UNDECIDED, void=frozenset({UNDECIDED}), trimap=True)

GRABCUT_TREE = """\
PATH/
  data_GT/NAME.jpg          50 images (JPEG and BMP)
  boundary_GT/NAME.bmp      0 background, 128 undecided, 255 object"""

BERKELEY_TREE = """\
PATH/
  images/NAME.jpg           one file for each of the 100 objects
  masks/NAME.png            0 background, 128 undecided, 255 object"""


def open_trimaps(path: Path, *, name: str, layout: Layout, images: str, masks: str) -> ListedDataset[Pair]:
    """Open a folder of images and a folder of masks with an undecided band."""
    root = layout.root(path)
    found = nonempty(layout, root, stems(layout.folder(root, images)), f"images in {images!r}")
    folder = layout.folder(root, masks)
    return paired(name, match(found, stems(folder), folder), RULE)


GRABCUT = Kind(
    name="grabcut",
    description="GrabCut: 50 images with one object each, undecided borders void",
    tree=GRABCUT_TREE,
    options=(),
    open=partial(open_trimaps, layout=Layout("grabcut", GRABCUT_TREE), images="data_GT", masks="boundary_GT"),
)

BERKELEY = Kind(
    name="berkeley",
    description="Berkeley: 100 objects in 96 images, undecided borders void",
    tree=BERKELEY_TREE,
    options=(),
    open=partial(open_trimaps, layout=Layout("berkeley", BERKELEY_TREE), images="images", masks="masks"),
)
