from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from mmms_deploy import Bundle, open_engine
from mmms_deploy.bundle import Precision
from mmms_deploy.commands.verify import main
from mmms_deploy.engines.explain import reason
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose
from mmms_deploy.errors import MMMSDeployWarning
from mmms_deploy.replay import verification
from mmms_deploy.replay.golden import GoldenCase
from tests.support.golden_cases import golden, spoiled
from tests.support.invoke import invoke
from tests.support.toy import write_toy


def verify(*args: object) -> Result:
    return invoke(main, *args)


def test_a_good_bundle(tmp_path: Path, paint: Bundle) -> None:
    case = golden(paint)
    write_toy(tmp_path / "good", golden=[case, case])
    result = verify(tmp_path / "good", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "passed: 6 clicks on OpenVINO" in result.stdout
    assert "smallest IoU 1.0000, limit 0.99" in result.stdout
    assert result.stdout.count("1.0000") == 3


def test_what_was_found_is_remembered(tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    good = write_toy(tmp_path / "good", golden=[golden(paint)])
    assert "nothing was measured here yet" in verify(good.path, "--limit", "0.5").stdout
    assert "nothing was measured here yet" in verify(good.path).stdout, "another limit says nothing"
    assert "passed the golden replay here" in verify(good.path).stdout
    assert "passed the golden replay here" in choose_reason(good)

    bad = write_toy(tmp_path / "bad", golden=[spoiled(golden(paint), 2)])
    assert verify(bad.path, "--engine", "openvino").exit_code == 1
    with pytest.warns(MMMSDeployWarning, match="openvino in fp32 failed the golden replay"):
        open_engine(bad, engine="openvino").close()


def choose_reason(bundle: Bundle) -> str:
    return reason(choose(bundle, EngineRequest()))


def test_another_mask(tmp_path: Path, paint: Bundle) -> None:
    case = golden(paint)
    write_toy(tmp_path / "bad", golden=[case, spoiled(case, 2)])
    result = verify(tmp_path / "bad")
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "1 of 6 golden clicks" in result.stderr
    assert "image 2, click 3" in result.stderr
    assert verify(tmp_path / "bad", "--limit", "0.1").exit_code == 0
    assert verify(tmp_path / "bad", "--limit", "1.5").exit_code == 2


def test_changed_hash(copy: Path) -> None:
    file = copy / "golden.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = verify(copy)
    assert result.exit_code == 1
    assert "SHA-256" in result.stderr
    assert "Traceback" not in result.output


def test_no_bundle_and_no_replay(tmp_path: Path, paint: Bundle) -> None:
    assert verify(tmp_path).exit_code == 1
    assert verify().exit_code == 2
    outside = golden(paint)
    outside = GoldenCase(
        image=outside.image, clicks=outside.clicks - np.float32(500), masks=outside.masks, certain=outside.certain
    )
    write_toy(tmp_path / "outside", golden=[outside])
    result = verify(tmp_path / "outside")
    assert result.exit_code == 1
    assert "does not fit its bundle" in result.stderr


def test_every_engine(tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    case = golden(paint)
    good = write_toy(tmp_path / "good", golden=[case])
    result = verify(good.path, "--all-engines", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "onnxruntime" in result.stdout
    assert re.search(
        r"--device auto takes \w+ in \w+: the fastest of \d that passed the golden replay here", result.stdout
    )
    result = verify(good.path)
    assert re.search(r"engine   .*\n         the fastest of \d that passed", result.stdout)

    write_toy(tmp_path / "bad", golden=[spoiled(case, 1)])
    result = verify(tmp_path / "bad", "--all-engines")
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "openvino and onnxruntime did not pass the golden replay" in result.stderr


def test_a_precision_that_gives_other_masks_is_said_not_to_be_taken(
    tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_toy(tmp_path / "good", golden=[golden(paint)])
    passed = verification.replay_engines(good)
    (failed, *_) = verification.replay_engines(write_toy(tmp_path / "bad", golden=[spoiled(golden(paint), 1)]))
    found = (*passed, replace(failed, precision=Precision.BF16))
    monkeypatch.setattr(verification, "replay_engines", lambda *given, **options: found)
    result = verify(good.path, "--all-engines")
    assert result.exit_code == 0, result.output
    said = f"{failed.engine} in bf16 gives other masks than the checkpoint here: --device auto does not take it"
    assert result.stdout.count("gives other masks") == 1
    assert said in result.stdout


def test_every_engine_goes_alone(paint: Bundle) -> None:
    for option in (["--engine", "openvino"], ["--precision", "fp32"], ["--limit", "0.5"], ["--strict"]):
        result = verify(paint.path, "--all-engines", *option)
        assert result.exit_code == 2
        assert "--all-engines goes without" in result.stderr


def test_every_engine_without_a_cache(tmp_path: Path, paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    result = verify(write_toy(tmp_path / "good", golden=[golden(paint)]).path, "--all-engines")
    assert result.exit_code == 0
    assert "warning: nothing could be kept" in result.stderr
    assert "nothing was measured here yet" in result.stdout


def test_help() -> None:
    result = verify("--help")
    assert result.exit_code == 0
    assert "mmms-verify demo" in result.stdout
