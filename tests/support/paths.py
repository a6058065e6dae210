"""Where things are that tests read."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""

DATA = Path(os.environ.get("MMMS_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Real pictures with masks; tests that need them skip where they are absent."""

FAMILIES = Path(os.environ.get("MMMS_TEST_FAMILIES", ROOT.parent / "shared" / "families"))
"""Key lists and golden numbers of other families' networks; tests that need them skip where they are absent."""
