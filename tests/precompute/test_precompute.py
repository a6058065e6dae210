"""Encoding data sets: the same files by whoever encodes them, nothing lost, nothing encoded twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Features, FeatureStore, Session
from mmms_deploy.cluster import Lost, Processes
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import FeatureError, ImageError, ModalityError, OutputWriteError
from mmms_deploy.precompute import ClickFiles, IntoStore, Item, Outcome, Recipe, Sink, Status, precompute, read_index
from mmms_deploy.progress import Progress
from mmms_deploy.session.features_file import read_header

REQUEST = EngineRequest(device="cpu", engine="onnxruntime", precision="fp32", threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> list[Item]:
    """Six images, of which the last two have the same pixels."""
    return [photo(tmp_path / f"photo{number}.png", min(number, 4)) for number in range(6)]


def photo(path: Path, seed: int) -> Item:
    Image.fromarray(pixels(seed)).save(path)
    return Item(path, path.name)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def recipe(bundle: Bundle, sink: Sink) -> Recipe:
    return Recipe(str(bundle.path), sink, REQUEST)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_image_is_in_the_store(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    steps: list[Progress] = []
    outcomes: list[Outcome] = []
    sink = IntoStore(tmp_path / "store", half="off")
    done = precompute(
        photos, recipe(paint, sink), on_progress=steps.append, on_outcome=lambda _, outcome: outcomes.append(outcome)
    )
    assert (done.encoded, done.found, done.failed) == (5, 1, [])
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].finished
    assert done.nbytes == sum(outcome.nbytes for outcome in outcomes)
    with Session(paint, engine="onnxruntime", threads=1, store=FeatureStore(sink.folder)) as session:
        for item in photos:
            assert session.set_image(item.path).found
        assert session.runs["image"] == 0
    rows = {row.name: row for row in read_index(sink.folder)}
    assert sorted(rows) == sorted(item.name for item in photos)
    assert rows["photo4.png"].file == rows["photo5.png"].file
    for row in rows.values():
        header = read_header(sink.folder / row.file)
        assert (header.bundle, header.precision) == (row.bundle, row.precision)
        assert Features.load(sink.folder / row.file).content == row.content


def test_what_is_there_is_found(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    sink = IntoStore(tmp_path / "store")
    precompute(photos[:3], recipe(paint, sink))
    before = files(sink.folder)
    done = precompute(photos[:4], recipe(paint, sink))
    assert (done.encoded, done.found) == (1, 3)
    after = files(sink.folder)
    assert {name: after[name] for name in before if name != "images.jsonl"} == {
        name: content for name, content in before.items() if name != "images.jsonl"
    }
    assert len(read_index(sink.folder)) == 4


def test_a_damaged_entry_is_encoded_again(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    sink = IntoStore(tmp_path / "store", half="off")
    precompute(photos[:2], recipe(paint, sink))
    before = files(sink.folder)
    path = sink.folder / read_index(sink.folder)[0].file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(match="damaged|hash|holds no features"):
        done = precompute(photos[:2], recipe(paint, sink))
    assert (done.encoded, done.found) == (1, 1)
    assert files(sink.folder) == before


def test_several_processes_write_the_same_bytes(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    alone, several = IntoStore(tmp_path / "alone"), IntoStore(tmp_path / "several")
    precompute(photos, recipe(paint, alone))
    precompute(photos, recipe(paint, several), Processes(2))
    assert files(alone.folder) == files(several.folder)


def test_an_image_that_cannot_be_read_fails_alone(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    photos[1].path.write_bytes(b"no picture")
    photos[2].path.unlink()
    done = precompute(photos, recipe(paint, IntoStore(tmp_path / "store")), Processes(2))
    assert [item.name for item, _ in done.failed] == ["photo1.png", "photo2.png"]
    assert all(isinstance(outcome.error, ImageError) for _, outcome in done.failed)
    assert done.encoded + done.found == 4


def test_a_folder_that_cannot_be_written_ends_the_run(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises((OutputWriteError, FeatureError)), pytest.warns():
        precompute(photos, recipe(paint, IntoStore(tmp_path / "store", half="off")))


def test_modalities_belong_to_the_content(modal: Bundle, tmp_path: Path) -> None:
    base = photo(tmp_path / "photo.png", 1)
    for name, value in (("depth", 3), ("other", 4)):
        np.save(tmp_path / f"{name}.npy", np.full((40, 50), value, np.float32))
    np.save(tmp_path / "event.npy", np.zeros((40, 50, 3), np.float32))
    event = tmp_path / "event.npy"
    items = [
        Item(base.path, name, {"depth": tmp_path / f"{depth}.npy", "event": event})
        for name, depth in (("a", "depth"), ("b", "other"), ("c", "depth"))
    ]
    store = IntoStore(tmp_path / "store")
    done = precompute(items, recipe(modal, store))
    assert (done.encoded, done.found) == (2, 1)
    missing = precompute([base], recipe(modal, store))
    assert isinstance(missing.failed[0][1].error, ModalityError)


def test_files_for_a_service(modal: Bundle, tmp_path: Path) -> None:
    """They hold the pixels and what the click stage reads, and no modality."""
    base = photo(tmp_path / "photo.png", 1)
    depth, event = np.full((40, 50), 77.5, np.float32), np.zeros((40, 50, 3), np.float32)
    np.save(tmp_path / "depth.npy", depth)
    np.save(tmp_path / "event.npy", event)
    item = Item(base.path, "a/photo.png", {"depth": tmp_path / "depth.npy", "event": tmp_path / "event.npy"})
    sink = ClickFiles(tmp_path / "files")
    assert precompute([item], recipe(modal, sink)).encoded == 1
    file = tmp_path / "files" / "a" / "photo.png.features"
    features = Features.load(file)
    assert (features.picture == pixels(1)).all()
    click = modal.manifest.stage("click")
    read = {spec.name for spec in next(iter(click.graphs.values())).inputs}
    assert set(features.arrays) <= read
    assert np.float32(77.5).tobytes() * 4 not in file.read_bytes()
    assert precompute([item], recipe(modal, sink)).found == 1
    np.save(tmp_path / "depth.npy", depth + 1)
    assert precompute([item], recipe(modal, sink)).encoded == 1
    file.write_bytes(file.read_bytes()[:-1])
    assert precompute([item], recipe(modal, sink)).encoded == 1


class _Losing:
    """A pool that loses the worker of one image."""

    def run(self, open_work: object, tasks: object) -> object:
        yield 0, Lost(3, "its process was ended by SIGKILL")


def test_a_lost_image_is_said(paint: Bundle, photos: list[Item], tmp_path: Path) -> None:
    done = precompute(photos[:1], recipe(paint, IntoStore(tmp_path / "store")), _Losing())  # type: ignore[arg-type]
    [(item, outcome)] = done.failed
    assert item == photos[0]
    assert outcome.status is Status.FAILED
    assert "begun 3 times" in str(outcome.error)
    assert "SIGKILL" in str(outcome.error)


def test_kill_9_loses_nothing_that_was_complete(paint: Bundle, tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{number}.png", number) for number in range(120)]
    sink = IntoStore(tmp_path / "store", half="off")
    expected = IntoStore(tmp_path / "expected", half="off")
    precompute(items, recipe(paint, expected))
    code = (
        "import sys; from pathlib import Path\n"
        "from mmms_deploy.precompute import *; from mmms_deploy.engines.request import EngineRequest\n"
        "bundle, folder, pictures = map(Path, sys.argv[1:])\n"
        "items = [Item(pictures / f'{n}.png', f'{n}.png') for n in range(120)]\n"
        "request = EngineRequest(device='cpu', engine='onnxruntime', precision='fp32', threads=1)\n"
        "print('ready', flush=True)\n"
        "precompute(items, Recipe(str(bundle), IntoStore(folder, half='off'), request))\n"
    )
    for attempt in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(paint.path), str(sink.folder), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        child.stdout.readline()
        began = len(list(sink.folder.rglob("*.features"))) if sink.folder.exists() else 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and child.poll() is None:
            there = len(list(sink.folder.rglob("*.features"))) if sink.folder.exists() else 0
            if there > began + 10 * attempt:
                break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for path in sink.folder.rglob("*.features"):
            Features.load(path)  # every file of this name is whole
    done = precompute(items, recipe(paint, sink))
    assert done.encoded + done.found == 120
    assert done.found > 0
    whole = {name: content for name, content in files(sink.folder).items() if not name.endswith(".partial")}
    assert whole == files(expected.folder)
