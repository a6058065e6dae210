"""FMB: street scenes with an infrared image.

J. Liu et al., "Multi-interactive Feature Learning and a Full-time Multi-modality Benchmark for Image Fusion and
Segmentation", ICCV 2023.
"""

from __future__ import annotations

from pathlib import Path

from mmms_deploy.evaluation.datasets.files import nonempty, partner, stems
from mmms_deploy.evaluation.datasets.kind import Kind, Layout, modalities_option, split_option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.semantic import SemanticItem, assemble, labelled
from mmms_deploy.evaluation.datasets.surfaces import VOID, class_options, class_rule

CLASSES = (
    "road", "sidewalk", "building", "traffic-light", "traffic-sign", "vegetation", "sky", "person", "car", "truck",
    "bus", "motorcycle", "bicycle", "pole",
)  # fmt: skip
"""The 14 classes, of values 1 to 14."""

NO_CLASS = frozenset({0, 255})

TREE = """\
PATH/
  test/Visible/NAME.png       train/ likewise
  test/Infrared/NAME.png
  test/Label/NAME.png         0 unlabelled, 1 to 14 a class"""

LAYOUT = Layout("fmb", TREE)


def open_fmb(
    path: Path,
    *,
    name: str,
    split: str,
    modalities: tuple[str, ...],
    surfaces: str,
    min_area: int,
    unlabelled: str,
) -> ListedDataset[SemanticItem]:
    """Open FMB; the keywords are the options of :data:`KIND`.

    Raises:
        DatasetLayoutError: A folder is missing, or has no image.
        DatasetFileError: An image has no labels or no infrared image.
    """
    root = LAYOUT.root(path, "FMB")
    images = LAYOUT.folder(root, f"{split}/Visible")
    found = nonempty(LAYOUT, root, stems(images), f"images in {split}/Visible")
    folder = LAYOUT.folder(root, f"{split}/Label")
    labels = partner(found, stems(folder).get, "label map", folder)
    extra = {}
    for modality in modalities:
        infrared = LAYOUT.folder(root, f"{split}/Infrared")
        extra[modality] = partner(found, stems(infrared).get, "infrared image", infrared)
    names = dict(enumerate(CLASSES, start=1))
    rule = class_rule(names, NO_CLASS, surfaces=surfaces, min_area=min_area, unlabelled=unlabelled)
    return labelled(name, assemble(found, labels, extra), modalities, rule)


KIND = Kind(
    name="fmb",
    description="FMB: 14 classes of street scenes, with an infrared image",
    tree=TREE,
    options=(split_option("test", "train", "test"), modalities_option("thermal"), *class_options(VOID)),
    open=open_fmb,
)
