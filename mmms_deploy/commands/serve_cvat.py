"""``mmms-serve cvat``: a nuclio function for CVAT's community server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, warn, wrong_usage
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Text
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.serve_settings import settings_of, settings_option

if TYPE_CHECKING:
    from mmms_deploy.engines.request import EngineRequest


@command(
    epilog="""\b
Examples:
  pip wheel --no-deps --wheel-dir dist .
  mmms-serve cvat demo --out cvat-function --wheel dist/mmms_deploy-0.1.0-py3-none-any.whl

\b
An agent for CVAT Online and Enterprise needs no folder: mmms-doctor --docs cvat"""
)
@click.argument("bundle", type=FilePath())
@click.option("--out", type=FilePath(), required=True, metavar="DIR", help="The folder of the function.")
@click.option(
    "--wheel",
    type=FilePath(),
    required=True,
    metavar="FILE",
    help="This package's wheel: pip wheel --no-deps --wheel-dir dist . makes it in a clone.",
)
@click.option(
    "--name", type=Text(), metavar="NAME", help="What nuclio calls it.  [default: mmms- and the bundle's name]"
)
@settings_option("A setting of its sessions, such as zoom=true or whole_image=true.")
@click.option("--overwrite", is_flag=True, help="Replace an older function.")
@engine_options
def cvat(
    bundle: Path,
    out: Path,
    wheel: Path,
    name: str | None,
    given: tuple[str, ...],
    overwrite: bool,
    request: EngineRequest,
) -> None:
    """Write the folder of a nuclio function of BUNDLE for CVAT's community server, whole or not at all.

    nuctl deploys it as an interactor. It holds the bundle and the wheel, so that the function needs no network.
    """
    check_bundle(bundle)
    from mmms_deploy.doors.cvat.function import FunctionSettings
    from mmms_deploy.doors.cvat.function_folder import check_function

    settings = _set(given, request)
    with wrong_usage():
        FunctionSettings.of(settings)
    check_function(out, wheel, overwrite=overwrite)
    folder = fetched_bundle(bundle)
    with progress_bars("comparing hashes, writing the function"):
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.doors.cvat.function_folder import write_function

        opened = Bundle(folder)
        written = write_function(out, opened, wheel, name=name, settings=settings, overwrite=overwrite)
    if not opened.manifest.trained:
        warn(f"the weights of {bundle} are random, so its masks mean nothing")
    console.print(f"wrote    {escape(str(written))}, a nuclio function for CVAT", soft_wrap=True)
    click.echo(f"Deploy it: nuctl deploy --project-name cvat --path {written} --platform local")


def _set(given: tuple[str, ...], request: EngineRequest) -> dict[str, Any]:
    """Return the settings that differ from what a function has without them."""
    return {name: value for name, value in settings_of(given, request).items() if value not in (None, False, "auto")}
