"""Whether libraries may send telemetry when this package calls them: off, unless the user switches it on."""

from __future__ import annotations

import os

VARIABLE = "MMMS_DEPLOY_TELEMETRY"
"""Environment variable that leaves telemetry to the libraries: ``1``. Anything else switches it off."""


def wanted() -> bool:
    """Return whether the user wants the libraries' telemetry."""
    return os.environ.get(VARIABLE, "").strip().lower() in ("1", "on", "true", "yes")
