"""References to the hub: what they name, and what is no reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.errors import HubReferenceError
from mmms_deploy.hub import HubReference, is_reference, parse_reference, parse_repository, reference_of

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "repository", "path", "revision"),
    [
        ("hf:a/b", "a/b", "", None),
        ("hf://a/b", "a/b", "", None),
        ("HF:a/b", "a/b", "", None),
        ("hf:a/b/", "a/b", "", None),
        ("hf:models/a/b", "a/b", "", None),
        ("hf:a/b@v1.0", "a/b", "", "v1.0"),
        (f"hf:a/b@{SHA}", "a/b", "", SHA),
        ("hf:a/b/c/d.safetensors", "a/b", "c/d.safetensors", None),
        ("hf:a/b@v1/c/d.pth", "a/b", "c/d.pth", "v1"),
        ("hf:a/b/c/d.pth@v1", "a/b", "c/d.pth", "v1"),
        ("hf:a/b/c@topic/x", "a/b", "c", "topic/x"),
        ("hf:a/b@topic%2Fx", "a/b", "", "topic/x"),
        ("hf:a/b@refs/pr/3", "a/b", "", "refs/pr/3"),
        ("hf:a/b@refs/pr/3/c", "a/b", "c", "refs/pr/3"),
        ("https://huggingface.co/a/b", "a/b", "", None),
        ("huggingface.co/a/b", "a/b", "", None),
        ("https://huggingface.co/a/b/tree/main", "a/b", "", "main"),
        ("https://huggingface.co/a/b/blob/v1/c/d.pth", "a/b", "c/d.pth", "v1"),
        ("https://hf.co/a/b/resolve/main/d.pth?download=true", "a/b", "d.pth", "main"),
    ],
)
def test_what_a_reference_names(text: str, repository: str, path: str, revision: str | None) -> None:
    expected = HubReference(repository, path, revision)
    assert is_reference(text)
    assert parse_reference(text) == expected
    # pathlib makes one slash of two, and takes the last one away.
    assert parse_reference(Path(text)) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize("text", ["bundles/demo", "demo", "/a/hf:b", "hfa/b", "hf", "C:/a", "", "https://a.b/c"])
def test_what_is_none(text: str) -> None:
    assert not is_reference(text)


@pytest.mark.parametrize("value", [None, 3, b"hf:a/b"])
def test_what_is_no_text_is_none(value: object) -> None:
    assert not is_reference(value)


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:a",
        "hf:a/",
        "hf:/",
        "hf:a/b@",
        "hf:a/b@x@y",
        "hf:a/../b",
        "hf:../a",
        "hf:a/b/../../c",
        "hf:a/b/./c",
        "hf:a/b//c",
        "hf:a/b@../../x",
        "hf:a/b/c@../x",
        "hf:a/b@-x",
        "hf:a/b@x y",
        "hf:a/b@%2e%2e",
        "hf:a/b--c",
        "hf:a b/c",
        "hf:a/b\\c",
        "hf:a/b/c\x1b[2J",
        "hf:a/b.git",
        "hf:datasets/a/b",
        "hf:spaces/a/b",
        "https://huggingface.co/a",
        "https://huggingface.co/a/b/discussions/3",
        "https://huggingface.co/datasets/a/b",
        "https://huggingface.co/a/b/resolve/main/../../x",
    ],
)
def test_a_wrong_reference_is_named(text: str) -> None:
    assert is_reference(text)
    with pytest.raises(HubReferenceError, match="reference to the hub") as caught:
        parse_reference(text)
    assert "hf:owner/name" in str(caught.value)


def test_a_repository_to_write_to() -> None:
    assert parse_repository("a/b") == HubReference("a/b")
    assert parse_repository("hf:a/b/c") == HubReference("a/b", "c")
    with pytest.raises(HubReferenceError, match="revision v1"):
        parse_repository("a/b@v1")
    with pytest.raises(HubReferenceError, match="the repository 'b' has no owner"):
        parse_repository("b")


def test_a_place_in_the_cache_says_where_it_comes_from(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b-c" / "snapshots" / SHA
    assert reference_of(folder) == HubReference("a/b-c", "", SHA)
    assert str(reference_of(folder / "d" / "e.pth")) == f"hf:a/b-c@{SHA}/d/e.pth"
    assert reference_of(tmp_path) is None
    assert reference_of(tmp_path / "models--a--b" / "snapshots" / "main") is None
