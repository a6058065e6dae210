"""The frame of a report: one self-contained HTML page that has no script and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence

from mmms_deploy.reporting.svg import COLOURS, STYLE
from mmms_deploy.reporting.visible import escape

_PAGE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .3rem 0; } .faint { color: var(--faint); } .note { border-left: 4px solid var(--b); padding-left: .8rem; }
.heads { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.head { flex: 1 1 9rem; border: 1px solid var(--rule); border-radius: 8px; padding: .7rem .9rem; }
.head b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .28rem .6rem; text-align: right; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; vertical-align: top; }
th:first-child, td:first-child, .text { text-align: left; } td:first-child { white-space: pre-wrap; }
.numbers th:first-child { width: 42%; } .plain td:first-child { width: 16%; }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0; } .scroll { overflow-x: auto; }
.regression { color: #d43c3c; font-weight: 600; } .better { color: var(--c); }
"""


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """Return an HTML page that is also well-formed XML.

    Args:
        title: Title of the window, plain text.
        parts: The parts of its body from top to bottom, as well-formed markup.
        style: Further style sheets.
    """
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{COLOURS}{_PAGE}{STYLE}{style}</style></head>"
        f"<body>\n{body}\n</body></html>\n"
    )
