"""Does a reduced precision cost clicks? Counted on all pictures there are: ``python benchmarks/noc.py --data FOLDER``.

Runs ``mmms-eval`` for the demo checkpoints on every data set below, in a reduced precision of OpenVINO against float32
on the same engine, and writes ``results/noc.md`` and ``noc.json``: NoC of both, their difference with its interval, and
the smallest difference that the objects could have shown, for each set and for several together. Counts do not depend
on how busy the machine is. Finished images in ``--work`` are used again, and ``--read`` evaluates nothing: it makes the
tables of what is there. Rows of other precisions in ``noc.json`` stay. Needs the ``[export,cpu,eval]`` extras and real
pictures (``--data``), which are not part of the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.engines.machine import describe_machine, machine_lines
from mmms_deploy.engines.registry import BACKENDS
from mmms_deploy.engines.verdicts import Verdict, read_verdict
from mmms_deploy.evaluation.comparison import CONFIDENCE, POWER, RESAMPLES, paired_interval, smallest_visible
from mmms_deploy.evaluation.measures import noc
from mmms_deploy.evaluation.results import SceneResult, read_facts, read_scenes
from mmms_deploy.reporting.files import write_text

HERE = Path(__file__).parent
TARGETS = (0.80, 0.85, 0.90)
MAX_CLICKS = 20
EXPORTED = ("demo-thermal",)
"""Checkpoints whose bundles do not ship with the package."""


@dataclass(frozen=True)
class Pictures:
    """A data set.

    Attributes:
        title: Its name in the tables.
        argument: The value of ``--dataset``, with the folders ``{data}`` and ``{work}``.
        group: Returns what of a scene's name is resampled together; None for the scene itself.
        drawn: Whether nothing of it is a photograph.
    """

    title: str
    argument: str
    group: Callable[[str], str] | None = None
    drawn: bool = False


SETS = {
    "voc": Pictures("VOC objects", "berkeley={data}/voc-objects:name=voc"),
    "davis": Pictures("DAVIS", "davis={data}/davis", group=lambda scene: scene.partition("/")[0]),
    "mfnet": Pictures("MFNet", "mfnet={data}/mfnet"),
    "selma": Pictures("SELMA, at night", "folder={work}/pictures/selma:name=selma:void=0:min_area=81"),
    "rgbd": Pictures("RGB-D sets", "folder={work}/pictures/rgbd:name=rgbd"),
    "drawn": Pictures("drawn scenes", "drawn=1050", drawn=True),
    "drawn-1": Pictures("drawn scenes, another seed", "drawn=1050:seed=1:name=drawn-1", drawn=True),
}
RUNS = (
    *((name, "demo-small") for name in SETS),
    *((name, "demo") for name, pictures in SETS.items() if not pictures.drawn),
    ("mfnet", "demo-thermal"),
)
"""Data sets and checkpoints."""


def link(data: Path, pictures: Path) -> None:
    """Lay out the sets that have no reader of their own as plain folders, by links.

    Args:
        data: The folder of data.
        pictures: Where they go: ``selma`` and ``rgbd``, each with ``images`` and ``masks``.
    """
    town = data / "selma" / "Town01_Opt_ClearNight"
    real = data / "rgbd-real"
    pairs: list[tuple[str, str, Path, Path]] = []
    for folder in sorted(town.glob("CAM_*")):
        view = folder.name.removeprefix("CAM_")
        pairs += [("selma", view, next(folder.iterdir()), next((town / f"SEGCAM_{view}").iterdir()))]
    for image in sorted((real / "ssd" / "RGB").iterdir()):
        pairs += [("rgbd", f"ssd-{image.stem}", image, real / "ssd" / "GT" / f"{image.stem}.png")]
    for image in sorted((real / "nlpr" / "RGB").iterdir()):
        pairs += [("rgbd", f"nlpr-{image.stem}", image, real / "nlpr" / "groundtruth" / image.name)]
    for mask in sorted((real / "cleargrasp").glob("*-mask.png")):
        number = mask.name.removesuffix("-mask.png")
        pairs += [("rgbd", f"cleargrasp-{number}", mask.with_name(f"{number}-transparent-rgb-img.jpg"), mask)]
    for name, scene, image, mask in pairs:
        for kind, file in (("images", image), ("masks", mask)):
            place = pictures / name / kind / f"{scene}{file.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(file.resolve())


def command(name: str, *arguments: object) -> None:
    """Run one of this package's commands; its progress goes to the terminal."""
    call = [sys.executable, "-m", f"mmms_deploy.commands.{name}", *map(str, arguments)]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def bundle_of(work: Path, ckpt: str) -> str:
    """Return what commands and ``Bundle`` take for a checkpoint: a name, or the folder of its export."""
    return str(work / "bundles" / ckpt) if ckpt in EXPORTED else ckpt


def prepare(work: Path, ckpt: str) -> None:
    """Export a bundle where it is not there, and replay its golden clicks with every engine."""
    bundle = bundle_of(work, ckpt)
    if ckpt in EXPORTED and not Path(bundle).exists():
        command("export", "--ckpt", ckpt, "--out", bundle)
    # Its exit code says whether all engines passed; the verdicts are read later.
    call = [sys.executable, "-m", "mmms_deploy.commands.verify", bundle, "--all-engines"]
    subprocess.run(call, check=False, stdout=subprocess.DEVNULL)


def verdict(work: Path, ckpt: str, precision: str) -> Verdict | None:
    """Return how OpenVINO in a precision did in the golden replay on this machine; None where it is not known."""
    (openvino,) = (backend for backend in BACKENDS if backend.name == "openvino")
    return read_verdict(Bundle(bundle_of(work, ckpt)), openvino.name, openvino.usable()[1], Precision(precision))


def count(data: Path, work: Path, name: str, ckpt: str, precision: str) -> None:
    """Click through a data set in a precision and in float32; go on where an earlier run ended."""
    bundle = bundle_of(work, ckpt)
    both = ["--engine", "openvino", "--precision", precision, "--threads", 1, "--against", bundle]
    both += ["--against-engine", "openvino", "--against-precision", "fp32", "--protocol", "noc", "--worst", 0]
    where = [
        "--dataset",
        SETS[name].argument.format(data=data, work=work),
        "--out",
        work / f"{name}-{ckpt}-{precision}",
    ]
    command("eval", bundle, *both, *where)


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thing:
    """An object with both predictors.

    Attributes:
        image: What is resampled together: an image, or a sequence of them.
        ious: IoU after each click of the reduced precision.
        other: The same of float32, alone.
        agreement: IoU of the two masks after the same clicks.
    """

    image: str
    ious: Sequence[float]
    other: Sequence[float]
    agreement: Sequence[float]


def things(name: str, scenes: Iterable[SceneResult]) -> Iterator[Thing]:
    """Yield the objects of a data set."""
    group = SETS[name].group
    for scene in scenes:
        image = f"{name}:{scene.scene if group is None else group(scene.scene)}"
        for one, pair in zip(scene.objects, scene.against, strict=True):
            yield Thing(image, one.ious, pair.result.ious, pair.agreement)


def measured(found: Sequence[Thing], images: int) -> dict[str, Any]:
    """Return the numbers of a row.

    Args:
        found: Its objects.
        images: Number of its images.
    """
    groups = [thing.image for thing in found]
    targets = []
    for target in TARGETS:
        first = np.array([noc(thing.ious, target, MAX_CLICKS) for thing in found])
        other = np.array([noc(thing.other, target, MAX_CLICKS) for thing in found])
        low, high = paired_interval(first - other, groups)
        targets.append(
            {
                "target": target,
                "noc": round(float(first.mean()), 4),
                "fp32": round(float(other.mean()), 4),
                "difference": round(float((first - other).mean()), 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "visible": _rounded(smallest_visible(first - other, groups)),
                "fewer": int((first < other).sum()),
                "more": int((first > other).sum()),
                "failed": sum(max(thing.ious) < target for thing in found),
                "fp32_failed": sum(max(thing.other) < target for thing in found),
            }
        )
    means = [float(np.mean(thing.agreement)) for thing in found]
    return {
        "objects": len(found),
        "images": images,
        "groups": len(set(groups)),
        "targets": targets,
        "agreement": round(float(np.mean(means)), 5),
        "tenth": round(float(np.quantile(means, 0.1)), 5),
        "below_95": sum(mean < 0.95 for mean in means),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


PHOTOS, DRAWN, BOTH = "all pictures", "all drawn scenes", "pictures and drawn scenes"
PASSED = "all that pass"
"""The row over the networks that passed the golden replay in this precision, so that it may be taken by itself."""


def read(work: Path, precision: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a precision: each data set with each checkpoint, and several together."""
    rows: dict[str, dict[str, Any]] = {}
    pools: dict[tuple[str, str], list[Thing]] = {}
    images: dict[tuple[str, str], set[str]] = {}
    ckpts: dict[tuple[str, str], set[str]] = {}
    for name, ckpt in RUNS:
        folder = work / f"{name}-{ckpt}-{precision}"
        scenes = list(read_scenes(folder)) if (folder / "scenes.jsonl").exists() else []
        found = list(things(name, scenes))
        if not found:
            continue
        kind, facts, replayed = SETS[name], read_facts(folder), verdict(work, ckpt, precision)
        rows[f"{kind.title}, {ckpt}"] = {
            "set": kind.title,
            "ckpt": ckpt,
            "pooled": False,
            "of": facts.datasets[0].scenes,
            "engine": facts.predictor.engine,
            "replay": None if replayed is None else {"passed": replayed.passed, "iou": round(replayed.iou, 4)},
            **measured(found, len(scenes)),
        }
        alone = (DRAWN if kind.drawn else PHOTOS, ckpt)
        passed = replayed is not None and replayed.passed
        for pool in (alone, (alone[0], PASSED), (BOTH, PASSED)) if passed else (alone,):
            pools.setdefault(pool, []).extend(found)
            images.setdefault(pool, set()).update(f"{name}:{scene.scene}" for scene in scenes)
            ckpts.setdefault(pool, set()).add(ckpt)
    for title, who in sorted(pools, key=lambda pool: (pool[1] != PASSED, (BOTH, PHOTOS, DRAWN).index(pool[0]))):
        pool = (title, who)
        if who == PASSED and title != BOTH and len(ckpts[pool]) == 1:
            continue  # it is the row of that network
        row = {"set": title, "ckpt": who, "pooled": True, "of": len(images[pool])}
        rows[f"{title}, {who}"] = {**row, **measured(pools[pool], len(images[pool]))}
    return rows


# --- the page ---------------------------------------------------------------------------------------------------------


def _signed(value: float) -> str:
    return f"{value:+.3f}" if round(value, 3) else "0"


def _names(row: dict[str, Any]) -> tuple[str, str]:
    return (f"**{row['set']}**" if row["pooled"] else row["set"], row["ckpt"])


def conclusion(rows: dict[str, dict[str, Any]], precision: str) -> list[str]:
    """Return what the rows say, in sentences, one paragraph for each network on all pictures and for drawn scenes."""
    lines = []
    for row in rows.values():
        if not row["pooled"]:
            continue
        what = row["ckpt"] if row["ckpt"] == PASSED else f"`{row['ckpt']}`"
        seen = [t for t in row["targets"] if t["low"] > 0 or t["high"] < 0]
        visible = [t["visible"] for t in row["targets"] if t["visible"] is not None]
        if seen:
            parts = [
                f"{_signed(t['difference'])} clicks to {100 * t['target']:.0f} %"
                f" ({_signed(t['low'])} to {_signed(t['high'])})"
                for t in seen
            ]
            said = f"a difference is seen: {', '.join(parts)}"
        else:
            said = "no difference is seen"
        if visible:
            said += f"; one of {max(visible):.2f} clicks or more would have been seen at every target"
        lines.append(f"- **{what} on {row['set']}** ({row['objects']:,} objects): {said}.")
    replays = {row["ckpt"]: row["replay"] for row in rows.values() if row.get("replay")}
    for ckpt, replay in replays.items():
        if not replay["passed"]:
            lines.append(
                f"- `{ckpt}` does not pass `mmms-verify --all-engines` in {precision} on this machine: its worst mask"
                f" has an IoU of {replay['iou']:.2f} with the reference. So no session takes {precision} for it unless"
                " the caller names it, and its rows show what that costs. *All that pass* leaves it out."
            )
    return lines


def markdown(content: dict[str, Any]) -> str:
    """Return the page in Markdown.

    Args:
        content: What ``noc.json`` holds.
    """
    lines = [
        "# Clicks in reduced precision",
        "",
        "Does a reduced precision cost clicks? The demo checkpoints, clicked by the simulated annotator (RITM's"
        " protocol, 20 clicks at most, until 90 %), in OpenVINO's reduced precision and in its float32 on the same"
        " objects. Counts do not depend on the machine's load. `python benchmarks/noc.py --data FOLDER` writes this.",
        "",
        "*difference*: mean NoC of the reduced precision minus that of float32; below 0, it needs fewer clicks."
        f" *interval*: {100 * CONFIDENCE:.0f} %, from {RESAMPLES:,} paired resamples of the images, of DAVIS of the"
        " sequences, because the frames of a sequence are much alike. *visible from*: the least true difference that a"
        f" test at the level of {100 * (1 - CONFIDENCE):.0f} % finds with {100 * POWER:.0f} % probability on these"
        " objects ([evaluation.md](../../docs/evaluation.md#two-predictors-on-the-same-objects)). One interval in"
        " twenty leaves out 0 by chance, so look at the pooled rows first. There, an image that several networks saw is"
        " resampled as one.",
        "",
        "A single NYUv2 picture of the shared ones is left out: its labels are colours.",
    ]
    for precision, rows in content["precisions"].items():
        lines += ["", f"## {precision}", "", *conclusion(rows, precision)]
        for number, target in enumerate(TARGETS):
            lines += ["", f"### {precision}, NoC@{100 * target:.0f}", ""]
            heads = ("set", "network", "objects", precision, "fp32", "difference", "interval", "visible from")
            heads += ("fewer / more", f"failed: {precision} / fp32")
            lines += [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
            for row in rows.values():
                t = row["targets"][number]
                visible = "unknown" if t["visible"] is None else f"{t['visible']:.3f}"
                sure = "**" if t["low"] > 0 or t["high"] < 0 else ""
                cells = (*_names(row), f"{row['objects']:,}", f"{t['noc']:.2f}", f"{t['fp32']:.2f}")
                cells += (f"{sure}{_signed(t['difference'])}{sure}", f"{_signed(t['low'])} to {_signed(t['high'])}")
                cells += (visible, f"{t['fewer']} / {t['more']}", f"{t['failed']} / {t['fp32_failed']}")
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"### {precision}, masks after the same clicks", ""]
        lines += [
            "IoU of the two masks, both after the reduced precision's clicks; of an object the mean over its clicks."
            " *worst tenth*: nine objects in ten are above. *images*: where there are fewer than the set has, the run"
            " has not ended; the same command goes on. An object that both fail counts 20 clicks for both.",
            "",
        ]
        heads = ("set", "network", "images", "objects", "mean IoU", "worst tenth", "objects below 95 %")
        lines += [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
        for row in rows.values():
            images = f"{row['images']:,}" if row["images"] == row["of"] else f"{row['images']:,} of {row['of']:,}"
            cells = (*_names(row), images, f"{row['objects']:,}", f"{100 * row['agreement']:.2f} %")
            cells += (f"{100 * row['tenth']:.2f} %", f"{row['below_95']:,}")
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {text} |" for what, text in content["machine"]]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=HERE.parents[1] / "shared" / "data")
@click.option("--work", type=click.Path(path_type=Path), default=Path("evaluations/noc"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "results", help="Folder of the tables.")
@click.option("--precision", default="bf16", show_default=True, help="The reduced precision; others' rows stay.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="A data set to evaluate; repeatable.")
@click.option("--ckpt", "ckpts", multiple=True, help="A checkpoint to evaluate; repeatable.  [default: all]")
@click.option("--read", "read_only", is_flag=True, help="Evaluate nothing; make the tables of what --work holds.")
def main(
    data: Path, work: Path, out: Path, precision: str, only: tuple[str, ...], ckpts: tuple[str, ...], read_only: bool
) -> None:
    """Count clicks in a reduced precision and in float32."""
    console = Console(stderr=True)
    work = work.resolve()
    if not read_only:
        link(data, work / "pictures")
        wanted = [(name, ckpt) for name, ckpt in RUNS if name in (only or SETS) and (not ckpts or ckpt in ckpts)]
        for ckpt in dict.fromkeys(ckpt for _, ckpt in wanted):
            prepare(work, ckpt)
        for name, ckpt in wanted:
            console.print(f"{name}, {ckpt}")
            count(data, work, name, ckpt, precision)
    file = out / "noc.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["precisions"] if file.exists() else {}
    content = {
        "precisions": {**kept, precision: read(work, precision)},
        "machine": list(machine_lines(describe_machine())),
    }
    write_text(file, (json.dumps(content, indent=1) + "\n").encode())
    write_text(out / "noc.md", markdown(content).encode())
    console.print(f"{out / 'noc.md'}")


if __name__ == "__main__":
    main()
