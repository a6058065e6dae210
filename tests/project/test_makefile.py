"""What ``make demo`` and ``make quick`` print at their end are commands that exist, with files that are there."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib

import pytest

from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
GO_ON = re.findall(r'@echo "  (.+)"', MAKEFILE.partition("define go_on")[2].partition("endef")[0])
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("target", ["demo", "quick"])
def test_both_targets_end_with_how_to_go_on(target: str) -> None:
    recipe = MAKEFILE.partition(f"\n{target}:")[2].partition("\n\n")[0]
    assert recipe.rstrip().splitlines()[-1].strip().startswith("$(call go_on,")


@pytest.mark.parametrize("made", [".cpu", ".export"])
def test_an_install_says_what_it_does_and_shows_its_progress(made: str) -> None:
    said, command = MAKEFILE.partition(f"\n$(VENV)/{made}:")[2].splitlines()[1:3]
    assert said.startswith('\t@echo "Installing ')
    assert "pip install" in command
    assert " -q " not in command


def test_the_environment_is_activated_first_and_three_commands_follow() -> None:
    assert GO_ON[0] == "source $(BIN)/activate"
    assert len(GO_ON) == 4


@pytest.mark.parametrize("line", GO_ON[1:])
def test_the_commands_that_follow_exist(line: str) -> None:
    """Parsed as their command would, with the bundle that ships with the package."""
    values = {"(1)": "demo", "(PHOTO)": "docs/images/photo.jpg", "(OUT)": "demo-out"}
    name, *arguments = shlex.split(re.sub(r"\$(\(\w+\))", lambda found: values[found[1]], line))
    assert name in SCRIPTS
    module = "eval" if name == "mmms-eval" else name.removeprefix("mmms-")
    command = importlib.import_module(f"mmms_deploy.commands.{module}").main
    command.make_context(name, arguments)
    assert all((ROOT / part).is_file() for part in arguments if part.startswith("docs/"))
