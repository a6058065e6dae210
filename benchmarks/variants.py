"""The variants that are measured in turns: ways to run the same network. A variant that cannot run here says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from peers import PeerError, Sam2Tiny

from mmms_deploy.bench.arithmetic import count_flops
from mmms_deploy.bench.eager import EagerMMMS, open_eager
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import RECIPES, Picture, Point
from mmms_deploy.bundle import Bundle, Rate
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import BundleError, MMMSDeployError

INPUTS = {name: RECIPES[name].bundle for name in ("rgb", "rgbd")}
"""Bundles of full-size MMMS, by the recipe that makes them."""
AS_EXPORTED = "-as-exported"
"""Appended to a bundle's name for the same network without rewrites."""


@dataclass
class Row:
    """The measurements of one variant; all times in ms.

    Attributes:
        key: Unique name.
        label: What it is, for people.
        inputs: ``rgb``, ``rgbd``, or empty for an alternative.
        ours: Whether mmms-deploy deploys it.
        precision: Number format that it computes in.
        image: The image part of every image.
        click: Every click, end to end.
        engine: The click stage alone.
        host: The rest of the click.
        gflop: Operations of the click stage in 10^9; None when they were not counted.
        parameters: Parameters of the network; None when they are unknown.
        difference: Largest difference of the last probabilities from eager PyTorch's; None when not compared.
        library: The library that executed it.
        evidence: What shows that it computed in this precision.
        rewrites: The exact rewrites that the graphs were exported with.
        why: Why nothing was measured; empty when something was.
    """

    key: str
    label: str
    inputs: str
    ours: bool = False
    precision: str = "fp32"
    image: list[float] = field(default_factory=list)
    click: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    gflop: float | None = None
    parameters: int | None = None
    difference: float | None = None
    library: str = ""
    evidence: str = ""
    rewrites: tuple[str, ...] = ()
    why: str = ""


SAM2 = "sam2-tiny"
"""The bundle of SAM 2 tiny, and what ``mmms-export --ckpt`` calls it."""


class Variant(Protocol):
    """One way to answer clicks."""

    row: Row

    def set_image(self, picture: Picture) -> float:
        """Set an image; return the time in ms."""
        ...

    def click(self, point: Point, *, record: bool) -> None:
        """Answer a click, and record its time."""
        ...

    def probability(self) -> np.ndarray | None:
        """Return (H, W), the newest answer at the network's resolution, where it can be compared."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class EngineVariant:
    """A bundle on an engine, through ``Session``."""

    def __init__(self, row: Row, path: Path, engine: str, threads: int) -> None:
        bundle = Bundle(path, verify=False)
        self.row = row
        self._engine = open_engine(
            bundle, device="cpu", engine=engine, precision=row.precision, threads=threads, strict=True
        )
        self._session = TimedSession(self._engine)
        row.library = str(self._engine.info)
        row.evidence = self._engine.info.evidence
        row.rewrites = bundle.manifest.provenance.rewrites
        row.parameters = bundle.manifest.provenance.parameters or None
        stage = next(stage.name for stage in bundle.manifest.stages if stage.rate is Rate.CLICK)
        try:
            row.gflop = count_flops(bundle.file(self._engine.graphs[stage].file)) / 1e9
        except NotMeasuredError:
            row.gflop = None

    @property
    def engine(self) -> Engine:
        """What executes it; another session may share it."""
        return self._engine

    def set_image(self, picture: Picture) -> float:
        """Set an image; return the time in ms."""
        return self._session.set_image(picture).total

    def click(self, point: Point, *, record: bool) -> None:
        """Answer a click, and record its time."""
        sample = self._session.click(point)
        if record:
            self.row.click.append(sample.total)
            self.row.engine.append(sample.engine)
            self.row.host.append(sample.host)

    def probability(self) -> np.ndarray | None:
        """Return (H, W), the newest answer at the network's resolution, where it can be compared."""
        return self._session.result.network_probability

    def close(self) -> None:
        """Free everything."""
        self._session.close()
        self._engine.close()


class EagerVariant:
    """Eager PyTorch; ``whole`` runs the whole network at every click."""

    def __init__(self, row: Row, path: Path, threads: int, *, whole: bool = False) -> None:
        self.row = row
        manifest = Bundle(path, verify=False).manifest
        self._eager = EagerMMMS(manifest, threads, whole=True) if whole else open_eager(manifest, threads)
        listed = manifest.clicks.listed
        self._joint = listed is not None and listed.objects > 1
        row.library = f"PyTorch {self._eager.version}, {threads} threads"

    def set_image(self, picture: Picture) -> float:
        """Set an image; return the time in ms."""
        start = perf_counter()
        self._eager.set_image(picture)
        return 1e3 * (perf_counter() - start)

    def click(self, point: Point, *, record: bool) -> None:
        """Answer a click, and record its time."""
        start = perf_counter()
        self._eager.click(*point)
        if record:
            self.row.click.append(1e3 * (perf_counter() - start))

    def probability(self) -> np.ndarray | None:
        """Return (H, W), the newest answer at the network's resolution, where it can be compared."""
        # A network that answers for all objects at once has a map of logits for each click, and no probability.
        return None if self._joint else self._eager.probability

    def close(self) -> None:
        """Free everything."""
        del self._eager


class Sam2Variant:
    """SAM 2 tiny; its two graphs alone."""

    def __init__(self, row: Row, cache: Path, threads: int) -> None:
        self.row = row
        self._sam = Sam2Tiny(cache, threads)
        row.library = f"ONNX Runtime, {threads} threads"

    def set_image(self, picture: Picture) -> float:
        """Set an image; return the time in ms."""
        height, width = picture.rgb.shape[:2]
        self._scale = (1024 / width, 1024 / height)
        return self._sam.encode()

    def click(self, point: Point, *, record: bool) -> None:
        """Answer a click, and record its time."""
        x, y, positive = point
        spent = self._sam.decode(x * self._scale[0], y * self._scale[1], positive)
        if record:
            self.row.click.append(spent)

    def probability(self) -> np.ndarray | None:
        """Return (H, W), the newest answer at the network's resolution, where it can be compared."""
        return None

    def close(self) -> None:
        """Free everything."""
        del self._sam


def prepare_bundles(inputs: str, bundles: Path, *, fresh: str | None) -> dict[str, str]:
    """Export bundles that are missing or cannot be read: the network as deployed, and as exported without any rewrite.

    Args:
        inputs: ``rgb`` or ``rgbd``.
        bundles: The folder of bundles.
        fresh: Which bundles to export again although they exist: ``all``, ``deployed`` (with rewrites), or None.

    Returns:
        Why a bundle could not be exported, by its name.
    """
    failures = prepare_sam2(bundles, fresh=fresh is not None) if inputs == "rgb" else {}
    name = INPUTS[inputs]
    modalities = [str(m["name"]) for m in RECIPES[inputs].overrides.get("modalities", [])]
    script = "from mmms_deploy.commands.export import main; main()"
    base = [sys.executable, "-c", script, "--random-weights", "0", "--overwrite"]
    for modality in modalities:
        base += ["--modality", f"{modality}:3"]
    for made, extra in ((name, []), (name + AS_EXPORTED, ["--no-rewrite", "all"])):
        path = bundles / made
        again = fresh == "all" or (fresh == "deployed" and not extra)
        if usable(path) and not again:
            continue
        print(f"exporting {made}", file=sys.stderr, flush=True)
        done = subprocess.run([*base, *extra, "--out", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            failures[made] = f"its export failed: {done.stderr.strip().splitlines()[0] if done.stderr else 'silently'}"
    return failures


def prepare_sam2(bundles: Path, *, fresh: bool) -> dict[str, str]:
    """Export SAM 2 tiny if it is missing or cannot be read.

    Args:
        bundles: The folder of bundles.
        fresh: Whether to export it again although it exists.

    Returns:
        Why it could not be exported, by its name.
    """
    if usable(bundles / SAM2) and not fresh:
        return {}
    print(f"exporting {SAM2}", file=sys.stderr, flush=True)
    script = "from mmms_deploy.commands.export import main; main()"
    base = [sys.executable, "-c", script, "--ckpt", SAM2, "--overwrite", "--out", str(bundles / SAM2)]
    done = subprocess.run(base, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "silently"
    return {SAM2: f"its export failed: {said}"} if done.returncode else {}


def usable(path: Path) -> bool:
    """Return whether there is a bundle that this version reads."""
    try:
        Bundle(path, verify=False)
    except BundleError:
        return False
    return True


def open_variants(
    inputs: str, bundles: Path, cache: Path | None, threads: int, failures: dict[str, str]
) -> tuple[list[Variant], list[Row]]:
    """Open every variant of a network.

    Args:
        inputs: ``rgb`` or ``rgbd``.
        bundles: The folder of bundles.
        cache: The folder of the alternative; None leaves it out.
        threads: Threads of each.
        failures: The return value of :func:`prepare_bundles`.

    Returns:
        The variants that run here, and a row for every variant.
    """
    name = INPUTS[inputs]
    deployed, exported = bundles / name, bundles / (name + AS_EXPORTED)
    variants: list[tuple[Row, Any]] = [
        (_row(inputs, "eager", "PyTorch eager"), lambda row: EagerVariant(row, deployed, threads)),
        (
            _row(inputs, "ort-as-exported", "ONNX Runtime, as exported"),
            lambda row: EngineVariant(row, exported, "onnxruntime", threads),
        ),
        (
            _row(inputs, "ort", "ONNX Runtime, rewritten", ours=True),
            lambda row: EngineVariant(row, deployed, "onnxruntime", threads),
        ),
        (
            _row(inputs, "openvino-fp32", "OpenVINO float32, rewritten", ours=True),
            lambda row: EngineVariant(row, deployed, "openvino", threads),
        ),
        (
            _row(inputs, "openvino-bf16", "OpenVINO BF16, rewritten", ours=True, precision="bf16"),
            lambda row: EngineVariant(row, deployed, "openvino", threads),
        ),
    ]
    if cache is not None:
        row = Row(key="sam2", label="SAM 2 tiny, its graphs alone", inputs="")
        variants.append((row, lambda row: Sam2Variant(row, cache, threads)))
        whole = bundles / SAM2
        for engine, title, precision in (
            ("onnxruntime", "ONNX Runtime", "fp32"),
            ("openvino", "OpenVINO float32", "fp32"),
            ("openvino", "OpenVINO BF16", "bf16"),
        ):
            key = f"sam2/{engine}-{precision}"
            row = Row(key=key, label=f"SAM 2 tiny as a bundle, {title}", inputs="", precision=precision)
            variants.append((row, lambda row, engine=engine: EngineVariant(row, whole, engine, threads)))
    for row, _ in variants:
        if row.inputs:
            row.why = failures.get(name + AS_EXPORTED if "as-exported" in row.key else name, "")
    return open_each(variants), [row for row, _ in variants]


def open_each(variants: Sequence[tuple[Row, Callable[[Row], Variant]]]) -> list[Variant]:
    """Open variants, and return those that run here; the rows of the others say why they do not.

    Args:
        variants: A row, and what opens it. Where a row already says why it cannot be opened, it is not tried.
    """
    opened: list[Variant] = []
    for row, factory in variants:
        if row.why:
            continue
        try:
            opened.append(factory(row))
        except (MMMSDeployError, PeerError) as error:
            expected = getattr(error, "expected", None)
            row.why = getattr(error, "given", str(error)) + (f" (expected {expected})" if expected else "")
    return opened


def _row(inputs: str, key: str, label: str, *, ours: bool = False, precision: str = "fp32") -> Row:
    return Row(key=f"{inputs}/{key}", label=label, inputs=inputs, ours=ours, precision=precision)
