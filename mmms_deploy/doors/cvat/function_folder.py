"""The folder of a nuclio function, as ``nuctl deploy --path`` takes it.

    function.yaml    what CVAT and nuclio read
    main.py          opens the bundle with the settings, and answers
    bundle/          the bundle
    mmms_deploy-...  the wheel of this package: it is on no index
    written.json     what this module wrote, so that another writing may replace it and nothing else

The function needs no network once its image is built.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mmms_deploy.bundle import MANIFEST_NAME, Bundle, sha256_of
from mmms_deploy.bundle.names import CARD_NAME
from mmms_deploy.doors.cvat.function import REQUEST_BYTES, FunctionSettings
from mmms_deploy.errors import DoorError, FileReadError
from mmms_deploy.files import PathLike, as_path, check_regular, read_json
from mmms_deploy.files.folders import check_replaceable, whole_folder
from mmms_deploy.session.boxes import takes_boxes

FORMAT = "mmms-deploy-cvat-function"
WRITTEN = "written.json"
_BUNDLE = "bundle"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""What nuclio takes as the name of a function: it becomes part of a host's name."""
_EDITED = ("function.yaml", "main.py")
_WHEEL = re.compile(r"mmms_deploy-[^/\\]+-py3-none-any\.whl")

_YAML = """\
# A function for CVAT's community server, by mmms-deploy: mmms-doctor --docs cvat
metadata:
  name: {name}
  namespace: cvat
  annotations:
    name: {title}
    version: 2
    type: interactor
    spec:
    min_pos_points: {least}
    min_neg_points: 0
{box}    help_message: {help}

spec:
  description: {description}
  runtime: 'python:3.11'
  handler: main:handler
  eventTimeout: 60s

  build:
    image: cvat.{name}
    baseImage: python:3.11-slim
    directives:
      postCopy:
        - kind: RUN
          value: pip install --no-cache-dir "/opt/nuclio/{wheel}[cpu]"

  triggers:
    myHttpTrigger:
      # Each worker is a process with the bundle in its memory, and sessions of its own.
      maxWorkers: 1
      kind: 'http'
      workerAvailabilityTimeoutMilliseconds: 10000
      attributes:
        maxRequestBodySize: {request_bytes}

  platform:
    attributes:
      restartPolicy:
        name: always
        maximumRetryCount: 3
      mountMode: volume
"""
_MAIN = '''\
"""A function for CVAT's community server, by mmms-deploy: mmms-doctor --docs cvat."""

from pathlib import Path

from mmms_deploy.doors.cvat.function import Function

BUNDLE = Path(__file__).parent / "bundle"
SETTINGS = {settings}


def init_context(context):
    context.user_data.function = Function(BUNDLE, **SETTINGS)


def handler(context, event):
    return context.user_data.function.respond(context, event)
'''


class _Written(msgspec.Struct):
    format: str
    files: dict[str, str]


def write_function(
    out: PathLike,
    bundle: Bundle | PathLike,
    wheel: PathLike,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the folder of a nuclio function, whole or not at all.

    Args:
        out: The folder: a new one, or an older one of this kind to replace.
        bundle: A bundle, or what names one.
        wheel: The wheel of this package, as ``pip wheel --no-deps`` makes it in a clone.
        name: What nuclio calls the function: small letters, digits and hyphens. None for one of the bundle's name.
        settings: Settings by name, those of :class:`~mmms_deploy.doors.cvat.function.FunctionSettings`.
        overwrite: Whether an older function may be replaced. Nothing else ever is.

    Returns:
        The folder.

    Raises:
        DoorError: The name or a setting cannot be, or the wheel is none of this package.
        BundleError: There is no usable bundle.
        OutputExistsError: The folder exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    given = dict(settings or {})
    FunctionSettings.of(given)
    target, archive = check_function(out, wheel, overwrite=overwrite)
    opened = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    called = _checked_name(name, opened)
    with whole_folder(target, lambda: _check_replaceable(target, overwrite=overwrite)) as folder:
        (folder / _BUNDLE).mkdir()
        for file in (MANIFEST_NAME, *opened.manifest.files):
            shutil.copyfile(opened.file(file), folder / _BUNDLE / file)
        card = opened.path / CARD_NAME
        if card.is_file():
            shutil.copyfile(card, folder / _BUNDLE / CARD_NAME)
        shutil.copyfile(archive, folder / archive.name)
        (folder / "function.yaml").write_text(_yaml(called, opened, archive.name), encoding="utf-8")
        (folder / "main.py").write_text(_MAIN.format(settings=repr(given)), encoding="utf-8")
        names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        written = _Written(FORMAT, {name: sha256_of(folder / name) for name in names})
        text = msgspec.json.format(msgspec.json.encode(written), indent=1)
        (folder / WRITTEN).write_bytes(text + b"\n")
    return target


def check_function(out: PathLike, wheel: PathLike, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Check where a function may be written to, and the wheel; return both paths.

    Raises:
        DoorError: The wheel is none of this package.
        OutputExistsError: The folder exists, and may not be replaced.
    """
    target, archive = as_path(out), as_path(wheel)
    _check_wheel(archive)
    _check_replaceable(target, overwrite=overwrite)
    return target, archive


def _yaml(name: str, bundle: Bundle, wheel: str) -> str:
    boxes = takes_boxes(bundle.manifest.clicks)
    points = "Click on the object; the right button excludes what does not belong to it."
    # A quoted text of JSON is one of YAML. An annotation that is there counts as true in CVAT, whatever it says.
    return _YAML.format(
        name=name,
        title=json.dumps(f"{bundle.manifest.name} (mmms-deploy)"),
        least=0 if boxes else 1,
        box="    startswith_box_optional: true\n" if boxes else "",
        help=json.dumps(f"Draw a box around the object, or click on it. {points}" if boxes else points),
        description=json.dumps(f"Interactive segmentation with {bundle.manifest.name}"),
        wheel=wheel,
        request_bytes=REQUEST_BYTES,
    )


def _checked_name(name: str | None, bundle: Bundle) -> str:
    found = name
    if found is None:
        plain = re.sub(r"[^a-z0-9]+", "-", bundle.manifest.name.lower())
        found = f"mmms-{plain}"[:63].strip("-")
    if _NAME.fullmatch(found):
        return found
    raise DoorError(
        f"{found!r} is no name of a function",
        expected="small letters, digits and hyphens, at most 63, no hyphen at an end",
        fix='pass another name, e.g. name="mmms-demo"',
        command_fix="pass another one, e.g. --name mmms-demo",
    )


def _check_wheel(wheel: Path) -> None:
    fix = "make it in a clone: pip wheel --no-deps --wheel-dir dist ."
    expected = "the wheel of this package, mmms_deploy-VERSION-py3-none-any.whl"
    try:
        check_regular(wheel)
    except FileReadError as error:
        why = "there is no file" if error.missing else f"{error.reason}:"
        raise DoorError(f"{why} {wheel}", expected=expected, fix=fix) from error
    if not _WHEEL.fullmatch(wheel.name) or not zipfile.is_zipfile(wheel):
        raise DoorError(f"{wheel} is no wheel of mmms-deploy", expected=expected, fix=fix)


# --- the folder -------------------------------------------------------------------------------------------------------


def _check_replaceable(target: Path, *, overwrite: bool) -> None:
    """Check that nothing is there, or an older function as it was written, which may be replaced.

    Raises:
        OutputExistsError: Something else is there, or it was edited.
        OutputWriteError: It cannot be looked at.
    """
    check_replaceable(target, "an older function as it was written", "--out", _other_than_written, overwrite=overwrite)


def _other_than_written(target: Path) -> str | None:
    """Return what a folder is in the place of a function as it was written; None where it is one."""
    try:
        written = msgspec.convert(read_json(target / WRITTEN), _Written)
    except (FileReadError, ValueError):
        return "is no function of mmms-deploy"
    files = [file for file in target.rglob("*") if not file.is_dir() or file.is_symlink()]
    there = {file.relative_to(target).as_posix() for file in files}
    others = sorted(there - {WRITTEN, *written.files})
    if others or written.format != FORMAT:
        return f"holds other files, such as {others[0]}" if others else "is no function of mmms-deploy"
    edited = [name for name in _EDITED if name in there and sha256_of(target / name) != written.files.get(name)]
    return f"was edited: {' and '.join(edited)}" if edited else None
