"""The results of every scene, the facts that belong to them, and the folder that keeps both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.clicking import ObjectResult
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.evaluation.lock import SCENES_FILE
from mmms_deploy.evaluation.settings import Settings
from mmms_deploy.evaluation.surfaces import MultiInstanceResult, MultiSurfaceResult
from mmms_deploy.files import MIB, append_to, open_regular, read_bytes, writing
from mmms_deploy.reporting.files import write_text
from mmms_deploy.reporting.visible import visible

T = TypeVar("T")

SCHEMA = 1
SETTINGS_FILE = "settings.json"
SUMMARY_FILE = "summary.json"
PAGE_FILE = "report.html"
TABLE_FILE = "objects.csv"
PARQUET_FILE = "objects.parquet"
REPLAY_FOLDER = "replay"
_FILES = (SETTINGS_FILE, SCENES_FILE, SUMMARY_FILE, PAGE_FILE, TABLE_FILE, PARQUET_FILE)


class PairedResult(Struct, frozen=True, kw_only=True):
    """The same object with the other predictor.

    Attributes:
        result: The object, clicked through with the other predictor alone.
        agreement: IoU of the two predictors' masks after each click of the first one; both receive the same clicks.
    """

    result: ObjectResult
    agreement: tuple[float, ...]


class SceneResult(Struct, frozen=True, kw_only=True):
    """The results of one scene.

    Attributes:
        dataset: Name of its data set.
        index: Its index in the data set.
        scene: Its name.
        size: (H, W) of its image.
        image_seconds: Wall time of setting the image.
        objects: In the scene's order.
        against: The same objects with the other predictor; empty if there is none.
        multi_surface: One for each requested (t, a).
        multi_instance: One for each requested target.
        skipped: Names of surfaces without a pixel outside of void; they are left out of everything.
    """

    dataset: str
    index: int
    scene: str
    size: tuple[int, int]
    image_seconds: float
    objects: tuple[ObjectResult, ...]
    against: tuple[PairedResult, ...] = ()
    multi_surface: tuple[MultiSurfaceResult, ...] = ()
    multi_instance: tuple[MultiInstanceResult, ...] = ()
    skipped: tuple[str, ...] = ()


class DatasetFacts(Struct, frozen=True, kw_only=True):
    """A data set as it was evaluated.

    Attributes:
        name: What its results are filed under.
        argument: Its argument on the command line; empty from Python.
        scenes: Number of its scenes.
        names: SHA-256 of the names of its scenes where they are known without reading; else empty.
        modalities: Those that the predictor was shown.
    """

    name: str
    argument: str
    scenes: int
    names: str
    modalities: tuple[str, ...]


class PredictorFacts(Struct, frozen=True, kw_only=True):
    """What was evaluated.

    Attributes:
        name: Its name, as reports show it.
        source: The path of a bundle, or ``torch:`` and a checkpoint; empty from Python.
        identity: Hash of what computes: a bundle's manifest, a checkpoint; empty where it is not known.
        engine: What executed, e.g. ``ONNX Runtime 1.31.1 on cpu, fp32, 2 threads``.
        options: What else decides its answers: ``zoom``, ``flip``, ``threshold``, ``choose``, ``without``,
            and the options of its engine.
        trained: False for random weights; then the measures mean nothing.
        network: What papers call it, such as ``SimpleClick, ViT-B``; empty where none has it.
        parameters: Number of its parameters; 0 where it is not known.
    """

    name: str
    source: str = ""
    identity: str = ""
    engine: str = ""
    options: dict[str, str | None] = msgspec.field(default_factory=dict)
    trained: bool = True
    network: str = ""
    parameters: int = 0


class RunFacts(Struct, frozen=True, kw_only=True):
    """What was evaluated, on what and how; kept beside the results.

    Attributes:
        schema: Version of this format.
        settings: What is done with every scene.
        datasets: The data sets.
        predictor: The predictor.
        against: The predictor that it is compared with; None for none.
    """

    schema: int
    settings: Settings
    datasets: tuple[DatasetFacts, ...]
    predictor: PredictorFacts
    against: PredictorFacts | None = None


def storable(facts: RunFacts) -> RunFacts:
    """Return facts that JSON can hold: a path need not be UTF-8, and its other bytes are written out."""
    try:
        msgspec.json.encode(facts)
    except UnicodeEncodeError:
        return msgspec.convert(_written_out(msgspec.to_builtins(facts)), RunFacts)
    return facts


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {name: _written_out(one) for name, one in value.items()}
    return [_written_out(one) for one in value] if isinstance(value, list | tuple) else value


class ResultStore:
    """A folder of results that grows scene by scene and can be continued.

    Every finished scene is one line of ``scenes.jsonl``, appended and flushed; a line that was cut off by a crash is
    dropped when the folder is opened again. Whoever opens it holds its lock
    (:func:`~mmms_deploy.evaluation.lock.results_lock`) as long as it grows.

    Args:
        folder: The folder; made when it is not there.
        facts: What is evaluated, on what and how.

    Raises:
        EvaluationSettingsError: The folder holds results of another evaluation, or other files.
        OutputWriteError: It cannot be written.
    """

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        before = folder / SETTINGS_FILE
        check_own(folder)
        if before.exists():
            check_same(read_facts(folder), facts, folder)
        write_text(before, msgspec.json.format(msgspec.json.encode(facts), indent=1) + b"\n")
        self._names = tuple(dataset.name for dataset in facts.datasets)
        self._recover()
        self._done = {(place.dataset, place.index) for _, place in _places(folder)}

    @property
    def done(self) -> frozenset[tuple[str, int]]:
        """Data set and index of the scenes that are finished."""
        return frozenset(self._done)

    def append(self, result: SceneResult) -> None:
        """Keep one more scene.

        Raises:
            OutputWriteError: It cannot be written.
        """
        with writing(self.folder), append_to(self.folder / SCENES_FILE) as stream:
            stream.write(msgspec.json.encode(result) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._done.add((result.dataset, result.index))

    def __iter__(self) -> Iterator[SceneResult]:
        """Read the results one by one, in the order of the data sets and their scenes."""
        return read_scenes(self.folder, self._names)

    def _recover(self) -> None:
        """Cut a last line without its end off the file."""
        file = self.folder / SCENES_FILE
        if file.exists():
            content_end = _whole_lines(file)
            if content_end < file.stat().st_size:
                with writing(file):
                    os.truncate(file, content_end)


def check_own(folder: Path) -> None:
    """Check that a folder is new, empty, or one of results.

    Raises:
        EvaluationSettingsError: It holds other files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        problem = f"{folder} is a file"
    elif (
        folder.exists()
        and not (folder / SETTINGS_FILE).exists()
        and not {entry.name for entry in folder.iterdir()} <= {*_FILES, REPLAY_FOLDER}
    ):
        problem = f"{folder} holds files that are no results of mmms-eval"
    else:
        return
    raise EvaluationSettingsError(
        problem,
        expected="a new or empty folder, or one to continue",
        fix="pass another folder as out",
        command_fix="name another folder with --out",
    )


def forget(folder: Path) -> None:
    """Remove the results in a folder, and nothing else; a folder that holds none stays as it is.

    Raises:
        OutputWriteError: They cannot be removed.
    """
    if (folder / SETTINGS_FILE).exists():
        with writing(folder):
            for name in reversed(_FILES):  # the settings last: they mark the folder as one of results
                if name == SCENES_FILE and (folder / name).exists():
                    os.truncate(folder / name, 0)  # it stays, because the lock of the folder is on it
                else:
                    (folder / name).unlink(missing_ok=True)


def _whole_lines(file: Path) -> int:
    """Return the number of bytes up to the end of the last whole line."""
    end = position = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            if (newline := block.rfind(b"\n")) >= 0:
                end = position + newline + 1
            position += len(block)
    return end


class _Place(msgspec.Struct, frozen=True):
    """The scene of a line; the rest of the line is skipped."""

    dataset: str
    index: int


def _places(folder: Path) -> Iterator[tuple[int, _Place]]:
    """Yield for each scene where its line starts in the file.

    A scene that is there twice, as two evaluations in one folder could write it once, counts by its first line. A line
    without its end is still being written, or was cut off.
    """
    file = folder / SCENES_FILE
    if not file.exists():
        return
    decoder = msgspec.json.Decoder(_Place)
    start = 0
    seen: set[_Place] = set()
    with _opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            place = _decoded(decoder, line, file, number)
            if place not in seen:
                seen.add(place)
                yield start, place
            start += len(line)


def read_scenes(folder: Path, datasets: Sequence[str] = ()) -> Iterator[SceneResult]:
    """Read the results of a folder one by one.

    The file holds them in the order in which they were finished, which differs from run to run with several workers.
    They are read in the order of the data sets and their scenes, so that sums and tables are the same every time.

    Args:
        folder: The folder.
        datasets: Names of the data sets in the wanted order; others follow by name.

    Raises:
        EvaluationSettingsError: A line is no result.
    """
    rank = {name: number for number, name in enumerate(datasets)}
    ordered = sorted(
        ((rank.get(place.dataset, len(rank)), place.dataset, place.index, start) for start, place in _places(folder))
    )
    if not ordered:
        return
    decoder = msgspec.json.Decoder(SceneResult)
    file = folder / SCENES_FILE
    with _opened(file) as stream:
        for *_, start in ordered:
            stream.seek(start)
            yield _decoded(decoder, stream.readline(), file, None)


def _opened(file: Path) -> BinaryIO:
    try:
        return open_regular(file)
    except FileReadError as error:
        raise EvaluationSettingsError(
            f"{file} cannot be read: {error.reason}", expected="results of mmms-eval", fix="check the folder"
        ) from error


def _decoded(decoder: msgspec.json.Decoder[T], line: bytes, file: Path, number: int | None) -> T:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        where = "a line" if number is None else f"line {number}"
        raise EvaluationSettingsError(
            f"{where} of {file} is no result: {error}",
            expected="results that this version of mmms-eval wrote",
            fix="evaluate again into another folder",
            command_fix="evaluate again into another folder with --out",
        ) from error


def read_facts(folder: Path) -> RunFacts:
    """Read what was evaluated, on what and how, from a folder of results.

    Raises:
        EvaluationSettingsError: The folder holds no results, or those of another version.
    """
    file = folder / SETTINGS_FILE
    fixes = {
        "fix": "pass a folder that this version of mmms-eval wrote, or another one as out",
        "command_fix": "name a folder that this version of mmms-eval wrote, or another one with --out",
    }
    try:
        content = read_bytes(file, 64 * MIB)
        schema = msgspec.json.decode(content)["schema"]
        if schema != SCHEMA:
            raise EvaluationSettingsError(f"{file} is of schema {schema}", expected=f"schema {SCHEMA}", **fixes)
        return msgspec.json.decode(content, type=RunFacts)
    except FileReadError as error:
        raise EvaluationSettingsError(
            f"{file} cannot be read: {error.reason}", expected="results of mmms-eval", **fixes
        ) from error
    except (msgspec.DecodeError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise EvaluationSettingsError(
            f"{file} holds no settings: {error}", expected="results of mmms-eval", **fixes
        ) from error


def check_same(old: RunFacts, new: RunFacts, folder: Path) -> None:
    """Refuse to continue results with another bundle, data or setting.

    The places of data sets and bundles do not count, nor do the numbers of scenes and workers.

    Raises:
        EvaluationSettingsError: Something differs.
    """
    before, after = _flat(_identity(old)), _flat(_identity(new))
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if changed:
        lines = [f"\n    {name} was {_shown(before.get(name))}, is {_shown(after.get(name))}" for name in changed]
        raise EvaluationSettingsError(
            f"{folder} holds results of another evaluation:{''.join(lines)}",
            expected="the same bundle, engine, data and settings, to go on where it stopped",
            fix="pass another folder as out, or request the same evaluation",
            command_fix="name another folder with --out, start over with --fresh, or request the same evaluation",
        )


def _identity(facts: RunFacts) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    plain["datasets"] = {entry["name"]: entry for entry in plain["datasets"]}
    for entry in plain["datasets"].values():
        del entry["argument"]
    for side in (plain["predictor"], plain["against"]):
        if side is not None:
            for name in ("source", "name", "network", "parameters"):
                del side[name]
    return plain


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: object) -> str:
    text = "not set" if value is None else str(value) or "set"
    # A hash is known by its beginning, a sentence is not.
    return text if len(text) <= (160 if " " in text else 40) else f"{text[:12]}..."
