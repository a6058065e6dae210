"""The text below the options of ``--help``, on a narrow terminal."""

from __future__ import annotations

import shlex

from mmms_deploy.commands.help_text import fitted

COMMAND = "  mmms-segment demo photo.jpg --pos 320,240 --neg 50,60 --out mask.png --overwrite"


def test_what_fits_stays() -> None:
    text = "Examples:\n  mmms-demo\n\n\b\n  image,object,x,y"
    assert fitted(text, 40) == text


def test_a_command_goes_on_behind_a_backslash_and_keeps_options_with_their_values() -> None:
    shown = fitted(COMMAND, 40)
    assert shown.splitlines() == [
        "  mmms-segment demo photo.jpg \\",
        "      --pos 320,240 --neg 50,60 \\",
        "      --out mask.png --overwrite",
    ]
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(COMMAND)


def test_the_second_column_of_a_table_goes_on_below_itself() -> None:
    assert fitted("  short       one two three four five", 26).splitlines() == [
        "  short       one two",
        "              three four",
        "              five",
    ]


def test_a_sentence_goes_on_at_the_left() -> None:
    assert fitted("every form is in mmms-doctor --docs segment:", 30) == "every form is in mmms-doctor\n--docs segment:"


def test_other_lines_are_not_broken() -> None:
    line = '  {"a.jpg": {"cat": [[320, 240, 1]]}}'
    assert fitted(line, 20) == line
