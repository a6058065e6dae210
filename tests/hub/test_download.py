"""Bundles and checkpoints from the hub: the real client, against a stand-in on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import mmms_deploy.hub.client
from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.manifest_file import MOST_MANIFEST, digest_of
from mmms_deploy.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    HubAccessError,
    HubError,
    HubNotFoundError,
    HubReferenceError,
    HubUnreachableError,
    MMMSDeployWarning,
    OutputWriteError,
)
from mmms_deploy.hub import find_checkpoint
from mmms_deploy.progress import Progress
from tests.standins.hub import TOKEN, Hub
from tests.support.hub import environment, files_of
from tests.support.paths import ROOT


@pytest.fixture
def repository(hub: Hub, paint: Bundle):
    """``a/b``, which holds the bundle ``paint`` and what else a repository holds."""
    extra = {".gitattributes": b"*.onnx filter=lfs\n", "README.md": b"# mine", "secret.bin": b"x" * 5000}
    return hub.add("a/b", {**files_of(paint.path), **extra})


def tip(hub: Hub, name: str = "a/b") -> str:
    return hub.repositories[name].refs["main"]


def down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub be where nothing answers."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def only_warning(caught: pytest.WarningsRecorder) -> str:
    assert len(caught) == 1
    return str(caught[0].message)


# --- bundles ----------------------------------------------------------------------------------------------------------


def test_only_what_the_manifest_lists_is_fetched(hub: Hub, repository, paint: Bundle) -> None:
    bundle = Bundle("hf:a/b")
    assert bundle.manifest == paint.manifest
    assert bundle.source == bundle.reference == f"hf:a/b@{tip(hub)}"
    assert Bundle(bundle.path).source == bundle.source  # as with snapshot_download
    assert (paint.source, paint.reference) == (None, str(paint.path))
    assert {file.name for file in bundle.path.iterdir()} == {"bundle.json", *paint.manifest.files}
    assert not [path for path in hub.paths() if "secret" in path or "README" in path]
    assert bundle.path.joinpath("click.fp32.onnx").is_symlink()  # as the hub's cache is laid out


def test_the_manifest_comes_first(hub: Hub, repository) -> None:
    Bundle("hf:a/b")
    files = [path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path]
    assert files[0] == "bundle.json"


def test_a_session_takes_it_and_answers_the_same(hub: Hub, repository, paint: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    masks = []
    for named in (paint.path, "hf:a/b"):
        with Session(named, engine="onnxruntime") as session:
            session.set_image(image)
            masks.append(session.click(30, 20).mask)
    assert np.array_equal(*masks)


def test_an_unchanged_branch_costs_one_request_and_a_commit_none(hub: Hub, repository) -> None:
    commit = Bundle("hf:a/b").source
    hub.requests.clear()
    assert Bundle("hf:a/b").source == commit
    assert hub.paths() == ["/api/models/a/b/revision/main"]
    hub.requests.clear()
    assert Bundle(commit).source == commit
    assert not hub.requests


def test_a_new_commit_is_taken_and_an_old_one_stays_nameable(hub: Hub, repository, paint: Bundle, echo: Bundle) -> None:
    old = Bundle("hf:a/b").source
    repository.commit(files_of(echo.path))
    new = Bundle("hf:a/b")
    assert new.manifest == echo.manifest
    assert new.source == f"hf:a/b@{tip(hub)}" != old
    assert Bundle(old).manifest == paint.manifest
    repository.commit(files_of(paint.path), "v1")
    assert Bundle("hf:a/b@v1").manifest == paint.manifest
    assert Bundle("hf:a/b").manifest == echo.manifest


def test_progress_is_reported_in_kilobytes(hub: Hub, repository, paint: Bundle) -> None:
    steps: list[Progress] = []
    Bundle("hf:a/b", on_progress=steps.append)
    graph = [step for step in steps if step.task == "fetching click.fp32.onnx, kB"]
    kilobytes = -(-paint.manifest.files["click.fp32.onnx"].size // 1000)
    assert {step.total for step in graph} == {kilobytes}
    assert graph[0].done == 0
    assert graph[-1].finished
    assert any(not step.finished and step.done >= kilobytes - 1 for step in graph)


def test_a_client_without_bars_to_replace_is_kept_quiet(hub: Hub, repository, monkeypatch, capfd) -> None:
    """huggingface_hub before 2.0 takes no class of bars."""
    download = huggingface_hub.hf_hub_download
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda repo_id, filename, *, revision, library_name, library_version: download(
            repo_id, filename, revision=revision, library_name=library_name, library_version=library_version
        ),
    )
    steps: list[Progress] = []
    Bundle("hf:a/b", on_progress=steps.append)
    assert any(step.finished for step in steps)
    assert "%|" not in capfd.readouterr().err
    assert not huggingface_hub.utils.are_progress_bars_disabled()


@pytest.mark.parametrize("named", ["hf:a/c/rgb", "hf:a/c@main/rgb", "hf:a/c/rgb@main", "hf:a/c/rgb/bundle.json"])
def test_a_bundle_in_a_folder_of_a_repository(hub: Hub, paint: Bundle, named: str) -> None:
    hub.add("a/c", {f"{name}/{file}": c for name in ("rgb", "old") for file, c in files_of(paint.path).items()})
    bundle = Bundle(named)
    assert bundle.manifest == paint.manifest
    assert bundle.source == f"hf:a/c@{tip(hub, 'a/c')}/rgb"
    assert not [path for path in hub.paths() if "/old/" in path]
    hub.requests.clear()
    Bundle(bundle.source)
    assert not hub.requests


def test_the_only_bundle_of_a_repository_needs_no_folder(hub: Hub, paint: Bundle) -> None:
    hub.add("a/c", {f"rgb/{file}": content for file, content in files_of(paint.path).items()})
    assert Bundle("hf:a/c").source == f"hf:a/c@{tip(hub, 'a/c')}/rgb"


def test_several_bundles_are_listed(hub: Hub) -> None:
    hub.add("a/c", {"rgb/bundle.json": b"{}", "depth/bundle.json": b"{}"})
    with pytest.raises(BundleNotFoundError, match="2 bundles") as caught:
        Bundle("hf:a/c")
    assert "name one: hf:a/c/depth, hf:a/c/rgb" in str(caught.value)


def test_a_repository_without_a_bundle_says_what_to_do_with_its_checkpoint(hub: Hub) -> None:
    hub.add("a/c", {"model.safetensors": b"x"})
    with pytest.raises(BundleNotFoundError, match="holds no bundle") as caught:
        Bundle("hf:a/c")
    assert "mmms-export --ckpt hf:a/c/model.safetensors" in str(caught.value)


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_changed_file_in_the_cache_is_named_and_can_be_repaired(hub: Hub, repository) -> None:
    bundle = Bundle("hf:a/b")
    stored = bundle.path.joinpath("golden.npz").resolve()
    content = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + b"!")
    with pytest.raises(BundleCorruptError, match=r"golden\.npz") as caught:
        Bundle("hf:a/b")
    assert caught.value.fix == f"remove {stored}, and open {bundle.source} again: it is fetched again"
    stored.unlink()
    hub.requests.clear()
    Bundle("hf:a/b")
    assert stored.read_bytes() == content
    assert {path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path} == {"golden.npz"}


@pytest.mark.parametrize("change", ["missing", "longer"])
def test_an_incomplete_bundle_is_refused_before_anything_large_is_fetched(hub: Hub, paint: Bundle, change: str) -> None:
    files = files_of(paint.path)
    if change == "missing":
        del files["golden.npz"]
    else:
        files["golden.npz"] += b"x" * 100_000
    hub.add("a/b", files)
    with pytest.raises(BundleCorruptError, match=r"golden\.npz"):
        Bundle("hf:a/b")
    assert not [path for path in hub.paths() if path.endswith((".onnx", ".npz"))]


def test_a_manifest_that_names_other_places_is_refused(hub: Hub, paint: Bundle) -> None:
    raw = json.loads(paint.path.joinpath("bundle.json").read_bytes())
    raw["files"]["../../../../x"] = {"size": 3, "sha256": "0" * 64}
    raw["digest"] = digest_of(raw)
    hub.add("a/b", {**files_of(paint.path), "bundle.json": json.dumps(raw).encode()})
    with pytest.raises(BundleCorruptError, match="may not name"):
        Bundle("hf:a/b")


def test_a_huge_manifest_is_not_fetched(hub: Hub) -> None:
    hub.add("a/b", {"bundle.json": b" " * (MOST_MANIFEST + 1)})
    with pytest.raises(BundleCorruptError, match="bytes"):
        Bundle("hf:a/b")
    assert len(hub.requests) == 1


def test_what_the_hub_changed_is_noticed(hub: Hub, paint: Bundle) -> None:
    """A file of the right size with other content, as a hub that was broken into would serve it."""
    files = files_of(paint.path)
    files["golden.npz"] = bytes(len(files["golden.npz"]))
    hub.add("a/b", files)
    with pytest.raises(BundleCorruptError, match="SHA-256"):
        Bundle("hf:a/b")


def test_a_download_that_stops_leaves_nothing_half(hub: Hub, repository, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    hub.cut_after = 1500
    with pytest.raises(HubError, match="cannot be fetched"):
        Bundle("hf:a/b", on_progress=lambda step: None)
    whole = files_of(Path(constants.HF_HUB_CACHE))
    assert not [name for name in whole if "/blobs/" in name and "incomplete" not in name and len(whole[name]) == 1500]
    hub.cut_after = None
    Bundle("hf:a/b")


# --- no network, no access --------------------------------------------------------------------------------------------


def test_the_cached_copy_is_taken_with_a_warning_when_the_hub_does_not_answer(hub, repository, monkeypatch) -> None:
    source = Bundle("hf:a/b").source
    down(hub, monkeypatch)
    with pytest.warns(MMMSDeployWarning) as caught:
        assert Bundle("hf:a/b").source == source
    assert f"the copy in the cache is taken, {source}" in only_warning(caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Bundle(source)


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_answer_of_no_use_is_as_none(hub, repository, status: int) -> None:
    Bundle("hf:a/b")
    hub.status = status
    with pytest.warns(MMMSDeployWarning, match="the copy in the cache is taken"):
        Bundle("hf:a/b")


def test_without_a_copy_the_error_says_what_was_tried_and_what_is_there(hub, repository, monkeypatch) -> None:
    source = Bundle("hf:a/b").source
    down(hub, monkeypatch)
    with pytest.raises(HubUnreachableError, match=r"127.0.0.1:9 does not answer") as caught:
        Bundle("hf:a/b@v2")
    assert constants.HF_HUB_CACHE in str(caught.value)
    assert source in str(caught.value)
    with pytest.raises(HubUnreachableError, match="which has nothing of a/z"):
        Bundle("hf:a/z")


def test_offline_mode_asks_nobody(hub, repository, monkeypatch) -> None:
    source = Bundle("hf:a/b").source
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Bundle("hf:a/b").source == Bundle(source).source == source
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE=1"):
        Bundle("hf:a/b@v2")
    Path(Bundle(source).path, "golden.npz").unlink()
    with pytest.raises(HubUnreachableError, match=r"golden.npz of .* is not in the cache"):
        Bundle("hf:a/b")
    assert not hub.requests


def test_a_cache_that_somebody_copied_opens(hub, repository, tmp_path, monkeypatch, paint: Bundle) -> None:
    """Also one without links, as systems without them keep it."""
    source = Bundle("hf:a/b").source
    moved = tmp_path / "moved"
    shutil.copytree(constants.HF_HUB_CACHE, moved, symlinks=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
    hub.requests.clear()
    bundle = Bundle(source)
    assert bundle.path.is_relative_to(moved)
    assert bundle.manifest == paint.manifest
    assert not hub.requests


def test_a_private_repository_asks_for_a_token(hub: Hub, paint: Bundle, monkeypatch) -> None:
    hub.add("a/secret", files_of(paint.path), private=True)
    with pytest.raises(HubAccessError, match="no such repository that everybody may see") as caught:
        Bundle("hf:a/secret")
    assert "hf auth login" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    Bundle("hf:a/secret")
    storage = [request for request in hub.requests if request.path.startswith("/storage")]
    assert storage
    assert not [request for request in storage if "authorization" in {name.lower() for name in request.headers}]


def test_a_wrong_token_is_named_as_one(hub: Hub, repository, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubAccessError, match="refuses the token"):
        Bundle("hf:a/b")


def test_a_gated_repository_says_how_to_get_in(hub: Hub, paint: Bundle) -> None:
    hub.add("a/gated", files_of(paint.path), gated=True)
    with pytest.raises(HubAccessError, match="only who asked") as caught:
        Bundle("hf:a/gated")
    assert "ask for access" in str(caught.value)


def test_what_is_not_there_is_named(hub: Hub, repository, monkeypatch) -> None:
    with pytest.raises(HubNotFoundError, match="no such revision"):
        Bundle("hf:a/b@v9")
    with pytest.raises(HubReferenceError):
        Bundle("hf:b")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(HubNotFoundError, match="no such repository"):
        Bundle("hf:a/other")


def test_another_server_than_a_hub_is_named(hub: Hub, monkeypatch) -> None:
    hub.status = 200
    with pytest.raises(HubError, match=hub.url):
        Bundle("hf:a/b")


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, repository, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputWriteError, match="cannot be written") as caught:
        Bundle("hf:a/b")
    assert "HF_HUB_CACHE" in str(caught.value)


def test_a_token_that_cannot_be_read_is_not_blamed_on_the_cache(hub: Hub, repository, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "file" / "token"))
    with pytest.raises(OutputWriteError, match="token cannot be used") as caught:
        Bundle("hf:a/b")
    assert "set HF_HOME to another folder" in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match="huggingface_hub") as caught:
        Bundle("hf:a/b")
    assert 'pip install "mmms-deploy[hub]"' in str(caught.value)


# --- what is sent -----------------------------------------------------------------------------------------------------


def agents(hub: Hub) -> set[str]:
    return {{name.lower(): value for name, value in request.headers.items()}["user-agent"] for request in hub.requests}


def test_no_telemetry(hub: Hub, repository, monkeypatch) -> None:
    """With it, the library tells the version of torch and looks for the surroundings it runs in."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    Bundle("hf:a/b")
    said = f"mmms-deploy/{mmms_deploy.__version__}; hf_hub/{huggingface_hub.__version__}; python/"
    assert all(agent.startswith(said) and agent.count(";") == 2 for agent in agents(hub))
    assert not [path for path in hub.paths() if "harness" in path or "telemetry" in path]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False  # the program's own calls are its own


def test_the_switch_goes_back_when_the_last_of_several_calls_ends(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    first, second = (mmms_deploy.hub.client.calling("nothing") for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert constants.HF_HUB_DISABLE_TELEMETRY is True
    second.__exit__(None, None, None)
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_a_child_that_is_forked_in_the_middle_of_a_call_can_call(hub: Hub, repository) -> None:
    Bundle("hf:a/b")
    with mmms_deploy.hub.client._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if mmms_deploy.hub.client._lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_telemetry_that_is_wanted_stays(hub: Hub, repository, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("MMMS_DEPLOY_TELEMETRY", "1")
    with mmms_deploy.hub.client.calling("nothing") as library:
        assert library.constants.HF_HUB_DISABLE_TELEMETRY is False


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "named", "found"),
    [
        (["model.safetensors", "config.json"], "hf:a/w", "model.safetensors"),
        (["model.safetensors", "pytorch_model.bin"], "hf:a/w", "model.safetensors"),
        (["weights.pth"], "hf:a/w", "weights.pth"),
        (["x/a.pth", "y/b.pth"], "hf:a/w/y", "y/b.pth"),
        (["x/a.pth", "y/b.pth"], "hf:a/w@main/x/a.pth", "x/a.pth"),
    ],
)
def test_which_file_is_the_checkpoint(hub: Hub, files: list[str], named: str, found: str) -> None:
    hub.add("a/w", {name: name.encode() for name in files})
    file = find_checkpoint(named)
    assert file.as_posix().endswith(f"snapshots/{tip(hub, 'a/w')}/{found}")
    assert file.read_bytes() == found.encode()
    assert len([path for path in hub.paths("GET") if "/resolve/" in path]) == 1


def test_several_checkpoints_are_listed(hub: Hub) -> None:
    hub.add("a/w", {"a.pth": b"a", "b.pth": b"b"})
    with pytest.raises(HubNotFoundError, match="2 files of weights") as caught:
        find_checkpoint("hf:a/w")
    assert "name one: hf:a/w/a.pth, hf:a/w/b.pth" in str(caught.value)


def test_no_checkpoint_is_named(hub: Hub) -> None:
    hub.add("a/w", {"README.md": b"a"})
    with pytest.raises(HubNotFoundError, match="no file of weights"):
        find_checkpoint("hf:a/w")
    with pytest.raises(HubNotFoundError, match="is not there"):
        find_checkpoint("hf:a/w/b.pth")


def test_a_cached_checkpoint_needs_no_network(hub: Hub, monkeypatch) -> None:
    hub.add("a/w", {"a.pth": b"a"})
    file = find_checkpoint("hf:a/w")
    commit = tip(hub, "a/w")
    hub.requests.clear()
    assert find_checkpoint(f"hf:a/w@{commit}/a.pth") == file
    assert not hub.requests
    down(hub, monkeypatch)
    assert find_checkpoint(f"hf:a/w@{commit}") == file  # the name is looked up in the cache
    with pytest.warns(MMMSDeployWarning, match="copy in the cache"):
        assert find_checkpoint("hf:a/w") == file


# --- processes --------------------------------------------------------------------------------------------------------


def test_two_processes_fetch_at_once(hub: Hub, repository, tmp_path, paint: Bundle) -> None:
    """With the client's own environment, as users set it."""
    code = (
        "from mmms_deploy.bundle import Bundle; b = Bundle('hf:a/b', on_progress=lambda step: None);"
        " print(b.source, b.manifest.digest)"
    )
    cache = tmp_path / "shared"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **environment(hub, cache, token=None)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert said == [f"hf:a/b@{tip(hub)} {paint.manifest.digest}\n"] * 2
