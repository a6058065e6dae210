"""Which weights a wheel gets from the cache of who builds it."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path

from tests.support.paths import ROOT

weights_in = runpy.run_path(str(ROOT / "setup.py"))["weights_in"]


def test_a_wheel_gets_the_published_weights_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    for name, content in (("here", b"numbers"), ("other", b"numbers"), ("absent", b"numbers")):
        facts = {"name": name, "sha256": hashlib.sha256(content).hexdigest()}
        (tmp_path / "published" / f"{name}.json").write_text(json.dumps(facts))
    here, other = (tmp_path / "cache" / "weights" / f"{name}.safetensors" for name in ("here", "other"))
    here.write_bytes(b"numbers")
    other.write_bytes(b"other numbers")
    assert weights_in(tmp_path / "cache", tmp_path / "published") == [here]
    assert weights_in(tmp_path / "nowhere", tmp_path / "published") == []
    assert weights_in(None, tmp_path / "published") == []


def test_what_is_known_of_weights_lies_where_a_build_looks() -> None:
    known = sorted((ROOT / "mmms_deploy" / "weights" / "published").glob("*.json"))
    assert known
    assert all(len(json.loads(file.read_bytes())["sha256"]) == 64 for file in known)
