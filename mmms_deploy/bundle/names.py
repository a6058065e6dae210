"""The names of a bundle's files, and of the tensors that exports write and sessions set and read."""

from __future__ import annotations

import re

MANIFEST_NAME = "bundle.json"
GOLDEN_NAME = "golden.npz"
CARD_NAME = "README.md"
"""The model card. The manifest does not list it, so that it may be edited."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""The pattern for names of a bundle's files."""

RGB = "rgb"
"""Input (1, 3, H, W): the prepared image."""
PRESENT = "present"
"""Input (1, M) of a bundle with optional modalities: 1 for each modality that is present, 0 for the others."""
CLICK = "click"
"""Input (1, 4): x and y in network pixels; 1 for positive, 0 for negative; 1 for a click, 0 for none."""
MAPS, MAPS_NEXT = "maps", "maps_next"
"""State (1, 2, H, W) and its successor: the maps of positive and negative click disks."""
PREV = "prev"
"""State (1, 1, H, W): the previous mask; its successor is ``prob``."""
LABELS, LABELS_NEXT = "click_labels", "click_labels_next"
"""State (1, 1, H, W) uint8 and its successor: what is known of every pixel, one of the values of ``ClickLabel``."""
POINTS, POINTS_NEXT = "points", "points_next"
"""State (1, N, 4) and its successor, for a network that takes a list of points: a row as ``click`` for each, oldest
first; zeros where there is none."""
CLICK_LIST = "click_list"
"""Input (1, Q, 4) or (1, Q, 5): all clicks, for a network that takes them whole; see ``ClickList`` for its rows."""
FIRST_CLICK = "first_click"
"""Input (1, 4) of a network with proposals: the first click, a row as ``click``."""
CHOICE = "choice"
"""Input (1, 1) of a network with proposals: which of them was chosen, from 0."""
ROW_LOGITS = "row_logits"
"""Output (1, Q + L, h, w) of a network that answers for several objects at once: the logits of every row of the list of
clicks, then those of L learned rows, which are background. An object's logit is the maximum over its rows; of rows
without a click they mean nothing."""
LOGITS = "logits"
"""Output (1, 1, h, w) of a network that answers with logits, in the place of ``prob``."""
CANDIDATES, SCORES, TAKEN = "candidates", "scores", "taken"
"""Outputs (1, K, h, w), (1, K) and (1, 1): all answers of a network that gives several, its scores for them, and which
one the graph took, from 0."""
MODULATED = "modulated"
"""Input (1, 1, H, W) of a bundle whose click contract has a modulation: the previous probability, changed around the
newest click."""
PROB, MASK = "prob", "mask"
"""Outputs (1, 1, H, W): the probability in [0, 1], and the thresholded mask as uint8."""


def of_object(name: str, number: int) -> str:
    """Return what a tensor of one object is called in a click stage for several objects.

    Args:
        name: Its name in the click stage for one: a state, the click, an output.
        number: The object's place in the stage, from 1.
    """
    return f"{name}@{number}"


def without_object(name: str) -> str:
    """Return a tensor's name in the click stage for one object; features have one name in both."""
    return name.partition("@")[0]
