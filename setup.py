"""Makes the page of the package from README.md, and packs published weights; everything else is in pyproject.toml.

A page of a package index has no files beside it. Where ``[project.urls]`` has a Repository, links and pictures lead
there; without one, links become plain text and pictures are left out.

A wheel gets the canonical files of published weights (``mmms_deploy/weights/``) that this user's cache has, as
``mmms-weights NAME`` leaves them there, or that lie in ``mmms_deploy/weights/files/``. Without them it is smaller, and
complete all the same: they are fetched when they are needed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
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


def weights_in(cache: Path | None, published: Path) -> list[Path]:
    """Return the canonical files of weights that a cache has, with the numbers that were published.

    Args:
        cache: The cache folder of this user; None when it is off.
        published: The folder with what is known of published weights, ``NAME.json`` of each.
    """
    found = []
    for known in sorted(published.glob("*.json")) if cache is not None else ():
        file = cache / "weights" / f"{known.stem}.safetensors"
        sha256 = json.loads(known.read_bytes())["sha256"]
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            found.append(file)
    return found


if __name__ == "__main__":
    from setuptools import setup
    from setuptools.command.build_py import build_py

    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    from mmms_deploy.files.cache import cache_folder

    class BuildWithWeights(build_py):
        """Copies weights of the cache into what a wheel is made of."""

        def run(self) -> None:
            """Build, and copy."""
            super().run()
            if not self.editable_mode:
                folder = Path(self.build_lib) / "mmms_deploy" / "weights" / "files"
                for file in weights_in(cache_folder(), here / "mmms_deploy" / "weights" / "published"):
                    folder.mkdir(exist_ok=True)
                    shutil.copyfile(file, folder / file.name)

    project = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = package_page((here / "README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Repository"))
    setup(cmdclass={"build_py": BuildWithWeights}, long_description=text, long_description_content_type="text/markdown")
