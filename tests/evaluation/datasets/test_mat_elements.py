"""Damaged MATLAB files are refused before SciPy sees them: it would end the process."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.evaluation.datasets.mat_elements import check_elements
from mmms_deploy.evaluation.datasets.sbd import read_instances
from mmms_deploy.evaluation.errors import DatasetFileError

scipy_io = pytest.importorskip("scipy.io")


def mat(*, compressed: bool) -> bytes:
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[2:4, 3:6] = 1
    out = io.BytesIO()
    content = {"GTinst": {"Segmentation": labels, "Categories": np.array([[15]], dtype=np.uint8)}}
    scipy_io.savemat(out, content, do_compression=compressed)
    return out.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_pass(tmp_path: Path, compressed: bool) -> None:
    content = mat(compressed=compressed)
    check_elements(content)
    (tmp_path / "a.mat").write_bytes(content)
    labels, names = read_instances(tmp_path / "a.mat")
    assert (labels.shape, labels.sum(), list(names)) == ((6, 8), 6, [1])


def test_an_element_without_a_type_is_refused(tmp_path: Path) -> None:
    content = bytearray(mat(compressed=False))
    numbers = content.index(struct.pack("<II", 2, 48))  # the tag of the 6 x 8 labels
    content[numbers : numbers + 8] = bytes(8)
    with pytest.raises(ValueError, match="unknown type 0"):
        check_elements(bytes(content))
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DatasetFileError, match="unknown type 0"):
        read_instances(tmp_path / "a.mat")


@pytest.mark.parametrize("compressed", [False, True])
def test_every_end_is_refused(compressed: bool) -> None:
    content = mat(compressed=compressed)
    for end in (0, 100, 127, 131, 140, 200, len(content) - 9):
        with pytest.raises((ValueError, OSError)):
            check_elements(content[:end])


def test_deep_nesting_is_refused() -> None:
    inside = b""
    for _ in range(40):
        inside = struct.pack("<II", 14, len(inside)) + inside
    with pytest.raises(ValueError, match="nested"):
        check_elements(mat(compressed=False)[:128] + inside)
