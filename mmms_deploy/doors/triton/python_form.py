"""The form for Triton's Python backend: one model, whose sequences are sessions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from mmms_deploy.bundle import Bundle, Manifest
from mmms_deploy.bundle.contract import MODALITY_DTYPES, ModalitySpec
from mmms_deploy.bundle.names import CARD_NAME, MANIFEST_NAME, RGB
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.pbtxt import Value, Word, pbtxt
from mmms_deploy.doors.triton.requests import (
    ACTION,
    CLICK,
    CLICKS,
    END,
    IMAGE,
    IMAGE_FILE,
    INPUTS,
    MASK,
    SEQUENCE,
    START,
)
from mmms_deploy.doors.triton.serving import BUNDLE
from mmms_deploy.doors.triton.settings import RepositorySettings, input_of
from mmms_deploy.errors import DoorError

_MODEL = Path(__file__).with_name("model.py")
_TYPES = {
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
assert tuple(_TYPES) == MODALITY_DTYPES


def write_python_form(folder: Path, bundle: Bundle, settings: RepositorySettings) -> tuple[str, ...]:
    """Write the model.

    Args:
        folder: The model repository.
        bundle: The bundle.
        settings: What was chosen.

    Returns:
        The model's name.

    Raises:
        DoorError: The bundle sees no pictures, or a modality has the name of another input.
    """
    name = settings.named(bundle.manifest)
    config = python_config(bundle, settings)
    version = folder / name / "1"
    version.mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(config, encoding="ascii")
    shutil.copyfile(_MODEL, version / _MODEL.name)
    if settings.copy:
        (version / BUNDLE).mkdir()
        for file in (MANIFEST_NAME, *bundle.manifest.files, CARD_NAME):
            if (bundle.path / file).exists() or file != CARD_NAME:
                shutil.copyfile(bundle.file(file), version / BUNDLE / file)
    return (name,)


def python_config(bundle: Bundle, settings: RepositorySettings) -> str:
    """Return the model's ``config.pbtxt``.

    Raises:
        DoorError: The bundle sees no pictures, or a modality has the name of another input.
    """
    manifest = bundle.manifest
    _check_sees_pictures(manifest, settings)
    taken = [spec.name for spec in manifest.modalities if spec.name in INPUTS]
    if taken:
        raise DoorError(
            f"{manifest.name} has a modality {taken[0]}",
            expected=f"other names than those of the model's inputs: {', '.join(INPUTS)}",
            fix="give the modality another name in the checkpoint's description, and export it again",
        )
    controls: list[Value] = [
        _control(START, {"kind": Word("CONTROL_SEQUENCE_START"), "int32_false_true": [0, 1]}),
        _control(END, {"kind": Word("CONTROL_SEQUENCE_END"), "int32_false_true": [0, 1]}),
        _control(SEQUENCE, {"kind": Word("CONTROL_SEQUENCE_CORRID"), "data_type": Word("TYPE_UINT64")}),
    ]
    message: dict[str, Value] = {
        "name": settings.named(manifest),
        "backend": "python",
        "max_batch_size": 0,
        "input": [
            input_of(IMAGE, "TYPE_UINT8", (-1, -1, 3), optional=True),
            input_of(IMAGE_FILE, "TYPE_STRING", (1,), optional=True),
            input_of(CLICK, "TYPE_FP64", (3,), optional=True),
            input_of(CLICKS, "TYPE_FP64", (-1, 3), optional=True),
            input_of(ACTION, "TYPE_STRING", (1,), optional=True),
            *(input_of(spec.name, _type_of(spec), (-1, -1, -1), optional=True) for spec in manifest.modalities),
        ],
        "output": [input_of(MASK, "TYPE_UINT8", (-1, -1))],
        "sequence_batching": {**settings.batching(), "control_input": controls},
        "instance_group": [{"kind": Word("KIND_CPU"), "count": settings.instances}],
        "parameters": [
            {"key": key, "value": {"string_value": value}} for key, value in _parameters(bundle, settings).items()
        ],
    }
    return pbtxt(message)


def _check_sees_pictures(manifest: Manifest, settings: RepositorySettings) -> None:
    sees = any(
        spec.name == RGB for stage in manifest.stages for graph in stage.graphs.values() for spec in graph.inputs
    )
    if sees or (manifest.click_only and settings.opening.store_folder):
        return
    other = " or, for a click bundle, a folder in which a store has the features of every picture"
    raise DoorError(
        f"{manifest.name} has no stage that sees a picture",
        expected=f"a bundle with its backbone{other if manifest.click_only else ''}",
        fix="take the whole bundle, or the form 'onnx', whose click stage takes features",
        command_fix="take the whole bundle, or --form onnx, whose click stage takes features",
    )


def _control(name: str, control: dict[str, Value]) -> Value:
    return {"name": name, "control": [control]}


def _type_of(spec: ModalitySpec) -> str:
    """Return the type in which a modality is sent: float32 holds what the others store, where one unit is for all."""
    known = [dtype for dtype in ("float32", *MODALITY_DTYPES) if spec.factor(dtype) is not None]
    return _TYPES[known[0]]


def _parameters(bundle: Bundle, settings: RepositorySettings) -> dict[str, str]:
    """Return the model's parameters: the bundle, where packages are, and what differs from an opening as it is."""
    usual = msgspec.structs.asdict(Opening())
    given = {name: value for name, value in msgspec.structs.asdict(settings.opening).items() if value != usual[name]}
    found = {BUNDLE: BUNDLE if settings.copy else str(bundle.path.resolve())}
    if settings.python_path:
        found["python_path"] = os.pathsep.join(str(path.resolve()) for path in settings.python_path)
    return {**found, **{name: _text(value) for name, value in given.items()}}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
