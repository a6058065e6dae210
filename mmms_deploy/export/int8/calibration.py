"""What the stages of a bundle are called with while clicks are answered in float32, closed loop.

The ranges of activations are read from these calls. Noise in the place of pictures, or clicks on a state that no click
left behind, would give ranges that no annotation has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Bundle, Precision, Stage, TensorSpec
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.bundle.names import of_object
from mmms_deploy.engines.onnxruntime.cpu import OnnxRuntimeCpu
from mmms_deploy.engines.protocol import Value
from mmms_deploy.errors import ExportError
from mmms_deploy.export.samples import Sample, picture_sample
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.replay.golden import GoldenCase
from mmms_deploy.replay.starting import set_golden
from mmms_deploy.session import Session

Array = npt.NDArray[Any]
Call = Mapping[str, Array]
"""The inputs of one run of a stage, by name."""

MOST_PICTURES = 64
"""The most pictures of a folder that are taken, spread evenly over it."""
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class CallRecorder(OnnxRuntimeCpu):
    """ONNX Runtime on a bundle's float32 graphs; keeps what its stages are called with.

    Arrays that several calls share, such as an image's features, are kept once.

    Args:
        bundle: The bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, Precision.FP32)
        self._calls: dict[str, list[dict[str, Value]]] = defaultdict(list)

    def execute(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run a stage, and keep its inputs."""
        self._calls[stage].append(dict(inputs))
        return super().execute(stage, inputs)

    def calls(self) -> dict[str, list[Call]]:
        """Return what every stage was called with, in order."""
        known: dict[int, Array] = {}

        def array(value: Value) -> Array:
            if id(value) not in known:
                known[id(value)] = np.array(value.numpy(), copy=True)  # type: ignore[attr-defined]
            return known[id(value)]

        return {
            stage: [{name: array(value) for name, value in call.items()} for call in calls]
            for stage, calls in self._calls.items()
        }


def record_calls(bundle: Bundle, cases: Sequence[GoldenCase], samples: Sequence[Sample]) -> dict[str, list[Call]]:
    """Answer clicks in float32, and return what the stages were called with.

    Args:
        bundle: A bundle with float32 graphs.
        cases: Golden cases; the clicks on one image.
        samples: Further pictures, for a bundle that takes pictures.

    Returns:
        For every stage the inputs of its runs. A stage for longer lists of clicks, or for several objects, has those of
        the stage for one object and the shortest list.
    """
    recorder = CallRecorder(bundle)
    try:
        with Session(bundle, engine=recorder, history_limit=0, keep_image=False) as session:
            for case in cases:
                set_golden(session, case)
                for number, (x, y, positive) in enumerate(case.clicks.tolist()):
                    if case.surfaces is not None:
                        session.select(str(case.surfaces[number]))
                    session.click(x, y, positive > 0.5)
            for sample in samples:
                session.set_image(sample.image, **sample.modalities)
                for x, y, positive in sample.clicks.tolist():
                    session.click(x, y, positive > 0.5)
        calls = recorder.calls()
    finally:
        recorder.close()
    manifest = bundle.manifest
    for stage in manifest.stages:
        if stage.name in manifest.larger:
            (smallest,) = (s for s in manifest.stages if s.rate is stage.rate and s.name not in manifest.larger)
            calls[stage.name] = list(_enlarged(stage, calls[smallest.name]))
    return calls


def _enlarged(stage: Stage, calls: Sequence[Call]) -> Iterator[Call]:
    """Yield calls of a stage for longer lists or several objects, made of those of the smallest stage."""
    specs = stage.graphs[Precision.FP32].inputs
    for number, call in enumerate(calls):
        if not stage.batch:
            yield {spec.name: _padded(call[spec.name], spec) for spec in specs}
            continue
        feed = {spec.name: call[spec.name] for spec in specs if spec.name in call}
        for row in range(stage.batch):
            other = calls[(number + row) % len(calls)]
            feed |= {of_object(name, row + 1): array for name, array in other.items()}
        yield {spec.name: feed[spec.name] for spec in specs}


def _padded(array: Array, spec: TensorSpec) -> Array:
    """Return an array with zeros behind it along every axis, up to a shape; a list's empty rows are zeros."""
    return np.pad(array, [(0, wanted - given) for wanted, given in zip(spec.shape, array.shape, strict=True)])


def calibration_samples(modalities: tuple[ModalitySpec, ...], folder: Path | None = None) -> list[Sample]:
    """Return pictures with clicks to calibrate on, beside those of the gate.

    Args:
        modalities: The network's extra modalities; each is derived from a picture's brightness.
        folder: A folder of pictures; None for the photographs that ship with scikit-learn.

    Raises:
        ExportError: The folder holds no picture.
        FileReadError, ImageError: A picture cannot be read.
    """
    if folder is None:
        from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

        pictures = load_sample_images()
        named = [(Path(name).stem, image) for name, image in zip(pictures.filenames, pictures.images, strict=True)]
    else:
        named = [(file.name, load_rgb(file)) for file in calibration_files(folder)]
    return [
        picture_sample(name, np.ascontiguousarray(image[..., :3]), modalities, seed=number)
        for number, (name, image) in enumerate(named)
    ]


def calibration_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder that are calibrated on, at most 64, spread evenly over it.

    Raises:
        ExportError: The folder holds no picture.
    """
    words = {
        "fix": "pass Int8Options(calibration=FOLDER) with a folder of pictures",
        "command_fix": "pass --calibration FOLDER with a folder of pictures",
    }
    try:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as error:
        raise ExportError(f"{folder} cannot be listed: {error}", expected="a folder of pictures", **words) from error
    if not files:
        raise ExportError(f"{folder} holds no pictures", expected=f"files {', '.join(sorted(SUFFIXES))}", **words)
    step = max(1, -(-len(files) // MOST_PICTURES))
    return files[::step]
