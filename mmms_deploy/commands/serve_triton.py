"""``mmms-serve triton`` and ``mmms-serve triton-run``: NVIDIA Triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, engine_options, say, warn, wrong_usage
from mmms_deploy.commands.display import progress_bars, waiting
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Number, OneOf, Text, Whole
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.sections import ENGINE, Sections
from mmms_deploy.commands.serve_settings import settings_of, settings_option

if TYPE_CHECKING:
    from mmms_deploy.doors.triton.settings import RepositorySettings
    from mmms_deploy.engines.request import EngineRequest

_FORMS = ("python", "onnx", "tensorrt")


_SECTIONS: Sections = {
    "Model repository": "--out --form --name --no-copy --overwrite",
    "Model": "--sequences --idle --instances --set --python-path --this-python",
    **ENGINE,
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-serve triton demo --out triton --this-python
  mmms-serve triton demo --out triton --engine onnxruntime --threads 4 --set store_mib=4096
  mmms-serve triton demo --out triton --form onnx --precision fp32""",
)
@click.argument("bundle", type=FilePath())
@click.option("--out", type=FilePath(), required=True, metavar="DIR", help="The folder of the model repository.")
@click.option(
    "--form",
    type=OneOf(_FORMS),
    default="python",
    show_default=True,
    help="python: sessions behind Triton's Python backend, pictures and clicks in, masks out. onnx, tensorrt: a model a"
    " stage, without code; Triton keeps the click stage's state.",
)
@click.option("--name", type=Text(), metavar="NAME", help="The model's name.  [default: the bundle's]")
@click.option(
    "--sequences",
    type=Whole(min=1),
    default=64,
    show_default=True,
    help="Annotators whom each instance serves at once; those beyond wait.",
)
@click.option(
    "--idle",
    type=Number(0.001, 1e9),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="A sequence that asks for nothing for so long is forgotten.",
)
@click.option("--instances", type=Whole(min=1), default=1, show_default=True, help="Instances of each model.")
@settings_option("Form python: a setting of its sessions, such as zoom=true or store_folder=FOLDER.")
@click.option(
    "--python-path",
    type=FilePath(),
    multiple=True,
    metavar="DIR",
    help="Form python: a folder in which the server's Python looks for packages first.",
)
@click.option(
    "--this-python",
    is_flag=True,
    help="Form python: the folders in which this Python finds packages, as --python-path.",
)
@click.option("--no-copy", is_flag=True, help="Form python: name BUNDLE by its path, and copy nothing of it.")
@click.option("--overwrite", is_flag=True, help="Replace an older model repository.")
@engine_options
def triton(
    bundle: Path,
    out: Path,
    form: str,
    name: str | None,
    sequences: int,
    idle: float,
    instances: int,
    given: tuple[str, ...],
    python_path: tuple[Path, ...],
    this_python: bool,
    no_copy: bool,
    overwrite: bool,
    request: EngineRequest,
) -> None:
    """Write a model repository of BUNDLE for NVIDIA Triton, whole or not at all.

    In the form python a sequence of Triton's is a session: its first request carries the picture, and every other one a
    click, all clicks, or undo. In the forms onnx and tensorrt every stage is a model; networks whose click stage needs
    more than its own state between two clicks are refused.
    """
    _check_usage(form, given, python_path, this_python, no_copy, request)
    check_bundle(bundle)
    from mmms_deploy.bundle import Precision
    from mmms_deploy.doors.opening import Opening
    from mmms_deploy.doors.triton.server import this_python as packages
    from mmms_deploy.doors.triton.settings import Form, RepositorySettings

    with wrong_usage():
        settings = RepositorySettings(
            form=Form(form),
            name=name,
            sequences=sequences,
            idle=idle,
            instances=instances,
            opening=Opening.of(settings_of(given, request)),
            python_path=(*python_path, *(packages() if this_python else ())),
            copy=not no_copy,
            precision=Precision(request.precision or Precision.FP32),
        )
    _write(bundle, out, settings, overwrite)


def _write(bundle: Path, out: Path, settings: RepositorySettings, overwrite: bool) -> None:
    from mmms_deploy.doors.triton.repository import check_repository

    check_repository(out, overwrite=overwrite)
    folder = fetched_bundle(bundle)
    with progress_bars("comparing hashes, writing the model repository"):
        from mmms_deploy.bundle import Bundle
        from mmms_deploy.doors.triton.repository import write_repository
        from mmms_deploy.doors.triton.settings import Form
        from mmms_deploy.doors.triton.stages_form import SCRIPT

        opened = Bundle(folder)
        names = write_repository(out, opened, settings, overwrite=overwrite)
    if not opened.manifest.trained:
        warn(f"the weights of {bundle} are random, so its masks mean nothing")
    shown = escape(str(out))
    console.print(f"wrote    {shown}: {escape(', '.join(names))}, for Triton's {settings.form} backend", soft_wrap=True)
    if settings.form is Form.TENSORRT:
        say("note", f"the graphs are not compiled yet: run {out / SCRIPT} in the server's container, on its GPU")
    click.echo(f"Serve it: tritonserver --model-repository={out}")


def _check_usage(
    form: str,
    given: tuple[str, ...],
    python_path: tuple[Path, ...],
    this_python: bool,
    no_copy: bool,
    request: EngineRequest,
) -> None:
    from mmms_deploy.bundle import Precision

    if request.precision is not None and request.precision not in list(Precision):
        raise click.UsageError(f"--precision is one of {', '.join(Precision)}, got {request.precision}.")
    if form == "python":
        return
    options = {
        "--set": given,
        "--python-path": python_path,
        "--this-python": this_python,
        "--no-copy": no_copy,
        "--engine": request.engine,
        "--threads": request.threads,
        "--strict": request.strict,
        "--device": request.device != "auto",
    }
    for option, value in options.items():
        if value:
            raise click.UsageError(f"{option} is about sessions, and --form {form} has none: leave it out.")


@command(
    epilog="""\b
Examples:
  mmms-serve triton-run triton
  mmms-serve triton-run triton --port 9000

\b
It is the server that nvidia-pytriton carries: Linux, the Python backend alone."""
)
@click.argument("repository", type=FilePath())
@click.option("--port", type=Whole(min=1, max=65535), default=8000, show_default=True, help="Port of HTTP.")
def run_triton(repository: Path, port: int) -> None:
    """Run a Triton server on the model REPOSITORY, at 127.0.0.1, until Ctrl-C."""
    from mmms_deploy.doors.triton.server import TritonServer

    with waiting("starting the server, which opens the bundle"):
        server = TritonServer(repository, port=port)
    with server:
        click.echo(f"Triton answers at http://{server.address}")
        code = server.wait()
        say("error", f"the server ended with code {code}:\n{server.said(12)}")
        raise SystemExit(1)
