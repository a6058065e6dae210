"""The run-time half works where torch, timm and onnx do not exist, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle
from tests.support.blocker import BLOCKER
from tests.support.paths import ROOT


def run(script: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *args], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocker_blocks() -> None:
    script = BLOCKER + "\ntry:\n    import onnx\nexcept ImportError as error:\n    print(error)\n"
    assert "onnx is blocked" in run(script)


def test_a_session_without_torch_and_onnx(modal: Bundle, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(np.full((50, 70, 3), 51, dtype=np.uint8)).save(image)
    script = BLOCKER + textwrap.dedent(
        """
        from pathlib import Path
        import numpy as np
        from mmms_deploy import Session
        from mmms_deploy.session.overlay import draw_overlay
        from mmms_deploy.replay.verification import verify

        bundle, image = sys.argv[1:]
        with Session(bundle) as session:
            session.set_image(image, depth=np.ones((50, 70)), event=np.zeros((50, 70, 3)))
            result = session.click(10, 20)
            assert result.mask[20, 10] and result.probability.shape == (50, 70)
            session.undo()
            session.redo()
            draw_overlay(np.zeros((50, 70, 3), np.uint8), session.mask, session.clicks)
        verify(bundle)

        from mmms_deploy.commands import segment, verify
        verify.main([bundle], standalone_mode=False)
        np.save(Path(image).with_name("depth.npy"), np.ones((50, 70)))
        np.save(Path(image).with_name("event.npy"), np.ones((50, 70, 3)))
        modalities = [f"--modality={name}={Path(image).with_name(name)}.npy" for name in ("depth", "event")]
        out = str(Path(image).with_name("mask.png"))
        segment.main([bundle, image, "--pos", "3,4", "--out", out, *modalities], standalone_mode=False)
        print("imported:", sorted(BLOCKED & set(sys.modules)))
        """
    )
    assert "imported: []" in run(script, str(modal.path), str(image))
    assert (tmp_path / "mask.png").is_file()


def test_without_an_engine_the_error_names_the_extra(paint: Bundle) -> None:
    script = textwrap.dedent(
        """
        import sys
        from importlib import metadata

        def version(name):
            raise metadata.PackageNotFoundError(name)

        metadata.version = version
        from mmms_deploy import Session
        from mmms_deploy.errors import EngineUnavailableError
        try:
            Session(sys.argv[1])
        except EngineUnavailableError as error:
            print(error.fix, "onnxruntime" in sys.modules)
        """
    )
    assert run(script, str(paint.path)) == f'pip install -e "{ROOT}[cpu]" False\n'


def test_importing_the_package_imports_nothing_else() -> None:
    script = textwrap.dedent(
        """
        import sys
        before = set(sys.modules)
        import mmms_deploy
        dir(mmms_deploy)
        new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
        print(sorted(new))
        """
    )
    assert run(script) == "['mmms_deploy']\n"


@pytest.mark.parametrize(
    "module", ["commands.segment", "commands.verify", "engines.select", "session", "replay.verification"]
)
def test_engines_are_imported_when_they_are_needed(module: str) -> None:
    script = f"import sys, mmms_deploy.{module}\nprint('onnxruntime' in sys.modules, 'torch' in sys.modules)"
    assert run(script) == "False False\n"


def test_help_needs_no_numpy() -> None:
    script = textwrap.dedent(
        """
        import sys
        from click.testing import CliRunner
        from mmms_deploy.commands import segment, verify
        for command in (segment, verify):
            assert CliRunner().invoke(command.main, ["--help"]).exit_code == 0
        print(sorted({"numpy", "onnxruntime", "PIL"} & set(sys.modules)))
        """
    )
    assert run(script) == "[]\n"


def test_the_public_names() -> None:
    import mmms_deploy

    # What a session returns and what joins it is at the top, beside the session.
    assert {"Annotation", "ClickResult", "CocoWriter", "Detections", "Polygon"} <= set(dir(mmms_deploy))
    for name in mmms_deploy.__all__:
        assert getattr(mmms_deploy, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mmms_deploy.nothing  # noqa: B018
