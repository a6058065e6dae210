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
from peers import PEER_ENGINES, SIZE, PeerEngine, PeerError, Sam2Tiny

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
REDUCED_OPTIONS = ("--precision", "fp32,int8", "--int8-iou", "0.9")
"""How the deployed bundles are exported. The masks of random weights mean nothing, and hang on every rounding: how
alike they have to stay only decides how many layers are in 8 bits. ``mmms-export`` says which share is."""
REDUCED = "-reduced"
"""Appended to a bundle's name: its graphs in the precisions beside float32."""
DEPLOYED = (
    ("ort", "ONNX Runtime, rewritten", "onnxruntime", "fp32"),
    ("openvino-fp32", "OpenVINO float32, rewritten", "openvino", "fp32"),
    ("openvino-bf16", "OpenVINO BF16, rewritten", "openvino", "bf16"),
    ("openvino-int8", "OpenVINO INT8, rewritten", "openvino", "int8"),
    ("ort-int8", "ONNX Runtime INT8, rewritten", "onnxruntime", "int8"),
)
"""Our ways to run a network: key, label, engine, precision. The masks of the first are the reference."""
PEER_BUNDLES = (
    ("ONNX Runtime", "onnxruntime", "fp32"),
    ("OpenVINO float32", "openvino", "fp32"),
    ("OpenVINO BF16", "openvino", "bf16"),
)
"""Ways to run the peer as a bundle: label, engine, precision. The masks of the first are the reference."""


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
        reference: Key of the row whose masks it has to keep; empty for none.
        iou: Median IoU of its masks with that row's, after the same clicks on photographs; None when not compared.
        graph_bytes: Size of the graph files that it executes, weights included; None when they are no bundle's.
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
    reference: str = ""
    iou: float | None = None
    graph_bytes: int | None = None
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

    def mask(self) -> np.ndarray | None:
        """Return (h, w) bool, the newest mask, where it can be compared."""
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
        files = {name for graph in self._engine.graphs.values() for name in bundle.files_of(graph)}
        row.graph_bytes = sum(bundle.file(name).stat().st_size for name in files)

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

    def mask(self) -> np.ndarray | None:
        """Return (H0, W0) bool, the newest mask at the picture's size."""
        return self._session.result.mask

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

    def mask(self) -> np.ndarray | None:
        """Return None: probabilities are compared."""
        return None

    def close(self) -> None:
        """Free everything."""
        del self._eager


class Sam2Variant:
    """SAM 2 tiny; its two graphs alone, prepared for so many clicks on a picture."""

    def __init__(self, row: Row, cache: Path, threads: int, engine: PeerEngine, clicks: int) -> None:
        self.row = row
        self._sam = Sam2Tiny(cache, threads, engine, clicks)
        row.library, row.evidence = self._sam.library, self._sam.evidence

    def set_image(self, picture: Picture) -> float:
        """Set an image; return the time in ms."""
        height, width = picture.rgb.shape[:2]
        self._scale = (SIZE / width, SIZE / height)
        return self._sam.encode(picture.rgb)

    def click(self, point: Point, *, record: bool) -> None:
        """Answer a click, and record its time."""
        x, y, positive = point
        spent = self._sam.decode(x * self._scale[0], y * self._scale[1], positive)
        if record:
            self.row.click.append(spent)

    def probability(self) -> np.ndarray | None:
        """Return None: masks are compared."""
        return None

    def mask(self) -> np.ndarray | None:
        """Return (256, 256) bool, the newest mask as the decoder gives it."""
        return self._sam.mask()

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
    base = ["--random-weights", "0"]
    for modality in RECIPES[inputs].overrides.get("modalities", []):
        base += ["--modality", f"{modality['name']}:3"]
    if fresh is not None or not usable(bundles / name):
        why = _export(bundles / name, [*base, *REDUCED_OPTIONS])
        if why:
            failures[name + REDUCED] = why
            why = _export(bundles / name, base)
        if why:
            failures[name] = why
    exported = name + AS_EXPORTED
    if fresh == "all" or not usable(bundles / exported):
        why = _export(bundles / exported, [*base, "--no-rewrite", "all"])
        if why:
            failures[exported] = why
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
    why = _export(bundles / SAM2, ["--ckpt", SAM2])
    return {SAM2: why} if why else {}


def _export(path: Path, options: Sequence[str]) -> str:
    """Export a bundle in a process of its own; return why it could not be, or nothing."""
    print(f"exporting {path.name}", file=sys.stderr, flush=True)
    script = "from mmms_deploy.commands.export import main; main()"
    call = [sys.executable, "-c", script, *options, "--overwrite", "--out", str(path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "silently"
    return f"its export failed: {said}" if done.returncode else ""


def usable(path: Path) -> bool:
    """Return whether there is a bundle that this version reads."""
    try:
        Bundle(path, verify=False)
    except BundleError:
        return False
    return True


def open_variants(
    inputs: str, bundles: Path, cache: Path | None, threads: int, failures: dict[str, str], clicks: int
) -> tuple[list[Variant], list[Row]]:
    """Open every variant of a network.

    Args:
        inputs: ``rgb`` or ``rgbd``.
        bundles: The folder of bundles.
        cache: The folder of the alternative; None leaves it out.
        threads: Threads of each.
        failures: The return value of :func:`prepare_bundles`.
        clicks: The most clicks on a picture.

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
    ]
    for key, label, engine, precision in DEPLOYED:
        row = _row(inputs, key, label, ours=True, precision=precision)
        row.reference = f"{inputs}/{DEPLOYED[0][0]}"
        row.why = failures.get(name + REDUCED, "") if precision not in ("fp32", "bf16") else ""
        variants.append((row, lambda row, engine=engine: EngineVariant(row, deployed, engine, threads)))
    for row, _ in variants:
        row.why = failures.get(name + AS_EXPORTED if "as-exported" in row.key else name, row.why)
    if cache is not None:
        variants += _peer_variants(bundles / SAM2, cache, threads, failures, clicks)
    return open_each(variants), [row for row, _ in variants]


def _peer_variants(
    whole: Path, cache: Path, threads: int, failures: dict[str, str], clicks: int
) -> list[tuple[Row, Any]]:
    """Return the peer's rows and what opens them: its graphs alone, and as a bundle, in every engine."""
    variants: list[tuple[Row, Any]] = []
    for peer in PEER_ENGINES:
        row = Row(f"sam2-graphs/{peer.key}", f"SAM 2 tiny's graphs, {peer.title}", "", precision=str(peer.precision))
        row.reference = f"sam2-graphs/{PEER_ENGINES[0].key}"
        variants.append((row, lambda row, peer=peer: Sam2Variant(row, cache, threads, peer, clicks)))
    for title, engine, precision in PEER_BUNDLES:
        row = Row(f"sam2/{engine}-{precision}", f"SAM 2 tiny as a bundle, {title}", "", precision=precision)
        row.reference = "sam2/onnxruntime-fp32"
        row.why = failures.get(SAM2, "")
        variants.append((row, lambda row, engine=engine: EngineVariant(row, whole, engine, threads)))
    return variants


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
