from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmms_deploy.evaluation.datasets import DATASETS, open_dataset, parse_dataset_argument
from mmms_deploy.evaluation.errors import DatasetError, DatasetOptionError, EvaluationError
from tests.support.dataset_trees import RGB, labels, save


@pytest.mark.parametrize(
    ("text", "path", "options"),
    [
        ("folder=/data/x", "/data/x", {}),
        ("folder=a b", "a b", {}),
        ("folder=x=y:void=255", "x=y", {"void": "255"}),
        ("folder=C:/data", "C:/data", {}),
        ("folder=a:b/c:void=1:images=rgb", "a:b/c", {"void": "1", "images": "rgb"}),
        ("folder=p:modalities=depth,nir@NIR", "p", {"modalities": "depth,nir@NIR"}),
        ("folder=p:images=", "p", {"images": ""}),
    ],
)
def test_arguments(text: str, path: str, options: dict[str, str]) -> None:
    argument = parse_dataset_argument(text)
    assert (argument.kind, argument.path, dict(argument.options)) == ("folder", Path(path), options)
    assert parse_dataset_argument(str(argument)) == argument


def test_home() -> None:
    assert parse_dataset_argument("folder=~/x").path == Path.home() / "x"


@pytest.mark.parametrize("text", ["", "folder", "folder=", "=x", "/data/x", "folder:void=1"])
def test_other_forms(text: str) -> None:
    with pytest.raises(DatasetOptionError, match="KIND=PATH"):
        parse_dataset_argument(text)


def test_unknown_kinds_and_options_list_the_known() -> None:
    with pytest.raises(DatasetOptionError, match="no kind of data set 'nope'") as caught:
        parse_dataset_argument("nope=x")
    assert all(f"{kind.name}: {kind.description}" in str(caught.value) for kind in DATASETS.values())
    with pytest.raises(DatasetOptionError, match="no option 'colour'") as caught:
        parse_dataset_argument("folder=x:colour=1").open()
    assert "threshold: " in str(caught.value)
    with pytest.raises(DatasetOptionError, match="twice"):
        parse_dataset_argument("folder=x:void=1:void=2")
    assert issubclass(DatasetOptionError, DatasetError)
    assert issubclass(DatasetError, EvaluationError)


def test_an_argument_opens_its_data_set(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", RGB)
    save(tmp_path / "gt" / "a.png", labels(nw=2, se=255))
    data = parse_dataset_argument(f"folder={tmp_path}:masks=gt:void=255:name=mine").open()
    assert (data.name, len(data)) == ("mine", 1)
    assert [surface.name for surface in data[0].surfaces] == ["2"]


def test_listing_imports_no_heavy_library() -> None:
    script = (
        "import sys\nfrom mmms_deploy.evaluation.datasets import DATASETS\n"
        "print(len(DATASETS), {'cv2', 'scipy', 'pycocotools', 'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{len(DATASETS)} set()\n"


@pytest.mark.parametrize("kind", DATASETS)
def test_every_kind_describes_itself(kind: str, tmp_path: Path) -> None:
    described = DATASETS[kind]
    assert described.name == kind
    assert described.description
    assert len({option.name for option in described.options}) == len(described.options)
    assert all(option.help for option in described.options)
    with pytest.raises(DatasetError) as caught:
        open_dataset(kind, tmp_path)
    assert described.drawn or described.tree in str(caught.value)
