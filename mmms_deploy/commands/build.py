"""``mmms-build``: compile a bundle's stages into TensorRT plans, and inspect what they compute in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import ALLOW_UNPROVEN, console, err_console, warn
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.output import check_output
from mmms_deploy.commands.parameters import FilePath, OneOf, Text, Whole
from mmms_deploy.commands.places import check_bundle
from mmms_deploy.commands.sections import Sections
from mmms_deploy.commands.tables import print_table
from mmms_deploy.errors import PlanBuildError
from mmms_deploy.spelling import did_you_mean

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle, Precision
    from mmms_deploy.engines.tensorrt.build import BuildOptions
    from mmms_deploy.engines.tensorrt.plans import StagePlan
    from mmms_deploy.progress import OnProgress, Progress

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MOST_NAMES = 8


class BytesType(click.ParamType[int]):
    """``512M`` or ``2G``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        match = re.fullmatch(r"([1-9]\d{0,11})([KMG]?)", str(value).upper(), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no size such as 512M or 2G", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


def parse_capability(text: str) -> str:
    """Check a compute capability such as ``8.9``."""
    if not re.fullmatch(r"[1-9]\d?\.\d", text, re.ASCII):
        raise click.BadParameter(f"{text!r} is no compute capability such as 8.9")
    return text


_SECTIONS: Sections = {
    "Stages and GPU": "--precision --stage --ordinal",
    "Compiling": "--library --ahead-of-time --target --opt-level --workspace --tf32 --timing-cache --rebuild "
    "--allow-unproven",
}


@command(
    sections=_SECTIONS,
    epilog="""\b
Examples:
  mmms-build bundles/demo
  mmms-build bundles/mmms --precision fp16 --opt-level 5
  mmms-build bundles/mmms --precision fp16 --ahead-of-time --target 8.9 --target 12.0""",
)
@click.argument("bundle", type=FilePath())
@click.option(
    "--precision",
    "precisions",
    type=OneOf(["fp32", "fp16", "bf16"]),
    multiple=True,
    help="Which of the bundle's graphs to compile; may be given several times.  [default: all]",
)
@click.option(
    "--stage", "stages", type=Text(), metavar="NAME", multiple=True, help="Compile this stage only; may be repeated."
)
@click.option("--ordinal", type=Whole(min=0), default=0, show_default=True, help="Number of the GPU.")
@click.option(
    "--library",
    type=OneOf(["tensorrt", "tensorrt_rtx"]),
    help="Library to compile with.  [default: the one that is installed]",
)
@click.option(
    "--ahead-of-time",
    is_flag=True,
    help="Compile without a GPU, to try it out; only tensorrt_rtx can do this.",
)
@click.option(
    "--target",
    "targets",
    type=parse_capability,
    metavar="CAPABILITY",
    multiple=True,
    help="With --ahead-of-time: compute capability to compile for, such as 8.9; may be given several times.",
)
@click.option("--opt-level", type=Whole(0, 5), help="How long to search for fast kernels.  [default: 3]")
@click.option("--workspace", type=BytesType(), help="Most GPU memory that one operation may use as scratch, e.g. 2G.")
@click.option("--tf32", is_flag=True, help="Let float32 products be rounded to TF32: faster, less exact.")
@click.option(
    "--timing-cache/--no-timing-cache", default=True, show_default=True, help="Use the measurements of earlier builds."
)
@click.option("--rebuild", is_flag=True, help="Compile again what is in the cache.")
@click.option("--allow-unproven", is_flag=True, help=ALLOW_UNPROVEN)
@click.option("--json", "json_file", type=FilePath(), help="Write the facts about the plans to this file too.")
def main(
    bundle: Path,
    precisions: tuple[str, ...],
    stages: tuple[str, ...],
    ordinal: int,
    library: str | None,
    ahead_of_time: bool,
    targets: tuple[str, ...],
    opt_level: int | None,
    workspace: int | None,
    tf32: bool,
    timing_cache: bool,
    rebuild: bool,
    allow_unproven: bool,
    json_file: Path | None,
) -> None:
    """Compile the stages of BUNDLE with TensorRT, for the GPU of this machine.

    Plans are kept in the cache (MMMS_DEPLOY_CACHE, see mmms-doctor --docs gpu-host) and reused when the bundle is
    opened on this GPU with this driver and library. Each plan is inspected: the command fails when a convolution or
    matrix product is not computed in the precision of its ONNX graph.
    """
    if targets and not ahead_of_time:
        raise click.UsageError("--target goes with --ahead-of-time; without, this machine's GPU is the target.")
    check_bundle(bundle)
    if json_file is not None:
        check_output(json_file, overwrite=True)
    bundle = fetched_bundle(bundle)

    from mmms_deploy.bundle import Bundle, Precision
    from mmms_deploy.engines.tensorrt.build import BuildOptions

    options = BuildOptions(
        opt_level=opt_level, workspace=workspace, tf32=tf32, timing_cache=timing_cache, targets=targets
    )
    opened = Bundle(bundle)
    known = [stage.name for stage in opened.manifest.stages]
    unknown = [name for name in stages if name not in known]
    if unknown:
        raise PlanBuildError(
            f"{bundle} has no stage {unknown[0]!r}{did_you_mean(unknown[0], known)}",
            expected=f"one of {', '.join(known)}",
            fix="correct --stage, or leave it out to compile all",
        )
    wanted = [Precision(name) for name in dict.fromkeys(precisions)] or list(opened.manifest.precisions)
    made = build(
        opened,
        wanted,
        device=None if ahead_of_time else ordinal,
        options=options,
        library=library,
        stages=stages or None,
        rebuild=rebuild,
        allow_unproven=allow_unproven,
    )
    if json_file is not None:
        _write_json(json_file, opened, made)


def build(
    bundle: Bundle,
    precisions: Sequence[Precision],
    *,
    device: int | None = 0,
    options: BuildOptions | None = None,
    library: str | None = None,
    stages: Sequence[str] | None = None,
    rebuild: bool = False,
    allow_unproven: bool = False,
) -> dict[Precision, dict[str, StagePlan]]:
    """Compile plans with a progress bar, and print the facts about them.

    The arguments are those of :func:`mmms_deploy.engines.tensorrt.plans.plans`.
    """
    from mmms_deploy.engines.tensorrt.plan_cache import plans_folder
    from mmms_deploy.engines.tensorrt.plans import plans

    made: dict[Precision, dict[str, StagePlan]] = {}
    with progress_bars("fetching plans") as on_progress:
        for precision in precisions:
            made[precision] = plans(
                bundle,
                precision,
                device=device,
                options=options,
                library=library,
                stages=stages,
                rebuild=rebuild,
                allow_unproven=allow_unproven,
                on_progress=_explained(on_progress),
            )
    print_table(_table(bundle, made))
    for precision, found in made.items():
        for stage in found.values():
            _print_details(precision, stage)
    if any(stage.file is None for found in made.values() for stage in found.values()):
        warn("plans could not be kept; the next use compiles them again (MMMS_DEPLOY_CACHE)")
    else:
        console.print(f"Kept in {escape(str(plans_folder()))}.", soft_wrap=True)
    return made


def check_gpu() -> None:
    """Fail at once where no plan can be compiled on this machine.

    Raises:
        EngineUnavailableError: There is no usable GPU, or TensorRT is not installed.
    """
    from mmms_deploy.engines.cuda.devices import require_gpu
    from mmms_deploy.engines.tensorrt.api import load_tensorrt

    require_gpu(alone=True)
    load_tensorrt()


def _explained(on_progress: OnProgress) -> OnProgress:
    """Return a callback that prints why each stage is compiled, and passes every step on."""
    from mmms_deploy.engines.tensorrt.plans import stage_of

    def receive(step: Progress) -> None:
        if step.detail:
            err_console.print(f"compiling {escape(stage_of(step))}: {escape(step.detail)}", soft_wrap=True)
        on_progress(step)

    return receive


def _table(bundle: Bundle, made: dict[Precision, dict[str, StagePlan]]) -> Table:
    title = escape(f"TensorRT plans of {bundle.reference}, sizes in MB")
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for heading in ("stage", "precision"):
        table.add_column(heading)
    for heading in ("matrix", "fused", "kernels", "scratch", "weights", "plan", "s"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for precision, stages in made.items():
        for plan in stages.values():
            report = plan.report
            table.add_row(
                plan.stage,
                precision,
                f"{report.matrices.get(precision, 0)}/{sum(report.matrices.values())}",
                f"{report.fused}/{report.attentions}" if report.listed else "?",
                str(report.kernels) if report.listed else "?",
                _megabytes(report.activation_bytes),
                _megabytes(report.weight_bytes),
                _megabytes(len(plan.plan)),
                f"{plan.seconds:.1f}",
                "new" if plan.built else "kept",
            )
    return table


def _print_details(precision: Precision, plan: StagePlan) -> None:
    report = plan.report
    types = ", ".join(f"{count} {dtype or 'without output'}" for dtype, count in sorted(report.types.items()))
    source = {"inspector": "read from the compiled plan", "build": "listed while it was compiled"}.get(report.listed)
    console.print(f"{plan.stage} in {precision}: {report.evidence(precision)}", soft_wrap=True)
    if source:
        console.print(f"  [dim]kernels by what they write: {types} ({source})[/]", soft_wrap=True)
    if report.wide and precision != "fp32":
        more = f" and {len(report.wide) - _MOST_NAMES} more" if len(report.wide) > _MOST_NAMES else ""
        console.print(f"  [yellow]in float32: {', '.join(report.wide[:_MOST_NAMES])}{more}[/]", soft_wrap=True)
    if report.doubts:
        console.print(f"  [yellow]kernels that do not show {precision}:[/]", soft_wrap=True)
    for doubt in report.doubts:
        console.print(f"    [dim]{escape(doubt)}[/]", soft_wrap=True)


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:.1f}"


def _write_json(file: Path, bundle: Bundle, made: dict[Precision, dict[str, StagePlan]]) -> None:
    import msgspec

    from mmms_deploy.bundle import Precision
    from mmms_deploy.files import write_file

    rows: Iterable[dict[str, object]] = [
        {
            "stage": plan.stage,
            "precision": precision,
            "plan_bytes": len(plan.plan),
            "seconds": plan.seconds,
            "built": plan.built,
            "proven": plan.report.proven(Precision(precision)),
            **msgspec.to_builtins(plan.report),
        }
        for precision, stages in made.items()
        for plan in stages.values()
    ]
    content = {"bundle": bundle.manifest.name, "digest": bundle.manifest.digest, "plans": rows}
    write_file(file, msgspec.json.format(msgspec.json.encode(content)) + b"\n")


if __name__ == "__main__":
    main()
