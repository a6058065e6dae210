"""The names of a bundle's files, and of the tensors that exports write and sessions drive."""

from __future__ import annotations

import re

MANIFEST_NAME = "bundle.json"
GOLDEN_NAME = "golden.npz"
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""What a file of a bundle may be called."""

RGB = "rgb"
"""Input (1, 3, H, W): the prepared image."""
PRESENT = "present"
"""Input (1, M) of a bundle with optional modalities: 1 for each modality that is present."""
CLICK = "click"
"""Input (1, 4): x, y, 1 positive or 0 negative, 1 present or 0 none."""
MAPS, MAPS_NEXT = "maps", "maps_next"
"""State (1, 2, H, W) and its successor: the maps of positive and negative click disks."""
PREV = "prev"
"""State (1, 1, H, W): the previous mask; its successor is ``prob``."""
PROB, MASK = "prob", "mask"
"""Outputs (1, 1, H, W): the probability in [0, 1], and the thresholded mask as uint8."""
