"""How this user reaches the npm registry: npm's own settings, read from its files and from the environment.

Later ones count more: npm's global file, the user's ``.npmrc``, the project's, and the variables ``npm_config_*``. Of
all settings only those are read that say where the registry is and how to reach it. Tokens and passwords are not: a
registry that wants them is left to the program npm.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import read_text

DEFAULT_REGISTRY = "https://registry.npmjs.org"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables with which users forbid the hub's client to use a network; they mean any download of weights."""

_LIMIT = 1 << 20
"""Bytes of a file of settings."""
_LINE = re.compile(r"\s*(?P<name>[^=;#\s][^=]*?)\s*=\s*(?P<value>.*?)\s*")
_VARIABLE = re.compile(r"\$\{(?P<name>[^}]+)\}")
_TRUE = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True)
class NpmSettings:
    """Where the registry is and how it is reached.

    Attributes:
        registry: Its address, without a slash at its end.
        proxies: Proxies by scheme, ``http`` and ``https``; schemes that it lacks are left to the system's settings.
        no_proxy: Ends of the names of hosts that are reached without a proxy.
        ca_files: Files with certificates of further authorities.
        verify: Whether the server's certificate is checked.
        offline: What forbids any request, such as ``HF_HUB_OFFLINE=1``; None when nothing does.
    """

    registry: str = DEFAULT_REGISTRY
    proxies: Mapping[str, str] | None = None
    no_proxy: tuple[str, ...] = ()
    ca_files: tuple[str, ...] = ()
    verify: bool = True
    offline: str | None = None


def npm_settings(scope: str = "") -> NpmSettings:
    """Read the settings of this user.

    Args:
        scope: The scope of the package, such as ``@annotorious``, which may have a registry of its own; empty for none.
    """
    found: dict[str, str] = {}
    variables = _variables()
    for file in _files(variables):
        found |= _read(file)
    found |= variables
    registry = found.get(f"{scope}:registry") or found.get("registry") or DEFAULT_REGISTRY
    https = found.get("https-proxy") or found.get("proxy")
    proxies = {"https": https, "http": found.get("proxy") or https}
    extra = os.environ.get("NODE_EXTRA_CA_CERTS")
    return NpmSettings(
        registry=registry.rstrip("/"),
        proxies={scheme: address for scheme, address in proxies.items() if address and address != "null"},
        no_proxy=tuple(filter(None, re.split(r"[,\s]+", found.get("noproxy", "")))),
        ca_files=tuple(file for file in (found.get("cafile"), extra) if file and file != "null"),
        verify=found.get("strict-ssl", "true").lower() != "false",
        offline=_offline(found),
    )


def _offline(found: Mapping[str, str]) -> str | None:
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").lower() in _TRUE:
            return f"{name}={os.environ[name]}"
    return "npm's setting offline" if found.get("offline", "").lower() == "true" else None


def _files(variables: Mapping[str, str]) -> list[Path]:
    """Return the files of settings that may be there, those that count least first."""
    named = variables.get("globalconfig")
    npm = shutil.which("npm")
    prefix = variables.get("prefix") or (None if npm is None else str(Path(npm).parent.parent))
    files = [Path(named)] if named else [Path(prefix) / "etc" / "npmrc"] if prefix else []
    user = variables.get("userconfig")
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        files.append(Path(user) if user else Path.home() / ".npmrc")
    return [*files, Path(".npmrc")]


def _read(file: Path) -> dict[str, str]:
    """Return what a file sets; one that cannot be read sets nothing."""
    try:
        lines = read_text(file, _LIMIT).splitlines()
    except FileReadError:
        return {}
    matches = filter(None, map(_LINE.fullmatch, lines))
    return {match["name"]: _expanded(match["value"].strip("\"'")) for match in matches}


def _expanded(value: str) -> str:
    """Put variables of the environment in; npm leaves the name of one that is not set."""
    return _VARIABLE.sub(lambda match: os.environ.get(match["name"], match[0]), value)


def _variables() -> dict[str, str]:
    """Return what the environment sets; the case of a variable's name does not matter, as for npm."""
    found = {}
    for name, value in sorted(os.environ.items()):
        if name.lower().startswith("npm_config_") and value:
            found[re.sub(r"(?<!^)_", "-", name.lower().removeprefix("npm_config_"))] = value
    return found
