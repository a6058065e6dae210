"""The steps of the GPU check: what each does, what it needs, and how it runs in a process of its own.

Importing this needs the standard library alone: the check finds out what else is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
FULL_SIZE = ROOT / "bundles" / "mmms-rgb"
SEVERAL = ROOT / "bundles" / "mmms-rgb-batch"
BATCHES = (4, 16)
PRECISIONS = ("fp16", "fp32")
_TAIL = 4000
BASE = {"click": "click", "msgspec": "msgspec", "numpy": "numpy", "PIL": "pillow", "rich": "rich"}
"""Modules that every step needs, and the packages that they come from."""
PACKAGES = {**BASE, "onnx_ir": "onnx-ir", "skimage": "scikit-image"}
TESTING = ("pytest", "onnx", "onnxruntime")
_HOST = re.compile(r"( ;)? hostname=[\w.-]*")
"""What ONNX Runtime prints of the machine's name in an error of CUDA."""
EXPORTING = ("onnx", "onnx_ir", "onnxruntime", "onnxscript", "safetensors", "skimage", "timm", "torch", "torchvision")


class State(StrEnum):
    """The outcome of a step."""

    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


BAD = (State.FAILED, State.STOPPED)


@dataclass(frozen=True)
class Step:
    """A part of the check, and its outcome.

    Attributes:
        name: Its name, as ``--only`` takes it.
        title: Its purpose.
        command: Arguments of Python; ``{written}`` is replaced by the path of the file ``written``.
        written: Name of a file of JSON or JUnit's XML that it writes; empty for none.
        bundle: Folder of the bundle that it needs; empty for none.
        missing: Why it cannot run here; empty when it can.
        state: Its outcome.
        seconds: How long it took.
        date: When it ended.
        output: The end of its output.
        results: The JSON that it wrote, or the counts of its test report; None without either.
    """

    name: str
    title: str
    command: tuple[str, ...] = ()
    written: str = ""
    bundle: str = ""
    missing: str = ""
    state: State = State.NOT_RUN
    seconds: float = 0.0
    date: str = ""
    output: str = ""
    results: Any = None


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle to check.

    Attributes:
        name: Its name.
        path: Its folder.
        precisions: Those of ``PRECISIONS`` in which it has graphs.
        trained: Whether its weights are trained.
    """

    name: str
    path: Path
    precisions: tuple[str, ...]
    trained: bool = False


def lacks(modules: Sequence[str] | Mapping[str, str]) -> str:
    """Return which modules are missing and how to install them; empty when all are there."""
    missing = [PACKAGES.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    listed = " ".join(missing)
    return (
        f"lacks {', '.join(missing)}: pip install {listed}; or pip install --target FOLDER {listed} elsewhere, and name"
        " the folder in PYTHONPATH"
    )


# --- which steps ------------------------------------------------------------------------------------------------------


def checked_bundle(path: Path) -> CheckedBundle:
    """Return the bundle in a folder.

    Raises:
        BundleError: The folder holds none.
    """
    from mmms_deploy.bundle import Bundle

    path = path.resolve()
    manifest = Bundle(path, verify=False).manifest
    precisions = tuple(name for name in PRECISIONS if name in manifest.precisions)
    return CheckedBundle(path.name, path, precisions, manifest.trained)


def steps_of(
    bundles: Sequence[CheckedBundle], *, full_size: bool = False, allow_unproven: bool = False
) -> Iterator[Step]:
    """Yield the steps in the order in which they run.

    Args:
        bundles: Bundles to compile, replay and measure.
        full_size: Whether to check the full-size network too, before the others.
        allow_unproven: Whether plans of TensorRT whose kernels show another type are taken, with a warning.
    """
    allowed = ("--allow-unproven",) if allow_unproven else ()
    from mmms_deploy.bundle import MANIFEST_NAME
    from mmms_deploy.engines.registry import BACKENDS

    yield Step("doctor", "what is here", _module("doctor", "--json"), "doctor.json")
    if full_size:
        there = (FULL_SIZE / MANIFEST_NAME).is_file() and checked_bundle(FULL_SIZE).precisions == PRECISIONS
        options = ("--random-weights", "0", "--precision", "fp32,fp16", "--out", str(FULL_SIZE), "--overwrite")
        export = Step("export", "the full-size network", _module("export", *options))
        if there:
            yield replace(export, state=State.PASSED, output="it is there")
        else:
            yield replace(export, missing=lacks(EXPORTING))
        others = (one for one in bundles if one.name != FULL_SIZE.name)
        bundles = (CheckedBundle(FULL_SIZE.name, FULL_SIZE, PRECISIONS), *others)
    engines = {backend.name: _unusable(backend) for backend in BACKENDS if backend.device == "cuda"}
    for one in bundles:
        wanted = tuple(part for precision in one.precisions for part in ("--precision", precision))
        command = _module("build", str(one.path), *wanted, *allowed, "--json", "{written}")
        name, place = f"build:{one.name}", str(one.path)
        yield Step(name, f"plans of {one.name}", command, "plans.json", place, engines.get("tensorrt", ""))
        for engine, why in engines.items():
            for precision in one.precisions:
                yield from _measured(one, engine, precision, why, allowed)
    for one in bundles:
        if one.trained or one.name == FULL_SIZE.name or one is bundles[0]:
            for engine, why in engines.items():
                yield from _beside_compiled(one, engine, why, allowed)
    for file in sorted((ROOT / "tests" / "gpu").glob("test_*.py")):
        name = file.stem.removeprefix("test_gpu_")
        options = ("-m", "gpu", "-v", "-rs", "-p", "no:cacheprovider", "--junitxml={written}", f"tests/gpu/{file.name}")
        command = ("-m", "pytest", *options)
        yield Step(f"tests:{name}", f"tests that need a GPU: {name}", command, "tests.xml", missing=lacks(TESTING))
    if full_size:
        # Last, because exporting its bundle leaves the GPU idle for minutes.
        yield from _several_objects(engines, allowed)


def _measured(one: CheckedBundle, engine: str, precision: str, why: str, allowed: tuple[str, ...]) -> Iterator[Step]:
    name, title, place = f"{one.name}:{engine}:{precision}", f"{one.name}, {engine} in {precision}", str(one.path)
    command = _module("verify", place, *_engine_options(engine, precision), "--strict", *allowed)
    yield Step(f"replay:{name}", f"golden replay of {title}", command, "", place, why)
    command = _bench(one, engine, precision, "--no-compiled", *allowed)
    yield Step(f"bench:{name}", f"time and memory of {title}", command, "bench.json", place, why)


def _beside_compiled(one: CheckedBundle, engine: str, why: str, allowed: tuple[str, ...]) -> Iterator[Step]:
    """Yield the step that measures an engine in the best precision beside ``torch.compile``, which takes minutes."""
    for precision in one.precisions[:1]:
        command = _bench(one, engine, precision, "--clicks", "10", "--images", "1", *allowed)
        name, title = f"{one.name}:{engine}:{precision}", f"{one.name}, {engine} in {precision}"
        yield Step(f"compiled:{name}", f"{title}, beside torch.compile", command, "bench.json", str(one.path), why)


def _several_objects(engines: Mapping[str, str], allowed: tuple[str, ...]) -> Iterator[Step]:
    """Yield the steps that measure clicks on several objects at once, in a bundle of its own.

    Its further click stages would count as memory of the bundle with one.
    """
    from mmms_deploy.bundle import MANIFEST_NAME

    one = CheckedBundle(SEVERAL.name, SEVERAL, PRECISIONS[:1])
    there = (SEVERAL / MANIFEST_NAME).is_file()
    if not there:
        batches = tuple(part for count in BATCHES for part in ("--batch", str(count)))
        options = ("--random-weights", "0", "--precision", "fp32,fp16", *batches, "--out", str(SEVERAL), "--overwrite")
        command = _module("export", *options)
        yield Step("export:batch", "the same for several objects", command, missing=lacks(EXPORTING))
    command = _module("build", str(one.path), "--precision", "fp16", *allowed, "--json", "{written}")
    name, why = f"build:{one.name}", engines.get("tensorrt", "")
    yield Step(name, f"plans of {one.name}", command, "plans.json", str(one.path), why)
    for engine, why in engines.items():
        command = _bench(one, engine, "fp16", "--clicks", "5", "--images", "1", "--no-compiled", *allowed)
        title = f"{one.name}, {engine} in fp16, several objects at once"
        yield Step(f"objects:{one.name}:{engine}:fp16", title, command, "bench.json", str(one.path), why)


def _bench(one: CheckedBundle, engine: str, precision: str, *more: str) -> tuple[str, ...]:
    chosen = _engine_options(engine, precision)
    return _module("bench", str(one.path), *chosen, *more, "--json", "{written}")


def _engine_options(engine: str, precision: str) -> tuple[str, ...]:
    return "--device", "cuda", "--engine", engine, "--precision", precision


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return "-m", f"mmms_deploy.commands.{name}", *arguments


def _unusable(backend: Any) -> str:
    """Return why an engine cannot be used; empty when it can."""
    from mmms_deploy.errors import EngineError

    try:
        backend.usable()
    except EngineError as error:
        return f"{error.given}; to fix: {error.fix}"
    return ""


# --- running them -----------------------------------------------------------------------------------------------------


def run(step: Step, timeout: float, on_start: Callable[[int], None] | None = None) -> Step:
    """Run a step in a process of its own, and return it with its outcome.

    Args:
        step: The step.
        timeout: Seconds that it may take.
        on_start: Receives the number of the process.
    """
    from mmms_deploy.bundle import MANIFEST_NAME

    if step.bundle and not (Path(step.bundle) / MANIFEST_NAME).is_file():
        step = replace(step, missing=step.missing or f"there is no bundle at {shown(step.bundle, step.bundle)}")
    if step.missing:
        return replace(step, state=State.SKIPPED, date=now())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        written, printed = Path(folder) / (step.written or "nothing"), Path(folder) / "printed"
        command = [sys.executable, *(part.replace("{written}", str(written)) for part in step.command)]
        with printed.open("wb") as output:
            # A process group of its own, so that the processes it leaves behind (PyTorch's compilers) end with it.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _waited(process, timeout, on_start)
        text = printed.read_text(errors="replace").replace(folder, "tmp")
        results = _read(written) if written.is_file() else _printed(shown(text)) if step.name == "doctor" else None
    if code is None:
        text += f"\nstopped after {timeout:.0f} s\n"
    if other := _other_engine(step, results):
        code, text = 1, f"{text}\n{other}\n"
    state = State.STOPPED if code is None else State.PASSED if code == 0 else State.FAILED
    return replace(
        step,
        state=state,
        seconds=time.monotonic() - start,
        date=now(),
        output="" if step.name == "doctor" and results else shown(text, step.bundle)[-_TAIL:],
        results=results,
    )


def _waited(
    process: subprocess.Popen[bytes], timeout: float, on_start: Callable[[int], None] | None = None
) -> int | None:
    """Return the exit code, or None when the time is up. No process of the step is left either way."""
    try:
        if on_start is not None:
            on_start(process.pid)
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _other_engine(step: Step, results: Any) -> str:
    """Return which engine and precision were measured instead of the requested ones; empty when they are the same.

    Measuring is not strict, because a click that cannot be one CUDA graph is measured too.
    """
    if not step.name.startswith(("bench:", "compiled:", "objects:")) or not results:
        return ""
    requested, found = step.name.split(":")[2:], [results["engine"]["name"], results["engine"]["precision"]]
    return "" if found == requested else f"measured was {' in '.join(found)}, not {' in '.join(requested)}"


def _read(file: Path) -> Any:
    text = file.read_text()
    return counts(text) if file.suffix == ".xml" else json.loads(text)


def _printed(text: str) -> Any:
    """Return the JSON in what was printed, without the folder of the cache; None when there is none."""
    try:
        found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError:
        return None
    return {key: value for key, value in found.items() if key != "cache"}


def counts(junit: str) -> dict[str, Any]:
    """Return how many tests passed, which failed, and why others were skipped, from JUnit's XML."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [found for case in cases if (found := case.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": len(skipped),
        "reasons": sorted({str(found.get("message")) for found in skipped}),
    }


def shown(text: str, bundle: str = "") -> str:
    """Return text without the paths of this machine's folders and of a bundle's, and without the machine's name."""
    text = _HOST.sub("", text.replace(str(ROOT) + os.sep, ""))
    places = {str(Path(bundle).parent): "..." if bundle else "", sys.prefix: "...", str(Path.home()): "~"}
    for place, name in places.items():
        if len(place) > 1:
            text = text.replace(place + os.sep, name + os.sep)
    return text


def now() -> str:
    """Return the time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
