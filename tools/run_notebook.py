"""Runs ``examples/notebook.ipynb`` and stores what it shows: code hosts show the pictures to readers who do not run it.

    python tools/run_notebook.py

Run it after a change of the notebook or of what notebooks show. The cache is in a folder of a neutral name, because a
bundle shows where it lies.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
CACHE = "/home/user/.cache/mmms-deploy"


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder, and return it with its outputs and nothing about this machine.

    Args:
        notebook: The notebook; stays as it is.
        folder: Where its code runs.
    """
    copy = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    # The kernel listens on this machine only, and would warn of that in the last cell.
    client = NotebookClient(
        copy,
        kernel_name="python3",
        timeout=120,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    done: nbformat.NotebookNode = client.execute()
    for cell in done.cells:
        cell.metadata.pop("execution", None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    done.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})  # type: ignore[no-untyped-call]
    return done


def main() -> None:
    """Run the notebook and write it back."""
    os.environ["MMMS_DEPLOY_CACHE"] = CACHE
    with tempfile.TemporaryDirectory() as folder:
        done = executed(nbformat.read(NOTEBOOK, as_version=4), Path(folder))  # type: ignore[no-untyped-call]
    nbformat.write(done, NOTEBOOK)  # type: ignore[no-untyped-call]
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
