"""The model card of a bundle, ``README.md``: what the network is, how it is used, and how it was checked.

Its head is the YAML that the hub reads: licence, task, tags, the checkpoint's repository, and the gate's numbers as
results. All of it comes from the manifest; what the weights were trained on is for their authors to add.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

from mmms_deploy.bundle.click_inputs import click_inputs
from mmms_deploy.bundle.manifest import GateCheck, Manifest, Precision, Provenance
from mmms_deploy.bundle.names import GOLDEN_NAME
from mmms_deploy.bundle.reconstructed import reconstruction
from mmms_deploy.bundle.split import boundary_bytes, feature_bytes, how_often, split_of
from mmms_deploy.errors import BundleError
from mmms_deploy.hub import HubReference, is_reference, parse_reference

UNKNOWN = "unknown"
"""The licence of the hub's list for weights whose licence is not known."""
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}")
_PROJECT = "mmms-deploy"
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
"""What YAML would not read as text."""


def checked_license(value: str | None) -> str | None:
    """Return the identifier of a licence, in small letters, checked.

    Args:
        value: Such as ``apache-2.0``, ``mit``, ``cc-by-4.0`` or ``other``; None when it is not known.

    Raises:
        BundleError: It cannot be one.
    """
    if value is None:
        return None
    name = value.strip().lower() if isinstance(value, str) else ""
    if not _LICENSE.fullmatch(name):
        raise BundleError(
            f"{str(value)[:80]!r} is no identifier of a licence",
            expected="one of the hub's list, such as apache-2.0, mit, cc-by-4.0 or other",
            fix='pass license="apache-2.0", or what the weights are under',
            command_fix="pass --license apache-2.0, or what the weights are under",
        )
    return name


def card_of(manifest: Manifest, place: HubReference | None = None, license: str | None = None) -> str:
    """Return the model card of a bundle.

    Args:
        manifest: The bundle's manifest, with its files.
        place: Where the bundle will lie on the hub; None for a local folder.
        license: The licence of the weights; None takes the manifest's.
    """
    taken = license or manifest.provenance.license
    parts = (
        _head(manifest, taken),
        f"# {_plain(manifest.name)}",
        _what(manifest, taken),
        *([_missing(manifest)] if manifest.click_only else []),
        _usage(manifest, place),
        _inputs(manifest),
        _stages(manifest),
        _checks(manifest),
        _origin(manifest),
        _files(manifest),
        _limits(manifest, taken),
    )
    return "\n\n".join(parts) + "\n"


# --- the head ---------------------------------------------------------------------------------------------------------


def _head(manifest: Manifest, taken: str | None) -> str:
    tags = ["onnx", "interactive-segmentation", "click-based-segmentation"]
    tags += [modality.name for modality in manifest.modalities]
    lines = [
        "---",
        f"license: {_yaml(taken or UNKNOWN)}",
        f"library_name: {_PROJECT}",
        "pipeline_tag: mask-generation",
        "tags:",
        *(f"- {_yaml(tag)}" for tag in tags),
    ]
    base = _repositories(manifest.provenance)
    if base:
        lines += ["base_model:", *(f"- {_yaml(name)}" for name in base)]
    return "\n".join([*lines, *_results(manifest), "---"])


def _repositories(provenance: Provenance) -> list[str]:
    """Return the repositories on the hub that the weights come from."""
    sources = (provenance.checkpoint_source, provenance.backbone_checkpoint_source)
    found = [parse_reference(source).repository for source in sources if source and is_reference(source)]
    return list(dict.fromkeys(found))


def _results(manifest: Manifest) -> Iterable[str]:
    """Yield the gate's numbers, in the hub's form for results."""
    checks = [check for check in manifest.gate if math.isfinite(check.worst)]
    if not checks:
        return
    yield "model-index:"
    yield f"- name: {_yaml(manifest.name)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: mask-generation"
    yield "      name: Interactive segmentation, exported graphs against the checkpoint"
    yield "    dataset:"
    yield "      type: mmms-deploy-gate"
    yield "      name: Photographs and clicks of the export's gate"
    yield "    metrics:"
    for check in checks:
        yield f"    - type: {_yaml(re.sub(r'[^a-z0-9]+', '_', check.measure.lower()).strip('_') or 'worst')}"
        yield f"      name: {_yaml(f'{check.name}: {check.measure}, worst of {check.samples}')}"
        yield f"      value: {check.worst!r}"
        yield "      verified: false"


def _yaml(text: str) -> str:
    """Return a text as YAML reads it back: as it is, or in quotes."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in _YAML_WORDS:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


# --- the text ---------------------------------------------------------------------------------------------------------


def _what(manifest: Manifest, taken: str | None) -> str:
    provenance = manifest.provenance
    family = str(provenance.description.get("family") or "mmms")
    backbone = provenance.description.get("backbone")
    modalities = ", ".join(_plain(m.name) + (" (optional)" if m.optional else "") for m in manifest.modalities)
    height, width = manifest.size
    clicks, points, listed = manifest.clicks, manifest.clicks.points, manifest.clicks.listed
    drawn = f"disks of radius {clicks.radius:g} network pixels" if points is None else f"up to {points.most} of them"
    if listed is not None:
        drawn = f"up to {listed.sizes[-1]} of them"
    if clicks.answers is not None and clicks.answers.proposals:
        drawn += f"; the first one is answered with {clicks.candidates} proposals, of which one is chosen"
    rgb = f"RGB{', ' if modalities else ''}{modalities}; brought to {height} x {width} (height x width)"
    whole = " in the whole network, of which this is a part" if manifest.click_only else ""
    rows = [
        ("network", _plain(family) + _backbone(backbone)),
        ("parameters", f"{provenance.parameters / 1e6:.2f} million{whole}"),
        ("input", f"features of a picture at {height} x {width} (height x width)" if manifest.click_only else rgb),
        ("clicks", f"positive and negative points; {drawn}"),
        ("mask", f"at the image's own size; a pixel belongs when its probability is above {clicks.threshold:g}"),
        ("precisions", ", ".join(str(precision) for precision in manifest.precisions) or "none"),
        ("licence of the weights", taken or "**not stated**"),
    ]
    split = split_of(manifest)
    other = "a small part" if split is None or split.click < split.before else "the other"
    text = (
        f"Click-based interactive segmentation, as ONNX graphs for {_PROJECT}: one part runs once an image, {other} at"
        " every click."
    )
    if split is not None and split.first is not None:
        text = text.replace(f", {other} at every click", ", one at the first click, and one at every later click")
    if manifest.click_only:
        text = (
            "The click stage alone of a network for click-based interactive segmentation, as ONNX graphs for"
            f" {_PROJECT}: a **click bundle**, for a service that annotates pictures and has neither the network's"
            " backbone nor the data of other sensors. It answers clicks on features, which the owner of the whole"
            " bundle computes."
        )
    if (known := reconstruction(manifest)) is not None:
        text += f"\n\n**{known}**"
    if not manifest.trained:
        text += "\n\n**The weights are random: this bundle is for measuring speed, and its masks mean nothing.**"
    return f"{text}\n\n{_table(('', ''), rows)}"


def _backbone(backbone: object) -> str:
    if not isinstance(backbone, dict) or not isinstance(backbone.get("name"), str):
        return ""
    overrides = backbone.get("overrides")
    changed = ", ".join(_code(f"{k}={v}") for k, v in overrides.items()) if isinstance(overrides, dict) else ""
    return f", backbone {_code(backbone['name'])}{f' with {changed}' if changed else ''}"


def _missing(manifest: Manifest) -> str:
    rows = [
        ("the stages before the clicks", "no graph and no weight of them: neither backbone nor fusion of modalities"),
        ("modalities", "neither data nor how they are prepared; what they add to an answer is in the features"),
        ("the golden pictures", "their sizes and features, and no pixel: the clicks can be replayed all the same"),
        ("the largest activations of the backbone", "left out"),
    ]
    return f"""## What is missing, on purpose

{_table(("part", "what is here of it"), rows)}

It takes the features that the bundle with the digest {_code(manifest.features_of or "")} makes of a picture, and no
others. Its owner writes them with `mmms-package`."""


def _usage(manifest: Manifest, place: HubReference | None) -> str:
    named = (
        f"path/to/{re.sub(r'[^A-Za-z0-9._-]+', '-', manifest.name)[:80] or 'bundle'}" if place is None else str(place)
    )
    extras = "cpu" if place is None else "cpu,hub"
    keywords = "".join(f", {name}={name}" for name in manifest.required)
    options = "".join(f" --modality {name}={name}.png" for name in manifest.required)
    call = f'session.set_image("photo.jpg"{keywords})'
    if "black-box" in manifest.provenance.cuts:
        call = 'session.set_features("features.npz")  # of the backbone, which a provider runs'
        options += " --features features.npz"
    if manifest.click_only:
        call = 'session.use(Features.load("photo.features"))  # from the owner of the whole bundle'
        options = " --features photo.features"
    names = "Features, Session" if manifest.click_only else "Session"
    return f"""## Use it

```sh
pip install "{_PROJECT}[{extras}]"
mmms-segment {named} photo.jpg --pos 320,240{options} --overlay overlay.png
```

```python
from mmms_deploy import {names}

with Session("{named}") as session:
    {call}
    result = session.click(320, 240)  # result.mask: (H, W) bool, at the photo's own resolution
```

`mmms-verify` replays the clicks of the export on your machine. Every file but this card is compared with its hash in
`bundle.json` when the bundle is opened; the card may be edited."""


def _inputs(manifest: Manifest) -> str:
    if manifest.click_only:
        tensors = click_inputs(manifest).values()
        features = [(_code(one.name), " x ".join(map(str, one.shape)), one.dtype) for one in tensors]
        return f"## Inputs\n\n{_table(('feature', 'shape', 'type'), features)}"
    resize = manifest.image.resize
    rule = f"{resize.interpolation}{', corners aligned' if resize.align_corners else ''}"
    rule += ", antialiased" if resize.antialias else ""
    rows = [("rgb", "3", f"uint8, resized {rule}", "no")]
    for modality in manifest.modalities:
        invalid = ", ".join(str(value) for value in modality.invalid) or "none"
        rows.append(
            (
                _plain(modality.name),
                str(modality.channels),
                f"numbers as stored; nothing was measured at: {_plain(invalid)}",
                "yes" if modality.optional else "no",
            )
        )
    return f"## Inputs\n\n{_table(('name', 'channels', 'form', 'may be missing'), rows)}"


def _stages(manifest: Manifest) -> str:
    rows = []
    for stage in manifest.stages:
        graph = stage.graphs.get(Precision.FP32)
        passed = 0 if graph is None else feature_bytes(graph.outputs)
        counted = "not counted" if stage.flops is None else f"{stage.flops / 1e9:,.1f}"
        rows.append(
            (_plain(stage.name), how_often(manifest, stage), counted, f"{passed / 1e6:,.1f}" if passed else "-")
        )
    split = split_of(manifest)
    text = "" if split is None else f"\n\n{split.sentence}"
    resident = f"Features of {boundary_bytes(manifest) / 1e6:,.1f} MB (float32) stay resident for the clicks."
    heading = ("stage", "runs", "GFLOP", "features passed on, MB")
    return f"## What runs when\n\n{_table(heading, rows)}{text}\n\n{resident}"


def _checks(manifest: Manifest) -> str:
    if not manifest.gate:
        return "## How it was checked\n\nNothing was recorded."
    pair = manifest.provenance.description.get("family") == "onnx"
    reference = "the two files that they were made of" if pair else "the network in PyTorch"
    text = (
        f"The export compared the ONNX graphs with {reference}, on photographs and by clicks; a bundle that"
        f" exceeds a limit is not written. `{GOLDEN_NAME}` holds the photographs, the clicks and the"
        f" {'files' if pair else 'checkpoint'}'{'' if pair else 's'} own masks."
    )
    if manifest.click_only:
        text = (
            f"The export compared the ONNX graphs of the whole bundle with {reference}, on photographs and by clicks."
            f" `{GOLDEN_NAME}` holds the photographs' features, the clicks and the masks that they must give; this"
            " bundle was replayed before it was written."
        )
    heading = ("compared", "measure", "worst", "limit", "samples")
    return f"## How it was checked\n\n{text}\n\n{_table(heading, [_check(check) for check in manifest.gate])}"


def _check(check: GateCheck) -> tuple[str, ...]:
    return _plain(check.name), _plain(check.measure), f"{check.worst:.2g}", f"{check.limit:g}", str(check.samples)


def _origin(manifest: Manifest) -> str:
    provenance = manifest.provenance
    rows: list[tuple[str, str]] = []
    if provenance.random_seed is not None:
        rows.append(("weights", f"random, seed {provenance.random_seed}"))
    for what, name, source, sha256 in (
        ("checkpoint", provenance.checkpoint, provenance.checkpoint_source, provenance.checkpoint_sha256),
        (
            "backbone",
            provenance.backbone_checkpoint,
            provenance.backbone_checkpoint_source,
            provenance.backbone_checkpoint_sha256,
        ),
    ):
        if name is not None:
            rows.append((what, _code(source or name)))
            rows.append((f"SHA-256 of the {what}", _code(sha256 or "not recorded")))
    if provenance.averaged:
        rows.append(("taken from it", f"averaged weights (EMA), {_code(provenance.weights)}"))
    elif provenance.weights:
        rows.append(("taken from it", _code(provenance.weights)))
    rows += [
        ("rewrites", ", ".join(map(_code, provenance.rewrites)) or "none"),
        ("cuts", ", ".join(map(_code, provenance.cuts)) or "none but the one where clicks come in"),
        ("ONNX opset", str(provenance.opset)),
        ("made with", ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in sorted(provenance.packages.items())) or "-"),
        ("made", _plain(provenance.created)),
    ]
    return f"## Where it comes from\n\n{_table(('', ''), rows)}"


def _files(manifest: Manifest) -> str:
    rows = [(_code(name), f"{entry.size:,}", _code(entry.sha256)) for name, entry in sorted(manifest.files.items())]
    return f"## Files\n\n{_table(('file', 'bytes', 'SHA-256'), rows)}"


def _limits(manifest: Manifest, taken: str | None) -> str:
    height, width = manifest.size
    points = [
        "It answers clicks. It knows no classes, and one call segments one object.",
        f"The network sees {height} x {width} pixels: what is thinner than a pixel there comes out soft or not at all.",
        "The comparisons above show that the graphs are the checkpoint's network, not that its masks are good; for"
        " that, measure it on your own pictures: `mmms-eval`.",
    ]
    if manifest.click_only:
        points[2] = (
            "Features are derived from the picture and its modalities, and are not encrypted: who has them can learn of"
            " both."
        )
    if any(not modality.optional for modality in manifest.modalities):
        points.append("Modalities have to be registered to the photograph pixel by pixel.")
    if taken is None:
        points.append("The licence of the weights is not stated: ask who made them before you use them.")
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return a text from outside as Markdown shows it literally, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", line)


def _code(text: str) -> str:
    """Return a text from outside as code, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
    return f"`{line.replace('`', chr(39)).replace('|', '/')}`" if line else "-"
