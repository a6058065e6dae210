"""Every reader of the package on damaged files: a file is read or refused by a named error, within time and memory.

``python -m tests.support.fuzzing READER SEED COUNT`` runs one reader in this process, prints what happened as JSON, and
writes the inputs that broke it into the current folder. The child limits its own memory, and the parent its time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmms_deploy.errors import MMMSDeployError
from tests.support.mutations import (
    Mutation,
    changed,
    damaged,
    damaged_archive,
    damaged_json,
    damaged_safetensors,
)
from tests.support.pair import DESCRIPTION as PAIR
from tests.support.pair import write_decoder
from tests.support.paths import ROOT

SECONDS = 20
"""The most that one input may take."""
MEMORY = 6 << 30
"""The most address space that a child may have; libraries reserve a lot that they do not use."""
LARGEST_GROWTH = 1 << 30
"""The most memory that reading one of these small files may take at its peak."""


@dataclass(frozen=True)
class Reader:
    """A reader, files that it reads, and how they are damaged.

    Attributes:
        seeds: Makes whole files: their names and contents.
        read: Reads the file at a path.
        mutation: Damages one of them.
    """

    seeds: Callable[[], list[tuple[str, bytes]]]
    read: Callable[[Path], object]
    mutation: Mutation = damaged


@dataclass
class Outcome:
    """What a reader did with its inputs.

    Attributes:
        inputs: Their number.
        accepted: How many were read.
        refused: How many were refused by a named error.
        tracebacks: The others, each with its last line and the place that raised it.
        hangs: How many took too long.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    tracebacks: list[str] = field(default_factory=list)
    hangs: int = 0


class HangError(BaseException):
    """An input took too long; no reader catches this."""


# --- pictures and numbers ---------------------------------------------------------------------------------------------


def _pictures() -> list[tuple[str, bytes]]:
    from PIL import Image

    grey = (np.arange(48 * 64, dtype=np.uint32) * 7 % 256).astype(np.uint8).reshape(48, 64)
    colour = np.dstack([grey, grey[::-1], grey.T.reshape(48, 64)])
    made = []
    for name, array, options in (
        ("a.png", colour, {}),
        ("a.jpg", colour, {}),
        ("a.bmp", colour, {}),
        ("a.ppm", colour, {}),
        ("a.webp", colour, {}),
        ("a.gif", grey, {}),
        ("a.tif", colour, {}),
        ("b.tif", colour, {"compression": "tiff_lzw"}),
        ("c.tif", grey.astype(np.uint16) * 257, {}),
        ("b.png", grey.astype(np.uint16) * 257, {}),
        ("c.png", grey > 100, {}),
    ):
        out = io.BytesIO()
        suffix = name.rpartition(".")[2]
        form = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM"}.get(suffix, suffix.upper())
        Image.fromarray(array).save(out, form, **options)
        made.append((name, out.getvalue()))
    return made


def _saved(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _npz(save: Callable[..., None], **arrays: Any) -> bytes:
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def _numbers() -> list[tuple[str, bytes]]:
    depth = np.linspace(0, 5, 48 * 64).reshape(48, 64)
    return [
        ("a.npy", _saved(depth.astype(np.float32))),
        ("b.npy", _saved((depth * 1000).astype(np.uint16)[:, :, None])),
        ("c.npy", _saved(np.asfortranarray(depth))),
        *(one for one in _pictures() if one[0] in ("b.png", "c.tif")),
    ]


def _labels() -> list[tuple[str, bytes]]:
    masks = np.zeros((48, 64), np.int32)
    masks[8:20, 9:30] = 3
    return [("a.npy", _saved(masks)), *(one for one in _pictures() if one[0] in ("c.png", "a.gif", "c.tif"))]


def _features() -> list[tuple[str, bytes]]:
    arrays = {f"backbone_{n}": np.ones((1, 4, 3, 3), np.float32) for n in range(1, 5)}
    arrays["image_size"] = np.array([48, 64])
    return [("a.npz", _npz(np.savez, **arrays)), ("b.npz", _npz(np.savez_compressed, **arrays))]


def _image(path: Path) -> object:
    from mmms_deploy.imaging.io import load_rgb

    return load_rgb(path)


def _modality(path: Path) -> object:
    from mmms_deploy.imaging.io import load_modality

    return load_modality(path, "depth")


def _annotation() -> list[tuple[str, bytes]]:
    mask = np.zeros((48, 64), np.bool_)
    mask[8:20, 9:30] = True
    from mmms_deploy.annotations import Annotation

    return [("a.json", json.dumps(Annotation(mask, ((3.0, 4.5, True),)).to_dict()).encode())]


def _read_annotation(path: Path) -> object:
    from mmms_deploy.annotations import read_annotation

    return read_annotation(path)


def _named_labels() -> list[tuple[str, bytes]]:
    from mmms_deploy.annotations import write_labels

    made = []
    for name, greatest in (("a.png", 2), ("b.png", 300)):
        labels = np.zeros((48, 64), np.int32)
        labels[8:20, 9:30], labels[30:, 40:] = 1, greatest
        with tempfile.TemporaryDirectory() as folder:
            write_labels(Path(folder) / name, labels, {"dog": 1, "c\u00e4t": greatest})
            made.append((name, (Path(folder) / name).read_bytes()))
    return made


def _read_named_labels(path: Path) -> object:
    from mmms_deploy.annotations import read_labels

    return read_labels(path)


def _label_map(path: Path) -> object:
    from mmms_deploy.evaluation.datasets.labels import read_labels

    return read_labels(path)


def _load_features(path: Path) -> object:
    from mmms_deploy.session.backbone_features import load_features

    return load_features(path)


def _golden() -> list[tuple[str, bytes]]:
    from mmms_deploy.replay.golden import save_golden
    from tests.support.toy import blank_case

    with tempfile.TemporaryDirectory() as folder:
        save_golden(Path(folder) / "g.npz", [blank_case(), blank_case()])
        return [("golden.npz", (Path(folder) / "g.npz").read_bytes())]


def _load_golden(path: Path) -> object:
    from mmms_deploy.replay.golden import load_golden

    return load_golden(path)


# --- bundles ----------------------------------------------------------------------------------------------------------

_TOY: list[Path] = []


def _toy() -> Path:
    """A toy bundle, made once a process."""
    if not _TOY:
        from mmms_deploy.bundle.contract import ModalitySpec
        from tests.support.toy import write_toy

        out = Path(tempfile.mkdtemp()) / "toy"
        write_toy(out, modalities=(ModalitySpec(name="depth", optional=True),))
        _TOY.append(out)
    return _TOY[0]


def _manifest() -> list[tuple[str, bytes]]:
    return [("bundle.json", (_toy() / "bundle.json").read_bytes())]


def _with(path: Path) -> Path:
    """Put the other files of the toy bundle beside a file that is to be read."""
    for other in _toy().iterdir():
        beside = path.with_name(other.name)
        if not beside.exists():
            beside.symlink_to(other)
    return path.parent


def _bundle(path: Path) -> object:
    from mmms_deploy.bundle import Bundle

    return Bundle(_with(path))


def _forged(draw: random.Random, content: bytes) -> bytes:
    """Change a manifest and give it a digest that fits."""
    from mmms_deploy.bundle.manifest_file import digest_of

    raw = changed(draw, json.loads(content))
    if isinstance(raw, dict):
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            raw["digest"] = digest_of(raw)
    return json.dumps(raw).encode()


def _session(path: Path) -> object:
    from mmms_deploy import Session

    with Session(_bundle(path), engine="onnxruntime") as session:  # type: ignore[arg-type]
        return session.set_image(np.zeros((30, 40, 3), np.uint8))


@cache
def _clickable() -> Any:
    """A session on the toy bundle, with an image; it is open as long as this process."""
    from mmms_deploy import Session

    session = Session(_toy(), engine="onnxruntime", threads=1)
    session.set_image(_dotted())
    return session


def _dotted() -> Any:
    return np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)


def _encoded() -> list[tuple[str, bytes]]:
    from mmms_deploy import Features

    session = _clickable()
    session.set_image(_dotted())
    features: Features = session.features
    return [("a.features", features.to_bytes()), ("b.features", features.to_bytes(picture=True))]


def _damaged_encoded(draw: random.Random, content: bytes) -> bytes:
    """Damage the file, what it says of itself, or its tensors under a hash that fits."""
    from mmms_deploy import Features

    way = draw.randrange(4)
    if way < 2:
        return damaged_safetensors(draw, content)
    if way == 2:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        said = changed(draw, json.loads(header["__metadata__"]["mmms-deploy"]))
        header["__metadata__"]["mmms-deploy"] = json.dumps(said)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]
    features = Features.from_bytes(content)
    arrays = dict(features.arrays)
    name = draw.choice(sorted(arrays))
    array = arrays.pop(name)
    other = draw.choice(
        (
            array[..., :0],
            array.reshape(-1),
            array.astype(draw.choice((np.float16, np.float64, np.int8, np.uint8, np.bool_, np.int64))),
            np.full_like(array, draw.choice((np.nan, np.inf, -np.inf, 3e38, 0))),
            None,
        )
    )
    if other is not None:
        arrays[draw.choice((name, name, name, "maps", "click", "other", ""))] = np.ascontiguousarray(other)
    return features.with_arrays(arrays).to_bytes(picture=features.picture is not None)


def _use(path: Path) -> object:
    """Start on it, and click; what is refused leaves the session as it was."""
    from mmms_deploy import Features
    from mmms_deploy.session.features_file import read_header

    session = _clickable()
    before = session.to_dict()
    try:
        features = Features.load(path)
        read_header(path)
        session.use(features)
    except MMMSDeployError:
        assert session.to_dict() == before
        raise
    result = session.click(0, 0)
    assert np.isfinite(result.network_probability).all()
    return session.features.to_bytes()


def _graphs() -> list[tuple[str, bytes]]:
    import onnx
    from onnx import TensorProto, helper

    inside = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "8"), ("length", "8")):
        inside.external_data.add(key=key, value=value)
    body = helper.make_graph([helper.make_node("Constant", [], ["y"], value=inside)], "body", [], [], [inside])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    model = helper.make_model(helper.make_graph([node], "g", [], [], [inside]))
    model.functions.append(helper.make_function("d", "f", [], [], [node], [helper.make_opsetid("", 21)]))
    toy = onnx.load(_toy() / "click.fp32.onnx")
    return [("a.onnx", model.SerializeToString()), ("b.onnx", toy.SerializeToString())]


def _graph(path: Path) -> object:
    from mmms_deploy.bundle.external_data import check_graph

    return check_graph(path, {"weights.bin": 100})


# --- checkpoints and descriptions -------------------------------------------------------------------------------------


def _weights() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {f"head.{n}.weight": torch.rand(3, 4, generator=generator) for n in range(4)}


def _safetensors() -> list[tuple[str, bytes]]:
    from safetensors.torch import save

    described = {"mmms_deploy.description": json.dumps(_DESCRIPTION)}
    return [("a.safetensors", save(_weights(), metadata=described)), ("b.safetensors", save(_weights()))]


def _ort_files() -> list[tuple[str, bytes]]:
    from tests.support.hiera import sam2
    from tests.support.ort_files import write_ort

    state = {name: tensor for name, tensor in sam2(memory=False).items() if ".trunk." in name}
    with tempfile.TemporaryDirectory() as folder:
        path = write_ort(Path(folder) / "a.ort", state, grid=(16, 16))
        return [("a.ort", path.read_bytes())]


def _ort_graphs() -> list[tuple[str, bytes]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/a.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(str(write_decoder(Path(folder) / "a.onnx")), options)
        return [("a.ort", (Path(folder) / "a.ort").read_bytes())]


def _ort_graph(path: Path) -> object:
    from mmms_deploy.export.pair.ort_graph import read_ort_graph

    return read_ort_graph(path)


def _pair_description(path: Path) -> object:
    from mmms_deploy.export.pair.description import read_pair

    return read_pair(path)


def _torch_files() -> list[tuple[str, bytes]]:
    import torch

    made = []
    for name, value, options in (
        ("a.pt", _weights(), {}),
        ("b.pth", {"state_dict": _weights(), "epoch": 3}, {}),
        ("c.pt", _weights(), {"_use_new_zipfile_serialization": False}),
    ):
        out = io.BytesIO()
        torch.save(value, out, **options)
        made.append((name, out.getvalue()))
    return made


def _damaged_torch_file(draw: random.Random, content: bytes) -> bytes:
    return damaged_archive(draw, content) if content.startswith(b"PK") else damaged(draw, content)


def _weights_without_torch() -> list[tuple[str, bytes]]:
    return [*_safetensors(), *_torch_files(), *_ort_files()]


def _damaged_weights(draw: random.Random, content: bytes) -> bytes:
    return damaged_safetensors(draw, content) if content[8:9] == b"{" else _damaged_torch_file(draw, content)


def _read_weights(path: Path) -> object:
    from mmms_deploy.weights.weight_files import read_weights

    return read_weights(path)


def _checkpoint(path: Path) -> object:
    from mmms_deploy.models.checkpoint import read_checkpoint_file

    return read_checkpoint_file(path)


_DESCRIPTION = {
    "family": "mmms",
    "size": [448, 448],
    "backbone": {"name": "dinov2_vitb14"},
    "modalities": [{"name": "depth", "channels": 1, "scale": 0.001, "invalid": [0, "nan"], "clip": [0.0, 10.0]}],
    "clicks": {"radius": 5.0, "threshold": 0.5},
}
_TOML = b"""family = "mmms"
size = [448, 448]
[backbone]
name = "dinov2_vitb14"
[[modalities]]
name = "depth"
channels = 1
scale = 0.001
invalid = [0, "nan"]
[clicks]
radius = 5.0
"""


def _description(path: Path) -> object:
    from mmms_deploy.models.description import parse_description, read_description

    return parse_description(read_description(path), str(path))


# --- data sets and results --------------------------------------------------------------------------------------------


def _coco() -> list[tuple[str, bytes]]:
    boxes = [[2, 2, 20, 2, 20, 20, 2, 20]]
    counts = {"counts": [100, 50, 48 * 64 - 150], "size": [48, 64]}
    content = {
        "images": [{"id": 1, "height": 48, "width": 64, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": boxes, "area": 300},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": counts, "area": 50},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return [("instances_val2017.json", json.dumps(content).encode())]


def _open_coco(path: Path) -> object:
    from mmms_deploy.evaluation.datasets import open_dataset

    root = path.parent
    (root / "annotations").mkdir(exist_ok=True)
    (root / "val2017").mkdir(exist_ok=True)
    (root / "val2017" / "a.png").write_bytes(dict(_pictures())["a.png"])
    path.replace(root / "annotations" / path.name)
    return [scene.surfaces for scene in open_dataset("coco", root)]


def _mat() -> list[tuple[str, bytes]]:
    from scipy import io as scipy_io

    labels = np.zeros((48, 64), np.uint8)
    labels[4:20, 5:30] = 1
    content = {"GTinst": {"Segmentation": labels, "Categories": np.array([[15]], np.uint8)}}
    made = []
    for name, packed in (("a.mat", True), ("b.mat", False)):
        out = io.BytesIO()
        scipy_io.savemat(out, content, do_compression=packed)
        made.append((name, out.getvalue()))
    return made


def _instances(path: Path) -> object:
    from mmms_deploy.evaluation.datasets.sbd import read_instances

    return read_instances(path)


def _list(path: Path) -> object:
    from mmms_deploy.evaluation.datasets.files import read_list

    return read_list(path)


def _results() -> list[tuple[str, bytes]]:
    import msgspec

    from mmms_deploy.evaluation.clicking import ObjectResult
    from mmms_deploy.evaluation.results import SCHEMA, DatasetFacts, PredictorFacts, RunFacts, SceneResult
    from mmms_deploy.evaluation.settings import Settings

    facts = RunFacts(
        schema=SCHEMA,
        settings=Settings(),
        datasets=(DatasetFacts(name="d", argument="", scenes=1, names="", modalities=()),),
        predictor=PredictorFacts(name="p"),
    )
    one = ObjectResult(
        name="o",
        pixels=9,
        clicks=((1, 2, True),),
        ious=(0.5,),
        boundary_ious=(0.5,),
        predict_seconds=(0.1,),
        simulate_seconds=(0.1,),
    )
    scene = SceneResult(dataset="d", index=0, scene="s", size=(4, 4), image_seconds=0.1, objects=(one,))
    return [("settings.json", msgspec.json.encode(facts)), ("scenes.jsonl", msgspec.json.encode(scene) + b"\n")]


def _read_results(path: Path) -> object:
    from mmms_deploy.evaluation.results import read_facts, read_scenes

    for name, content in _results():
        if name != path.name:
            path.with_name(name).write_bytes(content)
    return read_facts(path.parent), list(read_scenes(path.parent, ("d",)))


def _report() -> list[tuple[str, bytes]]:
    from mmms_deploy.bench.report import encode
    from tests.support.bench_reports import report

    return [("a.json", encode(report()))]


def _read_report(path: Path) -> object:
    from mmms_deploy.bench.compare import compare
    from mmms_deploy.bench.report import read_report
    from tests.support.bench_reports import report

    return compare(report(), read_report(path))


# --- caches -----------------------------------------------------------------------------------------------------------


def _verdict_bundle() -> Any:
    from mmms_deploy.bundle import Bundle

    return Bundle(_toy(), verify=False)


def _verdict() -> list[tuple[str, bytes]]:
    content = {
        "engine": "onnxruntime",
        "version": "1.32",
        "precision": "fp32",
        "passed": True,
        "iou": 1.0,
        "limit": 0.99,
        "milliseconds": 4.0,
        "threads": 2,
    }
    return [("v.json", json.dumps(content).encode())]


def _read_verdict(path: Path) -> object:
    from mmms_deploy.bundle import Precision
    from mmms_deploy.engines import verdicts

    os.environ["MMMS_DEPLOY_CACHE"] = str(path.parent)
    bundle = _verdict_bundle()
    file = verdicts._file(bundle, "onnxruntime", "1.32", Precision.FP32)
    assert file is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    path.replace(file)
    if verdicts.read_verdict(bundle, "onnxruntime", "1.32", Precision.FP32) is None:
        raise MMMSDeployError("no verdict")
    return None


def _half_verdict() -> list[tuple[str, bytes]]:
    content = {
        "format": "mmms-deploy-half-verdict",
        "version": 1,
        "bundle": "b" * 64,
        "precision": "fp32",
        "engine": "an engine",
        "passed": True,
        "worst": 1.0,
        "limit": 0.97,
        "last": 1.0,
        "last_limit": 0.99,
        "clicks": 30,
        "largest": 7.0,
        "nbytes": 4,
        "rounded_nbytes": 2,
    }
    return [("v.json", json.dumps(content).encode())]


def _read_half_verdict(path: Path) -> object:
    from mmms_deploy.bundle import Precision
    from mmms_deploy.store.half import read_verdict

    if read_verdict(path, "b" * 64, Precision.FP32) is None:
        raise MMMSDeployError("no verdict")
    return None


def _read_entry(path: Path) -> object:
    """Read a file as a store's entry of the image that it says it is of; it is taken out, or what was kept."""
    import warnings

    from mmms_deploy import FeatureStore
    from mmms_deploy.errors import StoreWarning
    from mmms_deploy.session import Features

    whole = Features.from_bytes(_encoded()[0][1])
    store = FeatureStore(path.parent / "store")
    entry = path.parent / "store" / whole.key.name[:2] / f"{whole.key.name}.features"
    entry.parent.mkdir(parents=True, exist_ok=True)
    path.replace(entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        found = store.find(whole.key)
    if found is None:
        assert not entry.exists()
        raise MMMSDeployError("the entry was damaged")
    assert found.key == whole.key
    return None


def _plan_identity() -> Any:
    from mmms_deploy.bundle import Precision
    from mmms_deploy.engines.tensorrt.plan_cache import Identity

    return Identity(
        graph="0" * 64,
        precision=Precision.FP16,
        library="TensorRT 10",
        gpu="",
        compute_capability="",
        driver="",
        every_click=True,
        options={},
    )


def _sealed(plan: bytes, encoded: bytes) -> bytes:
    body = plan + encoded + len(encoded).to_bytes(8, "little")
    return body + hashlib.sha256(body).digest()


def _plan() -> list[tuple[str, bytes]]:
    import msgspec

    from mmms_deploy.engines.tensorrt.inspect import PlanReport
    from mmms_deploy.engines.tensorrt.plan_cache import Facts

    report = PlanReport(
        kernels=1,
        types={"half": 1},
        matrices={"half": 1},
        wide=(),
        attentions=0,
        fused=0,
        activation_bytes=None,
        weight_bytes=None,
        listed="",
        unproven=0,
        regions=0,
    )
    facts = Facts(identity=_plan_identity(), report=report, seconds=1.0)
    return [("a.plan", _sealed(b"plan", msgspec.json.encode(facts)))]


def _damaged_plan(draw: random.Random, content: bytes) -> bytes:
    sealed = _sealed(b"plan", damaged_json(draw, content[4:-40]))
    return damaged(draw, sealed) if draw.random() < 0.3 else sealed


def _read_plan(path: Path) -> object:
    from mmms_deploy.engines.tensorrt.plan_cache import check_plan, read_plan, read_timing

    path.chmod(0o600)
    check_plan(path, _plan_identity())
    read_timing(path)
    return read_plan(path, _plan_identity())


# --- lists of clicks --------------------------------------------------------------------------------------------------


def _csv_clicks() -> list[tuple[str, bytes]]:
    rows = 'image,object,x,y,positive\na.jpg,cat,3,4.5,1\na.jpg,cat,5,6,0\n"b,1.jpg",dog,7,8,true\n'
    return [("a.csv", rows.encode()), ("b.csv", rows.replace(",", ";").encode("utf-8-sig")), ("c.csv", b"x,y\n1,2\n")]


def _json_clicks() -> list[tuple[str, bytes]]:
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "clicks": [[3, 4.5, 1], [5, 6, 0]]}],
    }
    forms = ({"a.jpg": {"cat": [[3, 4.5, 1], [5, 6]]}, "b.jpg": [[7, 8]]}, [{"image": "a", "x": 1, "y": 2}], coco)
    return [(f"{number}.json", json.dumps(form).encode()) for number, form in enumerate(forms)]


def _read_clicks(path: Path) -> object:
    from mmms_deploy.commands.segment_clicks import read_click_list

    return read_click_list(path)


# --- work and journals ------------------------------------------------------------------------------------------------


def _walked() -> tuple[bytes, bytes]:
    """Return a journal and a file of work of a short session."""
    from mmms_deploy import Journal, Session
    from tests.support.annotating import GREY, SIZE
    from tests.support.toy import write_toy

    with tempfile.TemporaryDirectory() as folder:
        journal, work = Path(folder) / "a.jsonl", Path(folder) / "a.json"
        bundle = write_toy(Path(folder) / "toy")
        kept = Journal(journal, masks=True)
        with kept, Session(bundle, engine="onnxruntime", threads=1, journal=kept) as session:
            session.set_image(GREY)
            session.click(10, 10)
            session.set_mask(np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE))
            session.set_clicks([[5, 5], [20, 30, 0]])
            session.select("dog")
            session.load_labels(np.eye(*SIZE, dtype=np.int32))
            session.save(work)
        return journal.read_bytes(), work.read_bytes()


def _damaged_lines(draw: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place] = damaged_json(draw, lines[place])
    return b"".join(lines) if draw.random() < 0.7 else damaged(draw, content)


def _damaged_work(draw: random.Random, content: bytes) -> bytes:
    """Damage a file of work, and give it the hash that fits, where it has the fields for one."""
    import msgspec

    from mmms_deploy.session.plain_json import UNFIT, decoded, encoded
    from mmms_deploy.session.work import NO_HASH, SavedWork

    changed_content = damaged_json(draw, content)
    with contextlib.suppress(*UNFIT):
        found = msgspec.structs.replace(decoded(changed_content, SavedWork), sha256=NO_HASH)
        fitting = hashlib.sha256(encoded(found)).hexdigest()
        return encoded(msgspec.structs.replace(found, sha256=fitting))
    return changed_content


def _read_work(path: Path) -> object:
    from mmms_deploy.session.work import read_work

    work = read_work(path)
    return work.annotations, work.labels(), work.to_coco("a.png"), work.detections()


@cache
def _repeating() -> Any:
    """Return an open session, and what has the features of its image."""
    from mmms_deploy import Session
    from mmms_deploy.journal import Images
    from tests.support.annotating import GREY
    from tests.support.toy import write_toy

    session = Session(write_toy(Path(tempfile.mkdtemp()) / "toy"), engine="onnxruntime", threads=1)
    session.set_image(GREY)
    features = session.features
    kept = {features.key: features}
    return session, Images(features=SimpleNamespace(find=kept.get))


def _read_journal(path: Path) -> object:
    """Read a journal, and repeat what can be repeated of it."""
    from mmms_deploy.journal.reading import read_journal
    from mmms_deploy.journal.repeating import Repeater

    recorded = read_journal(path)
    for one in recorded:
        repeater = Repeater(*_repeating())
        for event in one.events:
            with contextlib.suppress(MMMSDeployError):
                repeater(event)
    return recorded


# --- Label Studio -----------------------------------------------------------------------------------------------------


def _markups() -> list[tuple[str, bytes]]:
    from tests.support.labelling import configuration

    return [("a.xml", configuration(kind).encode()) for kind in ("BrushLabels", "BitmaskLabels")]


def _parse_markup(path: Path) -> object:
    from mmms_deploy.doors.label_studio.markup import parse_markup

    markup = parse_markup(path.read_bytes().decode("utf-8", "replace"))
    markup.check(boxes=False)
    return markup


def _predictions() -> list[tuple[str, bytes]]:
    from mmms_deploy.session import Click
    from tests.support.labelling import configuration, point

    regions = [point(Click(40, 30), (60, 80)), point(Click(3, 4, False), (60, 80))]
    body = {
        "tasks": [{"id": 1, "data": {"photo": "/data/upload/1/a.png"}}],
        "project": "1.1",
        "label_config": configuration(),
        "params": {"login": None, "context": {"result": regions}},
    }
    return [("a.json", json.dumps(body).encode())]


def _read_prediction(path: Path) -> object:
    from mmms_deploy.doors.label_studio.markup import parse_markup, picture_of
    from mmms_deploy.doors.label_studio.prompts import prompts_of
    from mmms_deploy.doors.label_studio.shapes import Prediction, read_shape

    given = read_shape(path.read_bytes(), Prediction)
    markup = parse_markup(given.label_config or "")
    found = prompts_of(given.context.result if given.context is not None else ())
    return [picture_of(markup, one.picture, task.data) for one in found for task in given.tasks]


def _brushes() -> list[tuple[str, bytes]]:
    from mmms_deploy.doors.label_studio.brush import brush_rle

    return [("a.rle", bytes(brush_rle(np.random.default_rng(0).random((60, 80)) > level))) for level in (0.1, 0.99)]


def _draw_brush(path: Path) -> object:
    from mmms_deploy.doors.label_studio.brush_decoding import mask_of_brush

    return mask_of_brush(list(path.read_bytes()), (60, 80))


READERS: dict[str, Reader] = {
    "image": Reader(_pictures, _image),
    "modality": Reader(_numbers, _modality),
    "label map": Reader(_labels, _label_map),
    "annotation": Reader(_annotation, _read_annotation, damaged_json),
    "labels with names": Reader(_named_labels, _read_named_labels),
    "features .npz": Reader(_features, _load_features, damaged_archive),
    "encoded images": Reader(_encoded, _use, _damaged_encoded),
    "golden.npz": Reader(_golden, _load_golden, damaged_archive),
    "bundle.json": Reader(_manifest, _bundle, damaged_json),
    "bundle.json, digest fits": Reader(_manifest, _session, _forged),
    "ONNX graph": Reader(_graphs, _graph),
    ".safetensors": Reader(_safetensors, _checkpoint, damaged_safetensors),
    ".pt and .pth": Reader(_torch_files, _checkpoint, _damaged_torch_file),
    ".ort": Reader(_ort_files, _checkpoint),
    "weights without torch": Reader(_weights_without_torch, _read_weights, _damaged_weights),
    ".ort as a graph": Reader(_ort_graphs, _ort_graph),
    "description of a pair": Reader(lambda: [("d.toml", PAIR.encode())], _pair_description),
    "description JSON": Reader(lambda: [("d.json", json.dumps(_DESCRIPTION).encode())], _description, damaged_json),
    "description TOML": Reader(lambda: [("d.toml", _TOML)], _description),
    "COCO JSON": Reader(_coco, _open_coco, damaged_json),
    "SBD .mat": Reader(_mat, _instances),
    "list of names": Reader(lambda: [("val.txt", b"a 1\nb -1\n\nc\n")], _list),
    "results of mmms-eval": Reader(_results, _read_results, damaged_json),
    "results of mmms-bench": Reader(_report, _read_report, damaged_json),
    "clicks CSV": Reader(_csv_clicks, _read_clicks),
    "clicks JSON": Reader(_json_clicks, _read_clicks, damaged_json),
    "verdict": Reader(_verdict, _read_verdict, damaged_json),
    "verdict on half precision": Reader(_half_verdict, _read_half_verdict, damaged_json),
    "entry of a store": Reader(_encoded, _read_entry, _damaged_encoded),
    "plan": Reader(_plan, _read_plan, _damaged_plan),
    "journal": Reader(lambda: [("a.jsonl", _walked()[0])], _read_journal, _damaged_lines),
    "file of work": Reader(lambda: [("a.json", _walked()[1])], _read_work, damaged_json),
    "file of work, hash fits": Reader(lambda: [("a.json", _walked()[1])], _read_work, _damaged_work),
    "configuration of Label Studio": Reader(_markups, _parse_markup),
    "request of Label Studio": Reader(_predictions, _read_prediction, damaged_json),
    "brush of Label Studio": Reader(_brushes, _draw_brush),
}


# --- running ----------------------------------------------------------------------------------------------------------


def run(name: str, seed: int, count: int, keep: Path | None = None) -> Outcome:
    """Read damaged files with one reader, in this process.

    Args:
        name: A key of :data:`READERS`.
        seed: The same seed gives the same files.
        count: Their number.
        keep: A folder for files that break the reader; None keeps none.
    """
    import resource

    reader, outcome = READERS[name], Outcome()
    seeds = reader.seeds()
    draw = random.Random(f"{name} {seed}")

    def expired(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, expired)
    try:
        for number in range(count):
            file, content = draw.choice(seeds)
            # The first inputs are the whole files: they must be read.
            if number < len(seeds):
                file, content = seeds[number]
            else:
                content = reader.mutation(draw, content)
            outcome.inputs += 1
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file
                path.write_bytes(content)
                problem = _one(reader, path, outcome)
            if number > len(seeds) and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak > LARGEST_GROWTH >> 10:
                problem = problem or "memory"
                outcome.tracebacks.append(f"{file} took more than {LARGEST_GROWTH >> 20} MiB")
            if problem and number < len(seeds):
                outcome.tracebacks.append(f"the whole file {file} was not read: {problem}")
            elif problem and problem != "refused" and keep is not None:
                (keep / f"{name.replace(' ', '_')}-{seed}-{number}-{file}").write_bytes(content)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return outcome


def _one(reader: Reader, path: Path, outcome: Outcome) -> str:
    """Read a file; count what happens, and return a word for it, empty where it was read."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
        outcome.accepted += 1
    except MMMSDeployError as error:
        outcome.refused += 1
        str(error).encode()
        return "refused"
    except HangError:
        outcome.hangs += 1
        return "hang"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome.tracebacks.append(
            f"{type(error).__name__}: {str(error)[:120]} ({Path(last.filename).name}:{last.lineno})"
        )
        return "traceback"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def run_in_child(names: Sequence[str], seed: int, count: int, *, keep: Path, seconds: int) -> dict[str, Outcome]:
    """Run readers in one process of limited memory, which is ended when it takes too long.

    Args:
        names: Keys of :data:`READERS`.
        seed: Seed of the damage.
        count: Number of files for each reader.
        keep: An existing folder, for files that break a reader.
        seconds: The most that the process may take.

    Returns:
        The outcomes by name. A process that dies or is ended counts as one hang of the reader it was at.
    """
    command = [sys.executable, "-m", "tests.support.fuzzing", str(seed), str(count), str(keep.absolute()), *names]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    outcomes: dict[str, Outcome] = {}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=environment, check=False
        )
        output, ended = done.stdout, f"exit code {done.returncode}: {done.stderr[-800:]}"
    except subprocess.TimeoutExpired as error:
        output, ended = (error.stdout or b"").decode(), f"more than {seconds} s"
    for line in output.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            name = found.pop("reader")
            outcomes[name] = Outcome(**found)
    for name in names:
        if name not in outcomes:
            outcomes[name] = Outcome(hangs=1, tracebacks=[ended])
            break
    return outcomes


def main(arguments: Sequence[str]) -> None:
    """Run readers with limited memory and print a line of JSON for each."""
    import resource

    seed, count, keep, *names = arguments
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for name in names:
        outcome = run(name, int(seed), int(count), Path(keep))
        print(json.dumps({"reader": name, **vars(outcome)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
