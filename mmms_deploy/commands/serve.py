"""``mmms-serve``: a bundle behind another tool's server; each subcommand has a module of its own."""

from __future__ import annotations

import click

from mmms_deploy.commands.command import Group
from mmms_deploy.commands.serve_cvat import cvat
from mmms_deploy.commands.serve_triton import run_triton, triton


@click.group(
    cls=Group,
    commands={"cvat": cvat, "triton": triton, "triton-run": run_triton},
    epilog="""\b
Examples:
  mmms-serve triton demo --out triton
  mmms-serve triton-run triton

\b
Each of them says more: mmms-serve triton --help""",
)
def main() -> None:
    """Serve a bundle to another tool, or write what that tool's server reads."""


if __name__ == "__main__":
    main()
