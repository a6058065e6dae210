"""Bundles pushed to the hub: the real client, against a stand-in on 127.0.0.1."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from mmms_deploy import Bundle
from mmms_deploy.bundle import push_bundle
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleError,
    HubAccessError,
    HubError,
    HubReferenceError,
    HubRepositoryExistsError,
    HubUnreachableError,
    MMMSDeployWarning,
)
from mmms_deploy.progress import Progress
from tests.standins.hub import TOKEN, Hub
from tests.support.hub import files_of
from tests.support.toy import write_toy

pytestmark = pytest.mark.filterwarnings("ignore:the weights are random")


@pytest.fixture(autouse=True)
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def pushed(hub: Hub, name: str) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.refs["main"]]


def test_what_was_pushed_opens_by_the_reference_that_is_returned(hub: Hub, paint: Bundle) -> None:
    steps: list[Progress] = []
    named = push_bundle(paint, "me/new", license="MIT", on_progress=steps.append)
    assert named == f"hf:me/new@{hub.repositories['me/new'].refs['main']}"
    assert Bundle(named).manifest == paint.manifest
    assert Bundle("hf:me/new").source == named
    files = pushed(hub, "me/new")
    assert set(files) == {".gitattributes", "README.md", "bundle.json", *paint.manifest.files}
    assert all(files[name] == paint.path.joinpath(name).read_bytes() for name in ("bundle.json", *paint.manifest.files))
    card = files["README.md"].decode()
    assert "license: mit\n" in card
    assert 'Session("hf:me/new")' in card
    assert [step.finished for step in steps] == [False, True]


def test_it_is_one_commit(hub: Hub, paint: Bundle) -> None:
    push_bundle(paint, "me/new", license="mit")
    assert len(hub.repositories["me/new"].commits) == 2  # the hub's own first one
    assert len([path for path in hub.paths("POST") if "/commit/" in path]) == 1


def test_the_repository_is_private_on_request(hub: Hub, paint: Bundle) -> None:
    push_bundle(paint, "me/new", license="mit", private=True)
    assert hub.repositories["me/new"].private
    push_bundle(paint, "me/open", license="mit")
    assert not hub.repositories["me/open"].private
    with pytest.warns(MMMSDeployWarning, match="public: it stays so"):
        push_bundle(paint, "me/open/folder", license="mit", private=True)


def test_an_empty_repository_is_filled(hub: Hub, paint: Bundle) -> None:
    hub.add("me/empty", {".gitattributes": b""})
    push_bundle(paint, "me/empty", license="mit")
    assert "bundle.json" in pushed(hub, "me/empty")


def test_a_repository_with_files_is_refused_without_overwrite(hub: Hub, paint: Bundle) -> None:
    hub.add("me/old", {"README.md": b"mine", "notes.txt": b"mine"})
    with pytest.raises(HubRepositoryExistsError, match=r"README\.md, notes\.txt") as caught:
        push_bundle(paint, "me/old", license="mit")
    assert "overwrite=True" in str(caught.value)
    assert "--overwrite" in caught.value.command_fix
    assert not hub.paths("PUT")
    assert len(hub.repositories["me/old"].commits) == 1


def test_overwrite_replaces_an_older_bundle_and_leaves_the_rest(hub: Hub, paint: Bundle, modal: Bundle) -> None:
    hub.add("me/old", {"notes.txt": b"mine"})
    push_bundle(modal, "me/old", license="mit", overwrite=True)
    assert "modality.fp32.onnx" in pushed(hub, "me/old")
    named = push_bundle(paint, "me/old", license="mit", overwrite=True)
    assert set(pushed(hub, "me/old")) == {"notes.txt", "README.md", "bundle.json", *paint.manifest.files}
    assert Bundle(named).manifest == paint.manifest


def test_several_bundles_in_one_repository(hub: Hub, paint: Bundle, modal: Bundle) -> None:
    push_bundle(paint, "hf:me/both/rgb", license="mit")
    named = push_bundle(modal, "me/both/depth", license="mit")
    assert named == f"hf:me/both@{hub.repositories['me/both'].refs['main']}/depth"
    assert Bundle(named).manifest == modal.manifest
    assert Bundle("hf:me/both/rgb").manifest == paint.manifest
    with pytest.raises(HubRepositoryExistsError, match="hf:me/both/rgb"):
        push_bundle(modal, "me/both/rgb", license="mit")


def test_the_same_again_changes_nothing(hub: Hub, paint: Bundle) -> None:
    push_bundle(paint, "me/new", license="mit")
    files = dict(pushed(hub, "me/new"))
    push_bundle(paint, "me/new", license="mit", overwrite=True)
    assert pushed(hub, "me/new") == files


# --- the card and the licence -----------------------------------------------------------------------------------------


def test_a_licence_that_nobody_stated_is_warned_of(hub: Hub, paint: Bundle) -> None:
    with pytest.warns(MMMSDeployWarning, match="licence of the weights is unknown"):
        push_bundle(paint, "me/new")
    assert "license: unknown\n" in pushed(hub, "me/new")["README.md"].decode()


def test_the_licence_of_the_export_is_taken(hub: Hub, tmp_path, monkeypatch, recwarn) -> None:
    bundle = write_toy(tmp_path / "toy")
    provenance = msgspec.structs.replace(bundle.manifest.provenance, license="bsd-3-clause")
    bundle.manifest = msgspec.structs.replace(bundle.manifest, provenance=provenance)
    push_bundle(bundle, "me/new")
    assert "license: bsd-3-clause\n" in pushed(hub, "me/new")["README.md"].decode()
    assert not [warning for warning in recwarn if "unknown" in str(warning.message)]


def test_an_edited_card_is_taken_as_it_is(hub: Hub, tmp_path) -> None:
    bundle = write_toy(tmp_path / "toy")
    (bundle.path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push_bundle(bundle, "me/new")
    assert pushed(hub, "me/new")["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"
    with pytest.warns(MMMSDeployWarning, match="is not written into it"):
        push_bundle(bundle, "me/other", license="mit")


def test_a_bundle_without_a_card_gets_one(hub: Hub, tmp_path) -> None:
    bundle = write_toy(tmp_path / "toy")
    (bundle.path / "README.md").unlink()
    push_bundle(bundle, "me/new", license="mit")
    assert b"license: mit" in pushed(hub, "me/new")["README.md"]


@pytest.mark.parametrize("given", ["", "a b", "mit\ntags: x", "x" * 80, 3])
def test_what_is_no_licence_is_refused(hub: Hub, paint: Bundle, given: object) -> None:
    with pytest.raises(BundleError, match="no identifier of a licence"):
        push_bundle(paint, "me/new", license=given)  # type: ignore[arg-type]
    assert not hub.requests


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_asked(hub: Hub, paint: Bundle, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubAccessError, match="no token") as caught:
        push_bundle(paint, "me/new", license="mit")
    assert "hf auth login" in str(caught.value)
    assert not hub.requests


def test_a_wrong_token_is_named(hub: Hub, paint: Bundle, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubAccessError, match="refuses the token"):
        push_bundle(paint, "me/new", license="mit")


def test_a_token_that_may_not_write_is_named(hub: Hub, paint: Bundle) -> None:
    hub.forbidden = True
    with pytest.raises(HubAccessError, match="rights to write"):
        push_bundle(paint, "me/new", license="mit")
    assert "me/new" not in hub.repositories


def test_no_answer_is_named(hub: Hub, paint: Bundle) -> None:
    hub.status = 503
    with pytest.raises(HubUnreachableError, match="out of order"):
        push_bundle(paint, "me/new", license="mit")


def test_a_commit_of_somebody_else_in_between_is_not_lost(hub: Hub, paint: Bundle, monkeypatch) -> None:
    repository = hub.add("me/old", {".gitattributes": b""})
    from mmms_deploy.bundle import push

    upload = push.upload

    def after_another(*args: object, **kwargs: object) -> object:
        repository.commit({"theirs.txt": b"x"})
        return upload(*args, **kwargs)

    monkeypatch.setattr(push, "upload", after_another)
    with pytest.raises(HubError, match="commit has happened since"):
        push_bundle(paint, "me/old", license="mit")
    assert set(pushed(hub, "me/old")) == {"theirs.txt"}


def test_a_damaged_bundle_is_not_pushed(hub: Hub, copy) -> None:
    (copy / "golden.npz").write_bytes(b"x")
    with pytest.raises(BundleCorruptError):
        push_bundle(copy, "me/new", license="mit")
    bundle = write_toy(copy.parent / "toy")
    (bundle.path / "golden.npz").write_bytes(b"y")  # after it was opened
    with pytest.raises(BundleCorruptError):
        push_bundle(bundle, "me/new", license="mit")
    assert "me/new" not in hub.repositories
    assert not hub.paths("PUT")


@pytest.mark.parametrize("name", ["new", "me/new@main", "datasets/me/new", "me/new/../x"])
def test_a_name_that_is_none_is_refused_before_anything(hub: Hub, paint: Bundle, name: str) -> None:
    with pytest.raises(HubReferenceError):
        push_bundle(paint, name)
    assert not hub.requests


def test_a_folder_of_a_bundle_is_a_repository_already(hub: Hub, paint: Bundle) -> None:
    """What ``hf upload`` would put there: the folder as it is."""
    hub.add("me/plain", files_of(paint.path))
    assert Bundle("hf:me/plain").manifest == paint.manifest
    assert hashlib.sha256(pushed(hub, "me/plain")["README.md"]).hexdigest() == paint.manifest.card
