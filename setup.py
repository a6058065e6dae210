"""Makes the page of the package from README.md; everything else is in pyproject.toml.

A page of a package index has no files beside it. Where ``[project.urls]`` has a Repository, links and pictures lead
there; without one, links become plain text and pictures are left out.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", re.MULTILINE)
_LINK = re.compile(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<target>[^)]*)\)")


def package_page(readme: str, repository: str | None) -> str:
    """Return README.md as a page that stands alone.

    Args:
        readme: Its text.
        repository: Address of the repository, as GitHub and GitLab lay out theirs; None when it has none.
    """
    if repository is None:
        return _LINK.sub(lambda link: link["text"], _PICTURE.sub("", readme))
    root = repository.rstrip("/")

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["mark"] else "blob"
        return f"{link['mark']}[{link['text']}]({root}/{kind}/HEAD/{link['target']})"

    return _LINK.sub(absolute, readme)


if __name__ == "__main__":
    from setuptools import setup

    here = Path(__file__).parent
    project = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = package_page((here / "README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Repository"))
    setup(long_description=text, long_description_content_type="text/markdown")
