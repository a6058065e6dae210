"""The report of ``gpu_check.py`` as one HTML page: verdicts first, then plots, then the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_targets import (
    PAPER_MIB,
    Target,
    benchmarks,
    beside_compiled,
    by_bundle,
    column,
    is_full_size,
    is_judged,
    targets,
)

from mmms_deploy.bench.objects import OBJECTS
from mmms_deploy.bench.report import Report
from mmms_deploy.bench.text import number, with_unit
from mmms_deploy.engines.tensorrt.inspect import UNPROVEN
from mmms_deploy.reporting.html import document
from mmms_deploy.reporting.svg import Bar, bars, stack
from mmms_deploy.reporting.visible import escape

_STYLE = """
.met { color: var(--c); font-weight: 600; } .missed, .failed, .stopped { color: #d43c3c; font-weight: 600; }
.unknown { color: var(--faint); } .passed { color: var(--c); } .skipped { color: var(--b); }
.goals { table-layout: fixed; } .goals td, .goals th { text-align: left; }
.goals b { font-variant-numeric: tabular-nums; display: block; } .goals small { color: var(--faint); display: block; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
details { border-bottom: 1px solid var(--rule); padding: .25rem 0; } summary { cursor: pointer; }
summary .secs { color: var(--faint); float: right; } pre { font-size: .8rem; overflow-x: auto; }
"""
_FORMS = (
    ("eager", "PyTorch eager fp32"),
    ("eager.eager_fp16", "PyTorch eager fp16, autocast"),
    ("eager.eager_fp16_weights", "PyTorch eager fp16, weights"),
    ("eager.compiled", "PyTorch compiled fp32"),
    ("eager.compiled_graphs", "PyTorch compiled with CUDA graphs, fp32"),
    ("eager.compiled_fp16_weights", "PyTorch compiled fp16, weights"),
    ("eager.compiled_graphs_fp16_weights", "PyTorch compiled with CUDA graphs, fp16, weights"),
)
_PARTS = (
    ("weights", "weights"),
    ("activations", "activations"),
    ("history", "undo and redo, with spare room"),
    ("rest", "libraries, contexts, everything else"),
)


def page(report: Mapping[str, Any]) -> str:
    """Return the report as a page.

    Args:
        report: The return value of ``gpu_check.describe``.
    """
    steps = report["steps"]
    measured, compiled = benchmarks(steps), benchmarks(steps, "compiled")
    bundles = by_bundle(measured)
    machine = report["machine"]
    remarks = (*_remarks(steps, bundles), *_unmeasured(measured, compiled))
    parts = [
        "<h1>GPU check</h1>",
        f"<p>{escape(', '.join(machine['gpus']) or 'no GPU')}; driver"
        f" {escape(str(machine['driver'] or 'of unknown release'))}</p>",
        f'<p class="faint">mmms-deploy {escape(report["mmms_deploy"])}; {escape(report["date"])}</p>',
        *(f'<p class="note">{escape(text)}</p>' for text in remarks),
    ]
    for name, runs in bundles.items():
        parts += [*_bundle(name, runs, list(compiled.values()))]
    parts += [*_objects(benchmarks(steps, "objects"))]
    parts += [*_plans(steps), *_here(steps), *_steps(steps)]
    return document("mmms-deploy: GPU check", parts, _STYLE)


def _remarks(steps: Sequence[Mapping[str, Any]], bundles: Mapping[str, Sequence[Report]]) -> Iterator[str]:
    if not any(is_full_size(run) for runs in bundles.values() for run in runs):
        yield "The goals are for full-size MMMS on RGB, too, which was not measured: give --full-size."
    for reason in dict.fromkeys(step["missing"] for step in steps if step["state"] == "skipped"):
        names = [step["name"] for step in steps if step["missing"] == reason]
        yield f"Not done: {', '.join(names)}: {reason}"
    waiting = [step["name"] for step in steps if step["state"] == "not run"]
    if waiting:
        yield f"Not run yet: {', '.join(waiting)}"


def _unmeasured(measured: Mapping[str, Report], compiled: Mapping[str, Report]) -> Iterator[str]:
    """Yield why clicks are no CUDA graph, and why torch.compile was not measured."""
    for reports, prefix, what in (
        (measured, "graph.click_ratio", "a click as one CUDA graph"),
        (compiled, "eager.compiled", "torch.compile"),
    ):
        for name, run in reports.items():
            for metric in run.metrics:
                if metric.why and metric.key.startswith(prefix) and metric.key.endswith(".click_ratio"):
                    yield f"{name.partition(':')[2]}, {what}: not measured: {metric.why}"


# --- a bundle ---------------------------------------------------------------------------------------------------------


def _bundle(name: str, runs: Sequence[Report], compiled: Sequence[Report]) -> Iterator[str]:
    first = runs[0]
    network = "full-size MMMS, RGB" if is_full_size(first) else f"{' + '.join(('RGB', *first.bundle.modalities))}"
    yield f"<h2>{escape(name)}: {escape(network)}</h2>"
    for note in dict.fromkeys(note for run in runs for note in run.notes if not note.startswith("Other programs")):
        yield f'<p class="faint">{escape(note)}</p>'
    yield _heads(runs)
    judged = [run for run in runs if is_judged(run)]
    if judged:
        yield _goals(judged, compiled)
    beside = [run for run in compiled if run.bundle.digest == first.bundle.digest]
    yield _figure("A click, p50", bars(_clicks(runs, beside), "Milliseconds of a click"))
    yield _figure(f"Where a click's time goes, {column(first)}", stack(_stack(first), "Parts of a click"))
    memory = list(_memory(first)) if first.value("vram.taken") is not None else []
    if memory:
        yield _figure(f"Memory on the GPU beyond the CUDA context, {column(first)}", bars(memory, "MiB"))
    yield _numbers(runs)
    if beside:
        yield "<h3>Beside torch.compile</h3>"
        yield _numbers(beside, _COMPILED_ROWS)


def _heads(runs: Sequence[Report]) -> str:
    boxes = "".join(
        f'<div class="head"><b>{escape(with_unit(value, "ms"))}</b>a click, {escape(column(run))}</div>'
        for run in runs
        if (value := run.value("click.total")) is not None
    )
    return f'<div class="heads">{boxes}</div>'


def _goals(runs: Sequence[Report], compiled: Sequence[Report]) -> str:
    columns = [targets(run, beside_compiled(run, compiled)) for run in runs]
    heads = "".join(f"<th>{escape(column(run))}</th>" for run in runs)
    rows = "".join(
        f"<tr><td>{escape(row[0].what)}</td>{''.join(map(_goal, row))}</tr>" for row in zip(*columns, strict=True)
    )
    head = f"<thead><tr><th>goal, on an H200-class GPU</th>{heads}</tr></thead>"
    return f'<div class="scroll"><table class="goals">{head}<tbody>{rows}</tbody></table></div>'


def _goal(target: Target) -> str:
    style = {True: "met", False: "missed", None: "unknown"}[target.met]
    reached = f"<b>{escape(target.shown)}</b>" if target.shown else ""
    verdict = f'<span class="{style}">{escape(target.verdict)}</span>'
    return f"<td>{reached}{verdict}<small>{escape(target.goal)}</small></td>"


def _clicks(runs: Sequence[Report], compiled: Sequence[Report]) -> list[Bar]:
    rows = []
    for run in runs:
        value = run.value("click.total")
        if value is not None:
            rows.append(Bar(column(run), value, with_unit(value, "ms")))
    for key, label in _FORMS:
        found = [value for run in (*runs, *compiled) if (value := run.value(f"{key}.click")) is not None]
        if found:
            rows.append(Bar(label, min(found), with_unit(min(found), "ms"), "b"))
    if is_full_size(runs[0]):
        rows.append(Bar("the paper, V100", 12.0, "12.0 ms", "d"))
    return rows


def _stack(run: Report) -> list[tuple[str, float, str]]:
    return [
        (label, value, with_unit(value, "ms"))
        for key, label in (
            ("click.engine", "click stage, GPU's own time"),
            ("click.transfer", "launching, waiting, answer out"),
            ("click.mask", "mask to the image's size"),
            ("click.rest", "checks, state, history"),
        )
        if (value := run.value(key)) is not None
    ]


def _memory(run: Report) -> Iterator[Bar]:
    taken = run.value("vram.taken") or 0.0
    yield Bar("engine and one session", taken, with_unit(taken, "MiB"))
    for key, label in _PARTS:
        value = run.value(f"vram.{key}")
        if value is not None and value > 0:
            yield Bar(label, value, with_unit(value, "MiB"), "c")
    if is_full_size(run):
        yield Bar("the paper, V100", PAPER_MIB, with_unit(PAPER_MIB, "MiB"), "d")


_ROWS = (
    ("image.total", "image, whole set_image, ms"),
    ("click.total", "click, whole Session.click, ms"),
    ("click.engine", "click stage, GPU's own time, ms"),
    ("click.mask", "mask to the image's size, ms"),
    ("click.compact.total", "click, whole, with a disc as its mask, ms"),
    ("click.compact.mask", "a disc to the image's size, ms"),
    ("graph.click_ratio", "click, as one CUDA graph / one by one"),
    ("graph.device_ratio", "the same in GPU's own time"),
    ("graph.state_copies", "copying a click's state, GPU's own time, ms"),
    ("layout.click_ratio", "click, with prefer_nhwc / without"),
    ("layout.device_ratio", "the same in GPU's own time"),
    ("throughput.1", "clicks a second, 1 session"),
    ("throughput.4", "clicks a second, 4 sessions"),
    ("vram.taken", "on the GPU, MiB"),
    ("eager.click_ratio", "click / PyTorch eager fp32"),
    ("eager.eager_fp16.click_ratio", "click / PyTorch eager fp16, autocast"),
    ("eager.eager_fp16_weights.click_ratio", "click / PyTorch eager fp16, weights"),
    ("eager.eager_fp16_weights.image_ratio", "image / PyTorch eager fp16, weights"),
)
_COMPILED_ROWS = (
    ("eager.compiled_fp16_weights.click_ratio", "click / PyTorch compiled fp16, weights"),
    ("eager.compiled_graphs_fp16_weights.click_ratio", "click / PyTorch compiled with CUDA graphs, fp16, weights"),
    ("eager.compiled_graphs_fp16_weights.image_ratio", "image / PyTorch compiled with CUDA graphs, fp16, weights"),
)
_OBJECT_ROWS = tuple(
    row
    for count in OBJECTS
    for row in (
        (f"objects.{count}", f"clicks a second, on {count} at once"),
        (f"objects.{count}_torch", "the same, PyTorch eager fp16, weights"),
        (f"objects.{count}_ratio", "a call, this engine / PyTorch"),
    )
)


def _objects(measured: Mapping[str, Report]) -> Iterator[str]:
    """Yield the table of clicks on several objects at once, for the engines that were measured."""
    for name, runs in by_bundle(measured).items():
        yield f"<h2>{escape(name)}: several objects at once</h2>"
        yield _numbers(runs, _OBJECT_ROWS)


def _numbers(runs: Sequence[Report], wanted: Sequence[tuple[str, str]] = _ROWS) -> str:
    heads = "".join(f"<th>{escape(column(run))}</th>" for run in runs)
    rows = []
    for key, label in wanted:
        cells = []
        for run in runs:
            metric = run.metric(key)
            value = None if metric is None else metric.value
            cells.append("<td>-</td>" if metric is None or value is None else f"<td>{number(value, metric.unit)}</td>")
        rows.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>p50</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figure(heading: str, svg: str) -> str:
    return f'<h3>{escape(heading)}</h3><div class="scroll">{svg}</div>'


# --- plans, the machine, the steps ------------------------------------------------------------------------------------


def _plans(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = "".join(
        f"<tr><td>{escape(step['name'].partition(':')[2])}, {escape(plan['stage'])}</td><td>{plan['precision']}</td>"
        f"<td>{escape(', '.join(f'{count} {kind}' for kind, count in plan['matrices'].items()))}"
        f"{f' ({unproven} by the graph alone)' if (unproven := plan.get('unproven')) else ''}"
        f"{_doubts(plan)}</td>"
        f"<td>{plan['fused']} of {plan['attentions']}</td><td>{plan['kernels']}</td>"
        f"<td>{plan['plan_bytes'] / 1e6:.1f}</td><td>{plan['seconds']:.1f}</td></tr>"
        for step in steps
        if step["name"].startswith("build:") and step["results"]
        for plan in step["results"]["plans"]
    )
    if rows:
        names = ("plan", "precision", "matrix operations in", "attentions fused", "kernels", "MB", "seconds")
        heads = "".join(f"<th>{name}</th>" for name in names)
        yield "<h2>TensorRT's plans, as compiled</h2>"
        yield f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _doubts(plan: Mapping[str, Any]) -> str:
    """Return which kernels of a plan were not understood, and whether its precision is proven."""
    listed = "".join(f"<br/><small>{escape(doubt)}</small>" for doubt in plan.get("doubts", ()))
    return listed if plan.get("proven", True) else f'<br/><b class="failed">{UNPROVEN}</b>{listed}'


def _here(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found = next((step["results"] for step in steps if step["name"] == "doctor"), None)
    if not found:
        return
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    rows = [
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB"),
        ("packages", packages),
        *(
            (engine["name"], "; ".join(filter(None, (engine["library"], engine["why"], engine["fix"]))))
            for engine in found["engines"]
            if engine["device"] == "cuda"
        ),
    ]
    body = "".join(f'<tr><td>{escape(key)}</td><td class="text">{escape(text)}</td></tr>' for key, text in rows)
    yield f'<h2>Machine</h2><table class="plain"><tbody>{body}</tbody></table>'


def _steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>Steps</h2>"
    for step in steps:
        state = f'<span class="{step["state"].replace(" ", "")}">{escape(step["state"])}</span>'
        tests = step["results"] if step["name"].startswith("tests:") else None
        counts = f": {_tests(tests)}" if tests else ""
        body = [f'<p class="faint">{escape(step["command"])}</p>']
        if tests:
            body += [f'<p class="failed">{escape(name)}</p>' for name in tests["failed"]]
            body += [f'<p class="faint">skipped: {escape(text)}</p>' for text in tests["reasons"]]
        if step["missing"]:
            body.append(f"<p>{escape(step['missing'])}</p>")
        # The page is XML, which does not allow the control characters that colour a terminal.
        printed = "".join(c for c in step["output"] if c in "\n\t" or c >= " ")
        if printed and step["name"] != "doctor":
            body.append(f"<pre>{escape(printed)}</pre>")
        yield (
            f'<details><summary>{state} {escape(step["title"])}{escape(counts)}<span class="secs">'
            f"{step['seconds']:.1f} s</span></summary>{''.join(body)}</details>"
        )


def _tests(found: Mapping[str, Any]) -> str:
    return f"{found['passed']} passed, {len(found['failed'])} failed, {found['skipped']} skipped"
