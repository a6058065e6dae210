"""Consoles on which text from outside, such as the name of a file, shows and does nothing."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mmms_deploy.reporting.visible import visible


class VisibleConsole(Console):
    """A console that writes control characters out: a terminal would obey an escape sequence in the name of a file."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as usual; what the console itself sends to the terminal stays."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)
