"""The real client of the hub, pointed at a stand-in and at an empty cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standins.hub import TOKEN, Hub


def point_client_at(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, *, token: str | None = TOKEN) -> None:
    """Point ``huggingface_hub`` at a stand-in; it reads its environment when it is imported.

    Args:
        hub: The stand-in.
        cache: The folder of its cache.
        monkeypatch: Undoes it.
        token: The token of the user; None for none.
    """
    from huggingface_hub import constants, file_download

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


def environment(hub: Hub, cache: Path, *, token: str | None = TOKEN) -> dict[str, str]:
    """Return the environment variables that do the same for a new process."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(cache / "home"),
        "HF_HUB_DISABLE_XET": "1",
        **({} if token is None else {"HF_TOKEN": token}),
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, as a repository holds them."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
