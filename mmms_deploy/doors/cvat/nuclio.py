"""The command that writes the folder of a nuclio function for CVAT: ``python -m mmms_deploy.doors.cvat.nuclio``."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import click

from mmms_deploy.errors import Door, MMMSDeployError, MMMSDeployWarning
from mmms_deploy.version import __version__


class _Setting(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "NAME=VALUE"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return both."""
        if isinstance(value, tuple):
            return value
        name, sign, text = value.partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is no NAME=VALUE, such as engine=openvino", param, ctx)
        return name, text


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bundle", default="demo", show_default=True, help="A folder, demo, or hf:owner/name.")
@click.option(
    "--wheel",
    type=click.Path(path_type=Path),
    required=True,
    help="This package's wheel: pip wheel --no-deps --wheel-dir dist . makes it in a clone.",
)
@click.option("--name", help="What nuclio calls the function.  [default: mmms- and the bundle's name]")
@click.option("--set", "settings", type=_Setting(), multiple=True, help="A setting, such as engine=onnxruntime.")
@click.option("--overwrite", is_flag=True, help="Replace an older function.")
@click.version_option(__version__)
def main(
    out: Path, bundle: str, wheel: Path, name: str | None, settings: tuple[tuple[str, str], ...], overwrite: bool
) -> None:
    """Write the folder OUT, which nuctl deploys as an interactor of CVAT's community server."""
    from mmms_deploy.doors.cvat.function import FunctionSettings
    from mmms_deploy.doors.cvat.function_folder import write_function

    by_name = dict(settings)
    try:
        FunctionSettings.of(by_name)
    except MMMSDeployError as error:
        raise click.UsageError(error.message(Door.COMMAND_LINE)) from error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MMMSDeployWarning)
        try:
            folder = write_function(out, bundle, wheel, name=name, settings=by_name, overwrite=overwrite)
        except MMMSDeployError as error:
            click.echo(f"error: {error.message(Door.COMMAND_LINE)}", err=True)
            sys.exit(1)
        finally:
            for one in said:
                click.echo(f"warning: {one.message}", err=True)
    click.echo(folder)
    click.echo(f"Deploy it: nuctl deploy --project-name cvat --path {folder} --platform local", err=True)


if __name__ == "__main__":
    main()
