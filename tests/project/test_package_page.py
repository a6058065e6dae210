"""The page of the package stands alone: README.md without links that lead nowhere from there."""

from __future__ import annotations

import re
import runpy
import tomllib

from mmms_deploy import __version__
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
package_page = runpy.run_path(str(ROOT / "setup.py"))["package_page"]
RELATIVE = re.compile(r"\]\((?!https?:|#)")


def test_without_an_address_links_are_text() -> None:
    page = package_page(README, None)
    assert not RELATIVE.search(page)
    assert "![" not in page
    assert "docs/session.md" in page
    assert "](https://arxiv.org/" in page
    assert "](#weights-for-real-work)" in page


def test_with_an_address_links_lead_there() -> None:
    page = package_page(README, "https://example.org/mmms/")
    assert not RELATIVE.search(page)
    assert (
        "![The page of mmms-demo: a photograph, two objects with their clicks, and what ran the last one](https://example.org/mmms/raw/HEAD/docs/images/demo.jpg)"
        in page
    )
    assert "[docs/session.md](https://example.org/mmms/blob/HEAD/docs/session.md)" in page
    assert page.count("](") == README.count("](")


def test_headings_that_the_readme_leads_to_exist() -> None:
    headings = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in README.splitlines()}
    for anchor in re.findall(r"\]\(#([\w-]+)\)", README):
        assert anchor in headings


def test_the_wheel_that_the_readme_names_is_of_this_version() -> None:
    assert set(re.findall(r"mmms_deploy-([\w.]+)-py3", README)) == {__version__}


def test_addresses_are_complete() -> None:
    assert PROJECT["urls"]
    assert all(re.match(r"https?://[\w.-]+/\S", address) for address in PROJECT["urls"].values())
