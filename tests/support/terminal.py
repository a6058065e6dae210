from __future__ import annotations

import io


class Terminal(io.StringIO):
    """What a user at a terminal sees."""

    def isatty(self) -> bool:
        return True
