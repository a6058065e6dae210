from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from mmms_deploy import Bundle
from mmms_deploy.bench import arithmetic
from mmms_deploy.bench.peak import measure_peak
from mmms_deploy.bench.report import encode
from mmms_deploy.commands.bench import main
from tests.support.bench_reports import metrics, report
from tests.support.blocker import BLOCKER
from tests.support.paths import ROOT

QUICK = ["--clicks", "2", "--images", "1", "--image-size", "20x30", "--threads", "1", "--no-eager"]


def bench(*args: object) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(main, [str(arg) for arg in args])


@pytest.fixture
def quick(monkeypatch) -> None:
    """Small matrices, so that measuring the machine's peak takes no seconds."""
    monkeypatch.setattr(arithmetic, "measure_peak", lambda *given, **options: measure_peak(*given, size=16))


def test_measuring_a_bundle(tmp_path: Path, paint: Bundle, quick) -> None:
    new, page = tmp_path / "new.json", tmp_path / "new.html"
    result = bench(paint.path, *QUICK, "--json", new, "--html", page, "--sweep", "threads")
    assert result.exit_code == 0, result.output
    for expected in ("click, whole Session.click", "switched off with --no-eager", "Xeon E5-2697 v4", "1 session at"):
        assert expected in " ".join(result.stdout.split())  # however wide the terminal is
    assert json.loads(new.read_bytes())["workload"]["image_size"] == [20, 30]
    ElementTree.fromstring(page.read_text().partition("\n")[2])
    again = bench("--load", new, "--compare", new)
    assert again.exit_code == 0, again.output
    assert "then" in again.stdout  # "now / then", where the terminal is wide enough


def test_a_recipe(tmp_path: Path, monkeypatch, paint: Bundle) -> None:
    monkeypatch.chdir(tmp_path)
    assert "one of demo, demo-small, rgb" in bench("--recipe", "nothing").stderr
    monkeypatch.setitem(sys.modules, "mmms_deploy.export.exporter", None)
    monkeypatch.delattr("mmms_deploy.export.exporter", raising=False)
    result = bench("--recipe", "rgb")
    assert result.exit_code == 1
    assert 'pip install "mmms-deploy[export,cpu]"' in result.stderr
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "mmms-rgbd").symlink_to(paint.path)
    result = bench("--recipe", "rgbd")
    assert result.exit_code == 1
    assert "is not full-size MMMS, DINOv2-B14, RGB and depth" in result.stderr
    assert bench("--recipe", "mmms-rgbd").stderr == result.stderr


def test_a_regression_is_an_error(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_bytes(encode(report()))
    new.write_bytes(encode(report(metrics=metrics(click_total=22.0))))
    result = bench("--load", new, "--compare", old)
    assert result.exit_code == 1
    assert "regression" in result.stdout
    assert "click (2.00 x)" in result.stderr
    assert bench("--load", new, "--compare", old, "--threshold", "2.5").exit_code == 0
    assert bench("--load", old, "--compare", new).exit_code == 0


def test_other_networks_are_compared_only_with_a_warning(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_bytes(encode(report()))
    facts = report().bundle
    other = type(facts)(**{**{f: getattr(facts, f) for f in facts.__struct_fields__}, "network": "m" * 64})
    new.write_bytes(encode(report(bundle=other)))
    page = tmp_path / "page.html"
    result = bench("--load", new, "--compare", old, "--html", page)
    assert result.exit_code == 1
    assert "network" in result.stderr
    assert "--anyway" in result.stderr
    assert "now / then" not in result.stdout
    assert "Now against then" not in page.read_text()
    result = bench("--load", new, "--compare", old, "--anyway", "--html", page)
    assert result.exit_code == 0, result.output
    assert "warning: these runs are of different things: network" in result.stderr
    assert "Now against then" in page.read_text()


@pytest.mark.parametrize(
    ("args", "code", "match"),
    [
        ((), 2, "Give one of"),
        (("a", "--recipe", "demo"), 2, "Give one of"),
        (("--load", "new.json", "--json", "new.json"), 2, "different files"),
        (("a", "--json", "x", "--html", "x"), 2, "different files"),
        (("a", "--clicks", "0"), 2, "clicks"),
        (("a", "--threshold", "0.5"), 2, "threshold"),
        (("a", "--sweep", "cores"), 2, "sweep"),
        (("a", "--image-size", "big"), 2, "no size"),
        (("nowhere",), 1, "no bundle at"),
        (("--load", "nowhere.json"), 1, "cannot be read"),
        (("a", "--compare", "nowhere.json"), 1, "cannot be read"),
        (("a", "--json", "nowhere/new.json"), 1, "does not exist"),
    ],
)
def test_wrong_usage(tmp_path: Path, monkeypatch, args, code, match) -> None:
    monkeypatch.chdir(tmp_path)
    result = bench(*args)
    assert result.exit_code == code, result.output
    assert match in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_device_without_an_engine(paint: Bundle) -> None:
    result = bench(paint.path, *QUICK, "--device", "cuda")
    assert result.exit_code == 1
    assert "cuda" in result.stderr


def test_without_torch_and_onnx(paint: Bundle, tmp_path: Path) -> None:
    script = BLOCKER + textwrap.dedent(
        """
        import mmms_deploy.bench.run
        print(sorted({"onnxruntime", "openvino"} & set(sys.modules)))
        from mmms_deploy.commands import bench
        from mmms_deploy.bench.run import run_bench, Settings
        from mmms_deploy.engines.request import EngineRequest
        from pathlib import Path
        settings = Settings(EngineRequest(threads=1), clicks=2, images=1, image_size=(20, 30), matrix=16)
        report = run_bench(Path(sys.argv[1]), settings)
        print({m.key: m.why for m in report.metrics if m.why})
        print(sorted(BLOCKED & set(sys.modules)))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(paint.path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engines, reasons, blocked = done.stdout.splitlines()
    assert engines == blocked == "[]"
    assert "onnx package is not installed" in reasons
    assert "PyTorch cannot be imported" in reasons


def test_help_needs_no_numpy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from mmms_deploy.commands import bench\n"
        "assert CliRunner().invoke(bench.main, ['--help']).exit_code == 0\n"
        "print(sorted({'numpy', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
