"""The tree of errors at the top of mmms_deploy/errors.py is the tree of the classes."""

from __future__ import annotations

import inspect

import pytest

from mmms_deploy import errors

EXCEPTIONS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


def test_the_printed_tree_is_the_tree_of_classes() -> None:
    found: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        name = line.strip()
        if not name.endswith(("Error", "Warning")) or " " in name:
            continue
        path[(len(line) - len(name)) // 4 - 1 :] = [name]
        found[name] = path[-2] if len(path) > 1 else ""
    roots = {errors.MMMSDeployError, errors.MMMSDeployWarning}
    assert found == {cls.__name__: "" if cls in roots else cls.__base__.__name__ for cls in EXCEPTIONS}


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_error_says_what_it_means(kind: type[Exception]) -> None:
    assert kind.__doc__
    assert kind.__doc__ != kind.__base__.__doc__  # type: ignore[union-attr]
