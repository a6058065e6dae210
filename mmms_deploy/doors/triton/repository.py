"""Writes a model repository for Triton, whole or not at all.

DIR/
  mmms-deploy.json            what wrote it, of which bundle; what a client has to know
  NAME/config.pbtxt           in the Python form
  NAME/1/model.py
  NAME/1/bundle/              the bundle
  NAME_image/config.pbtxt     in the other forms, for every stage
  NAME_image/1/model.onnx     its graph, and files of weights that it names
  NAME_click/...
  compile.sh                  in the TensorRT form
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import msgspec

from mmms_deploy.bundle import Bundle, Manifest
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.doors.triton.python_form import write_python_form
from mmms_deploy.doors.triton.settings import Form, RepositorySettings
from mmms_deploy.doors.triton.stages_form import SCRIPT, write_stages_form
from mmms_deploy.files import PathLike, as_path
from mmms_deploy.files.folders import check_replaceable, whole_folder
from mmms_deploy.version import __version__

DESCRIPTION = "mmms-deploy.json"
FORMAT, VERSION = "mmms-deploy-triton", 1


def write_repository(
    out: PathLike,
    bundle: Bundle | PathLike,
    settings: RepositorySettings | None = None,
    *,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write a model repository.

    Args:
        out: Its folder: a new one, an empty one, or an older one that this function wrote.
        bundle: A bundle, or what names one.
        settings: What is chosen; None takes everything as it is.
        overwrite: Whether an older one may be replaced. Nothing else ever is.

    Returns:
        The names of its models; of stages in the order in which they run.

    Raises:
        DoorError: The bundle does not fit the form.
        BundleError: There is no usable bundle.
        OutputExistsError: The folder exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    target = as_path(out, "the folder of a model repository")
    check_repository(target, overwrite=overwrite)
    chosen = settings or RepositorySettings()
    opened = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    write = write_python_form if chosen.form is Form.PYTHON else write_stages_form
    with whole_folder(target, partial(check_repository, target, overwrite=overwrite)) as folder:
        names = write(folder, opened, chosen)
        description = _described(opened.manifest, chosen, names)
        (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(description), indent=1) + b"\n")
    return names


def check_repository(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder is not there, is empty, or is a model repository that may be replaced.

    Raises:
        OutputExistsError: It is something else.
        OutputWriteError: It cannot be looked at.
    """
    check_replaceable(folder, "an older model repository", "--out", _other, overwrite=overwrite)


def _other(folder: Path) -> str | None:
    """Return what a folder holds that is of no repository; None where all of it is."""
    foreign = sorted({entry.name for entry in folder.iterdir()} - _own(folder))
    shown = ", ".join(foreign[:5])
    return f"holds what is of no model repository of this package: {shown}" if foreign else None


def _own(folder: Path) -> set[str]:
    """Return the names of what an older repository has at its top; none where it is something else."""
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        found = msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=_Description)
        if found.format == FORMAT:
            return {DESCRIPTION, *found.files}
    return set()


class _Description(msgspec.Struct):
    """What every version of the description says."""

    format: str
    files: list[str]


def _described(manifest: Manifest, settings: RepositorySettings, names: tuple[str, ...]) -> dict[str, object]:
    files = [*names, *([SCRIPT] if settings.form is Form.TENSORRT else [])]
    described: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "form": settings.form,
        "bundle": manifest.name,
        "digest": manifest.digest,
        "models": names,
        "files": files,
    }
    if settings.form is Form.PYTHON:
        return described
    network = {
        "size": manifest.size,
        "image": to_builtins(manifest.image),
        "modalities": to_builtins(manifest.modalities),
        "clicks": to_builtins(manifest.clicks),
        "bypass": {stage.name: stage.bypass for stage in manifest.stages if stage.bypass},
    }
    return {**described, "precision": settings.precision, "network": network}
