"""Published weights from the hub: the real client against a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from mmms_deploy.errors import WeightsError
from mmms_deploy.weights import Source, find_weights, locate_weights
from tests.standins.hub import Hub, running
from tests.support.hub import point_client_at
from tests.support.published import NAME, canonical, known_weights, publish, released, timm_form, write_state

STATE = released()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    publish(known_weights(STATE), monkeypatch)
    with running() as server:
        point_client_at(server, tmp_path / "hub-cache", monkeypatch, token=None)
        yield server


def timm_file(folder: Path, state=STATE) -> bytes:
    return write_state(folder / "model.safetensors", timm_form(state)).read_bytes()


def test_the_first_repository_that_has_them(hub, tmp_path) -> None:
    hub.add("meta/tiny", {"tiny.pt": write_state(tmp_path / "tiny.pt", STATE).read_bytes()})
    found = locate_weights(NAME)
    assert found.path.read_bytes() == canonical(STATE)
    assert found.origin.startswith("hf:meta/tiny@")
    hub.add("timm/tiny", {"model.safetensors": timm_file(tmp_path)})
    assert locate_weights(NAME, sources=[Source.HUB]).origin.startswith("hf:timm/tiny@")


def test_other_weights_in_a_repository_are_passed_over(hub, tmp_path) -> None:
    hub.add("timm/tiny", {"model.safetensors": timm_file(tmp_path, released(1))})
    with pytest.raises(WeightsError, match=r"hf:timm/tiny/.*: hf:timm/tiny@\w+/.* holds other weights than"):
        find_weights(NAME)
    hub.add("meta/tiny", {"tiny.pt": write_state(tmp_path / "tiny.pt", STATE).read_bytes()})
    assert find_weights(NAME).read_bytes() == canonical(STATE)


def test_what_the_hubs_cache_has_needs_no_request(hub, tmp_path, monkeypatch) -> None:
    hub.add("timm/tiny", {"model.safetensors": timm_file(tmp_path)})
    find_weights(NAME)
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "another"))
    asked = len(hub.requests)
    assert find_weights(NAME).read_bytes() == canonical(STATE)
    assert len(hub.requests) == asked


def test_a_hub_that_does_not_answer_is_asked_once(hub) -> None:
    hub.status = 503
    with pytest.raises(WeightsError, match="the hub did not answer"):
        find_weights(NAME)
    assert not [path for path in hub.paths() if "meta" in path]
