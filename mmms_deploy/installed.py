"""How this package was installed, so that an error can give a command that works for it.

The package is on no index that everyone has: most installs come from a clone or from a wheel's file, and
``pip install mmms-deploy`` would find nothing. PEP 610 says where a package came from (``direct_url.json``).
"""

from __future__ import annotations

import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

NAME = "mmms-deploy"
_NEEDS_QUOTES = re.compile(r'["$`\\]')


def pip_install(extras: str) -> str:
    """Return the command that adds extras to this install.

    Args:
        extras: Names of extras with commas between them, e.g. ``export,cpu``.
    """
    return f"pip install {requirement(extras)}"


def requirement(extras: str) -> str:
    """Return what ``pip install`` takes, quoted for a shell, to add extras to this install.

    Args:
        extras: Names of extras with commas between them, e.g. ``export,cpu``.

    Returns:
        A clone as ``-e "FOLDER[EXTRAS]"``; the folder or file that was installed; its address; the requirements of the
        extras, one by one, where that file is gone; and the package's name where it came from an index.
    """
    clone = source_tree()
    if clone is not None:
        return f"-e {_quoted(f'{clone}[{extras}]')}"
    origin = _origin()
    if origin is None:
        return f'"{NAME}[{extras}]"'
    url = str(origin.get("url", ""))
    if urlsplit(url).scheme != "file":
        return _quoted(f"{NAME}[{extras}] @ {_address(origin, url)}")
    path = Path(url2pathname(unquote(urlsplit(url).path)))
    return _quoted(f"{path}[{extras}]") if path.exists() else _one_by_one(extras)


def source_tree() -> Path | None:
    """Return the folder of the clone that this package is imported from; None when it was installed elsewhere."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def _origin() -> dict[str, Any] | None:
    """Return what PEP 610 says of the install; None when it came from an index, or it is not known."""
    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
        found = json.loads(text) if text else None
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None


def _address(origin: dict[str, Any], url: str) -> str:
    vcs = origin.get("vcs_info")
    if not isinstance(vcs, dict):
        return url
    commit = vcs.get("commit_id")
    return f"{vcs.get('vcs', 'git')}+{url}" + (f"@{commit}" if commit else "")


def _one_by_one(extras: str) -> str:
    wanted = {name.strip() for name in extras.split(",")}
    found = []
    for line in metadata.requires(NAME) or ():
        package, _, condition = line.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", condition)
        if named is not None and named[1] in wanted:
            found.append(_quoted(package.strip()))
    return " ".join(found) or f'"{NAME}[{extras}]"'


def _quoted(text: str) -> str:
    return shlex.quote(text) if _NEEDS_QUOTES.search(text) else f'"{text}"'
