"""``mmms-export`` for an encoder and a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mmms_deploy.bundle import Bundle
from mmms_deploy.commands.export import main
from mmms_deploy.export.pair.known import PAIRS


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    return result.exit_code, " ".join(result.output.split())


def test_two_files_and_a_description_become_a_bundle(
    pair: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run("--encoder", pair[0], "--decoder", pair[1], "--description", pair[2])
    assert code == 0, text
    assert "the nodes of both files are as they were" in text
    assert Bundle(tmp_path / "bundles" / "pair").manifest.clicks.candidates == 3


def test_a_pair_is_fetched_by_its_name(
    pair: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the network: the package's files are stood in for by the small pair's."""
    known = PAIRS["sam2-tiny"]
    files = {known.encoder: pair[0], known.decoder: pair[1]}
    monkeypatch.setattr("mmms_deploy.export.pair.known.npm_package", lambda *_, **__: files)
    code, text = run("--ckpt", "sam2-tiny", "--out", tmp_path / "one")
    assert code == 1
    assert "it has the SHA-256" in text, "the description is pinned to the package's own files"
    code, text = run("--ckpt", "sam2-tiny", "--description", pair[2], "--out", tmp_path / "two")
    assert code == 0, text
    assert Bundle(tmp_path / "two").manifest.provenance.checkpoint_source == f"npm:{known.package}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "E"], "--encoder FILE and --decoder FILE go together"),
        (["--encoder", "E", "--decoder", "D", "--ckpt", "demo"], "give --encoder and --decoder, or --ckpt"),
        (["--encoder", "E", "--decoder", "D", "--size", "448"], "--size is for a network in PyTorch"),
        (["--ckpt", "sam2-tiny", "--precision", "fp32,fp16"], "--precision is for a network in PyTorch"),
        (["--encoder", "E", "--decoder", "nowhere.onnx"], "--decoder: there is no file nowhere.onnx"),
        (["--encoder", "E", "--decoder", "D"], "nothing says what goes into the encoder and the decoder"),
    ],
)
def test_mistakes_are_said(pair: tuple[Path, Path, Path], tmp_path: Path, words: list[str], said: str) -> None:
    given = [{"E": str(pair[0]), "D": str(pair[1])}.get(word, word) for word in words]
    code, text = run(*given, "--out", tmp_path / "bundle")
    assert code != 0
    assert said in text
    assert not (tmp_path / "bundle").exists()
