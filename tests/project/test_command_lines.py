"""The commands in the documents and in ``--help`` can be given as written: the commands themselves parse them."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from PIL import Image

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from tests.support.documents import ORIGINALS, PROJECT, blocks, command_lines, inline_code
from tests.support.invoke import invoke
from tests.support.paths import ROOT
from tests.support.toy import write_toy

MODULES = {name: target.rpartition(":")[2] for name, target in PROJECT["scripts"].items()}
MODULE = {"evaluate": "eval"}
OTHERS = {
    "--gpus": "docker",
    "--preload": "gunicorn",
}
"""Options of other programs that the documents name."""


def command(name: str) -> click.Command:
    """The command of that name, such as ``mmms-segment``."""
    function = MODULES[name]
    main = import_module(f"mmms_deploy.commands.{MODULE.get(function, function)}").main
    assert isinstance(main, click.Command)
    return main


def subcommands(found: click.Command) -> list[click.Command]:
    """The subcommands of a command; none but of a group."""
    return list(found.commands.values()) if isinstance(found, click.Group) else []


def options(name: str) -> set[str]:
    """Every option of a command, and of its subcommands."""
    found = command(name)
    each = (found, *subcommands(found))
    # Without its own settings, a command keeps the help option of this context, which has no -h.
    parameters = [one for it in each for one in it.get_params(click.Context(it, **it.context_settings))]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def parsed(words: list[str]) -> None:
    """Parse the words of a command.

    Raises:
        click.ClickException: The command does not take them.
    """
    found = command(words[0])
    context = found.make_context(words[0], words[1:])
    if isinstance(found, click.Group):
        name, sub, rest = found.resolve_command(context, words[1:])
        assert sub is not None
        sub.make_context(name, rest, parent=context)


def in_document(path: Path) -> list[list[str]]:
    """The commands of ours in the fenced blocks of a document."""
    found = [words for block in blocks(path, "sh", "bash", "text", "") for words in command_lines_of(block.text)]
    return [words for words in found if words[0] in MODULES]


def command_lines_of(text: str) -> list[list[str]]:
    """The commands in a block, which may also be a drawing or a message."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.lstrip().startswith(("mmms-", "$ mmms-"))]
    return [words for line in lines for words in command_lines(line.replace("$ ", "", 1))]


LINES = [(path.relative_to(ROOT).as_posix(), words) for path in ORIGINALS for words in in_document(path)]
HELP = [
    (name, words)
    for name in MODULES
    for found in (command(name), *subcommands(command(name)))
    for words in command_lines_of(found.epilog or "")
]


@pytest.mark.parametrize(("where", "words"), [*LINES, *HELP], ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_takes_its_line(where: str, words: list[str]) -> None:
    try:
        parsed(words)
    except click.ClickException as error:
        pytest.fail(f"{where}: {' '.join(words)}: {error.format_message()}")


def test_lines_were_found() -> None:
    assert len(LINES) > 10
    assert {name for name, _ in HELP} == set(MODULES)


@pytest.mark.parametrize(
    "line",
    ["mmms-verify bundles/demo --every-engine", "mmms-segment bundles/demo photo.jpg --pos", "mmms-bench a b c"],
)
def test_a_line_that_is_wrong_is_found(line: str) -> None:
    (words,) = command_lines_of(f"$ {line} | head -1  # a comment")[:1]
    with pytest.raises(click.ClickException):
        parsed(words)


@pytest.mark.parametrize("path", ORIGINALS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_options_exist(path: Path) -> None:
    """A command between backticks has these options, and an option by itself is one of some command or script."""
    known = {option for name in MODULES for option in options(name)} | set(OTHERS) | _options_of_scripts()
    for code in inline_code(path):
        name = code.partition(" ")[0]
        if name not in MODULES and not name.startswith("-"):
            continue  # a line of another program
        given = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)
        there = options(name) if name in MODULES else known
        assert set(given) <= there, code


def _options_of_scripts() -> set[str]:
    scripts = [
        file for folder in ("benchmarks", "tools", "training", "examples") for file in (ROOT / folder).glob("*.py")
    ]
    return {option for file in scripts for option in re.findall(r'"(--[a-z][a-z0-9-]*)"', file.read_text())}


@pytest.mark.parametrize("path", ORIGINALS, ids=lambda p: str(p.relative_to(ROOT)))
def test_scripts_in_the_documents_exist(path: Path) -> None:
    """``python FOLDER/FILE.py --option`` and ``python -m MODULE --option``: the file exists and knows the option."""
    for block in blocks(path, "sh", "bash"):
        for words in command_lines(block.text):
            if Path(words[0]).name not in ("python", "python3") or len(words) < 2 or words[1] == "-c":
                continue
            module = words[1] == "-m"
            target = words[2].replace(".", "/") + ".py" if module else words[1]
            if module and (words[2] in ("pip", "pytest") or words[2].partition(".")[0] in sys.stdlib_module_names):
                continue
            file = ROOT / target
            assert file.is_file(), f"{block.where}: {target}"
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            text = file.read_text()
            assert all(f'"{option}"' in text for option in given), f"{block.where}: {given}"


SEGMENTING = {
    path.relative_to(ROOT).as_posix(): lines
    for path in ORIGINALS
    if (lines := [words for words in in_document(path) if words[0] == "mmms-segment" and set(words) & {"demo"}])
}
"""The lines of each document that segment with the bundle of the package."""


@pytest.mark.parametrize("name", SEGMENTING)
def test_segmenting_works_when_typed_from_the_top(
    name: str, paint: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one folder, with a reader's pictures and with the lists of clicks that the document shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(paint.path)  # quicker than the real one
    (tmp_path / "bundles").mkdir()
    write_toy(tmp_path / "bundles" / "demo-thermal", modalities=(ModalitySpec(name="thermal", optional=True),))
    for picture in ("photo.jpg", "photos/a.jpg", "photos/b.jpg", "more/a.jpg", "thermal/a.png", "thermal/b.png"):
        (tmp_path / picture).parent.mkdir(exist_ok=True)
        mode = "L" if picture.startswith("thermal") else "RGB"
        Image.new(mode, (640, 480), 90 if mode == "L" else (90, 120, 150)).save(tmp_path / picture)
    for kind in ("csv", "json"):
        for block in blocks(ROOT / name, kind)[:1]:
            (tmp_path / f"clicks.{kind}").write_text(block.text)
    for words in [words for words in in_document(ROOT / name) if words[0] == "mmms-segment"]:
        done = invoke(command(words[0]), *words[1:])
        assert done.exit_code == 0, f"{' '.join(words)}: {done.output} {done.stderr}"


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mmms-verify"], "Missing argument 'BUNDLE'. For example: mmms-verify "),
        (["mmms-package", "demo"], "Missing option '--out'. For example: mmms-package "),
        (["mmms-serve", "cvat", "demo"], "Missing option '--out'. For example: mmms-serve cvat "),
        (["mmms-replay"], "For example: mmms-replay "),
    ],
)
def test_what_is_missing_is_shown_by_an_example(words: list[str], said: str) -> None:
    result = invoke(command(words[0]), *words[1:])
    assert result.exit_code == 2
    assert said in result.stderr
    found = command(words[0])
    if isinstance(found, click.Group):
        found = found.commands[words[1]]
    example = result.stderr.partition("For example: ")[2].strip()
    assert example in (found.epilog or "")


# --- help on a terminal of 80 columns ---------------------------------------------------------------------------------

SHOWN = [
    (name, *words) for name in MODULES for words in ((), *((sub,) for sub in getattr(command(name), "commands", {})))
]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_help_fits_and_its_examples_can_be_copied(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = command(words[0])
    shown = invoke(found, *words[1:], "--help").stdout
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    for word in words[1:]:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    assert found.epilog
    assert command_lines_of(shown.partition("Examples:")[2]) == command_lines_of(found.epilog.partition("Examples:")[2])
