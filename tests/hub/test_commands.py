"""Hub references on the command line: fetched, named with their commit, and pushed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from mmms_deploy.commands import push, segment, verify
from mmms_deploy.commands.places import check_bundle, check_checkpoint
from mmms_deploy.errors import HubNotFoundError, MMMSDeployError
from tests.standins.hub import TOKEN, Hub
from tests.support.hub import files_of
from tests.support.invoke import invoke


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def tip(hub: Hub, name: str = "a/b") -> str:
    return hub.repositories[name].refs["main"]


def test_a_bundle_is_fetched_and_its_commit_is_said(hub: Hub, paint: Bundle, picture: Path, tmp_path: Path) -> None:
    hub.add("a/b", files_of(paint.path))
    done = invoke(segment.main, "hf://a/b", picture, "--pos", "30,20", "--out", tmp_path / "mask.png")
    assert done.exit_code == 0, done.stderr
    assert f"hf:a/b@{tip(hub)}\n" in done.stderr
    assert "fetching hf:a/b" in done.stderr
    assert f"mmms-verify hf:a/b@{tip(hub)} --all-engines" in done.stdout
    assert np.asarray(Image.open(tmp_path / "mask.png")).any()


def test_a_verification_names_the_commit(hub: Hub, paint: Bundle) -> None:
    hub.add("a/b", files_of(paint.path))
    done = invoke(verify.main, "hf:a/b", "--engine", "onnxruntime")
    assert f"Golden replay of hf:a/b@{tip(hub)}" in " ".join(done.stdout.split())


@pytest.mark.parametrize("reference", ["hf:b", "hf:a/b@", "https://huggingface.co/datasets/a/b", "hf:a/../b"])
def test_a_wrong_reference_is_wrong_usage(reference: str, picture: Path) -> None:
    done = invoke(segment.main, reference, picture, "--pos", "30,20", "--out", "mask.png")
    assert done.exit_code == 2
    assert "no reference to the hub" in done.stderr
    assert "hf:owner/name" in done.stderr


def test_what_is_not_there_is_an_error(hub: Hub, picture: Path) -> None:
    done = invoke(segment.main, "hf:a/b@v1", picture, "--pos", "30,20", "--out", "mask.png")
    assert done.exit_code == 1
    assert "error: hf:a/b@v1 cannot be fetched" in done.stderr
    assert "hf auth login" in done.stderr


def test_the_other_mistakes_come_before_anything_is_fetched(hub: Hub, paint: Bundle, tmp_path: Path) -> None:
    hub.add("a/b", files_of(paint.path))
    done = invoke(segment.main, "hf:a/b", tmp_path / "none.png", "--pos", "30,20", "--out", "mask.png")
    assert done.exit_code == 1
    assert not hub.requests


@pytest.mark.parametrize("address", ["https://example.org/demo", "ftp://example.org/demo.pth"])
def test_another_address_is_no_place_of_ours(address: str) -> None:
    for check in (check_bundle, check_checkpoint):
        with pytest.raises(MMMSDeployError, match="of addresses, those of the hub are understood"):
            check(Path(address))


def test_every_check_knows_references() -> None:
    check_bundle(Path("hf:a/b@v1/folder"))
    check_checkpoint(Path("hf://a/b/weights.pth"))


# --- pushing ----------------------------------------------------------------------------------------------------------


def test_a_bundle_is_pushed_and_the_reference_to_use_is_printed(hub: Hub, paint: Bundle, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = invoke(push.main, paint.path, "me/new", "--license", "mit", "--private")
    assert done.exit_code == 0, done.stderr
    named = f"hf:me/new@{tip(hub, 'me/new')}"
    assert f"{named}: pushed" in done.stdout
    assert f"mmms-segment {named} PHOTO" in done.stdout
    assert hub.repositories["me/new"].private
    assert "pushing to me/new ..." in done.stderr
    assert "%|" not in done.stderr
    again = invoke(push.main, paint.path, "me/new", "--license", "mit")
    assert again.exit_code == 1
    assert "pass --overwrite" in again.stderr
    assert invoke(push.main, paint.path, "me/new", "--license", "mit", "--overwrite").exit_code == 0


def test_a_licence_that_is_not_stated_is_a_warning(hub: Hub, paint: Bundle, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = invoke(push.main, paint.path, "me/new")
    assert done.exit_code == 0
    assert "warning: the model card says that the licence" in done.stderr


@pytest.mark.parametrize("arguments", [("me",), ("me/new@main",), ("me/new", "--license", "a b")])
def test_wrong_usage_of_pushing(paint: Bundle, arguments: tuple[str, ...]) -> None:
    assert invoke(push.main, paint.path, *arguments).exit_code == 2


# --- exporting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(hub: Hub, tmp_path: Path) -> str:
    """A checkpoint on the hub."""
    for name in ("torch", "onnxscript", "safetensors", "timm"):
        pytest.importorskip(name, exc_type=ImportError)
    from mmms_deploy.models.checkpoint import random_network, save_checkpoint
    from tests.support.tiny import tiny_config

    save_checkpoint(tmp_path / "model.safetensors", random_network(tiny_config(), 0))
    hub.add("them/net", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes(), "config.json": b"{}"})
    return "hf:them/net"


def test_a_checkpoint_is_exported_and_pushed(hub: Hub, checkpoint: str, tmp_path: Path, monkeypatch) -> None:
    from mmms_deploy.commands.export import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = invoke(main, "--ckpt", checkpoint, "--push", "me/made", "--license", "cc-by-4.0")
    assert done.exit_code == 0, done.stderr + repr(done.exception)
    source = f"hf:them/net@{tip(hub, 'them/net')}/model.safetensors"
    assert source in done.stderr
    bundle = Bundle("bundles/net")
    provenance = bundle.manifest.provenance
    assert (provenance.checkpoint, provenance.checkpoint_source) == ("model.safetensors", source)
    assert provenance.license == "cc-by-4.0"
    named = f"hf:me/made@{tip(hub, 'me/made')}"
    assert f"{named}: pushed" in done.stdout
    assert Bundle(named).manifest == bundle.manifest
    card = hub.repositories["me/made"].commits[tip(hub, "me/made")]["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert "base_model:\n- them/net\n" in card
    assert "session through" not in card
    assert "| stages against whole" in card


def test_a_repository_that_is_taken_is_found_before_the_export(hub: Hub, checkpoint, tmp_path, monkeypatch) -> None:
    from mmms_deploy.commands.export import main

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("me/taken", {"notes.txt": b"mine"})
    done = invoke(main, "--ckpt", checkpoint, "--push", "me/taken", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "holds files already: notes.txt" in done.stderr
    assert not (tmp_path / "out").exists()
    assert not [path for path in hub.paths() if path.startswith("/them")]


def test_nothing_is_pushed_when_the_gate_fails(hub: Hub, checkpoint, tmp_path, monkeypatch) -> None:
    from mmms_deploy.commands.export import main
    from mmms_deploy.errors import GateError
    from mmms_deploy.export import exporter

    def fails(*_: object) -> None:
        raise GateError("other masks")

    monkeypatch.setattr(exporter, "compare_forms", fails)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = invoke(main, "--ckpt", checkpoint, "--push", "me/made", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "other masks" in done.stderr
    assert "me/made" not in hub.repositories
    assert not hub.paths("PUT")


def test_a_source_in_python_takes_a_reference(hub: Hub, checkpoint: str) -> None:
    from mmms_deploy.evaluation.checkpoint_predictor import open_torch
    from mmms_deploy.export.source import Source, open_source

    source = Source(checkpoint=checkpoint)
    assert source.name == "net"
    hashes = open_source(source).hashes
    contestant, _ = open_torch(f"{checkpoint}@main")
    assert contestant.facts.identity == hashes["checkpoint"]
    hub.add("them/none", {"README.md": b""})
    with pytest.raises(HubNotFoundError, match="holds no file of weights"):
        open_source(Source(checkpoint="hf:them/none"))


@pytest.mark.parametrize("arguments", [("--private",), ("--license", "a b"), ("--push", "x")])
def test_wrong_usage_of_exporting(arguments: tuple[str, ...]) -> None:
    from mmms_deploy.commands.export import main

    assert invoke(main, "--ckpt", "demo", *arguments).exit_code == 2
