"""What the largest pictures cost in memory: ``python benchmarks/sizes.py`` (make test-sizes).

Makes pictures of the sizes below, and gives each to a session in a process of its own, call after call: the peak of
the process's memory after each, less what it had with the bundle open, in bytes for each pixel of the picture. Exit
code 1 where a call fails, or takes more than :data:`MOST` bytes a pixel. Writes ``results/sizes.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = ((9000, 12000, "jpg"), (9000, 12000, "png"), (1, 100_000, "png"), (65_500, 2, "jpg"), (2, 65_535, "png"))
MOST = 16
"""Bytes that a call may take for each pixel at its peak: an RGB picture has 3, a label map 4, a probability 4."""
FLOOR = 64 << 20
"""Bytes that any picture may take: libraries load, and allocators round up."""


def main() -> int:
    """Run, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", default="demo-small")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--child", nargs=3, metavar=("PICTURE", "HEIGHT", "WIDTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.bundle, options.engine, *options.child)))
        return 0
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for height, width, suffix in SIZES:
            place = Path(folder) / f"picture.{suffix}"
            drawn = f"import sizes; sizes.draw(sizes.Path({str(place)!r}), {height}, {width})"
            subprocess.run([sys.executable, "-c", drawn], cwd=HERE, check=True)
            command = [sys.executable, __file__, "--bundle", options.bundle, "--engine", options.engine]
            command += ["--child", str(place), str(height), str(width)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr)
                failed = True
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            allowed = max(FLOOR, MOST * height * width)
            failed |= max(found["above"].values()) > allowed
            rows.append((height, width, suffix, found))
            print(height, width, suffix, found, flush=True)
    from mmms_deploy.reporting.files import write_text

    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "sizes.md", report(rows, options.bundle).encode())
    return int(failed)


def draw(path: Path, height: int, width: int) -> Path:
    """Write a picture with something to see."""
    import numpy as np
    from PIL import Image

    rows = (np.arange(height) * 7 % 251).astype(np.uint8)[:, None]
    columns = (np.arange(width) * 3 % 241).astype(np.uint8)[None]
    image = np.dstack(
        [np.broadcast_to(rows, (height, width)), np.broadcast_to(columns, (height, width)), rows ^ columns]
    )
    Image.fromarray(image).save(path)
    return path


def measured(bundle: str, engine: str, picture: str, height: str, width: str) -> dict[str, Any]:
    """Return the peak of this process's memory after each call, above that with the bundle open."""
    from mmms_deploy import Session

    def peak() -> int:
        # Unlike ru_maxrss, this begins anew with the program.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    size = (int(height), int(width))
    above: dict[str, int] = {}
    with Session(bundle, engine=engine, device="cpu", threads=1) as session, tempfile.TemporaryDirectory() as folder:
        session.set_image(Path(__file__).parents[1] / "docs" / "images" / "photo.jpg")
        session.click(100, 100)
        before = peak()
        place = Path(folder)

        def click() -> object:
            for x in (-0.5, (size[1] - 1) / 2, size[1] - 0.51):
                for y in (-0.5, (size[0] - 1) / 2, size[0] - 0.51):
                    assert session.click(x, y).mask.shape == size
            return None

        calls: dict[str, Callable[[], object]] = {
            "set_image": lambda: session.set_image(picture),
            "click": click,
            "probability": lambda: session.result.probability,
            "set_mask": lambda: session.set_mask(session.mask),
            "second object": lambda: (session.select("2"), session.click(0, 0), session.select("1")),
            "labels": lambda: session.labels,
            "to_coco": lambda: session.to_coco(polygons=True, empty=True),
            "save_labels": lambda: session.save_labels(place / "labels.png"),
            "result.save": lambda: session.result.save(place / "mask.png"),
            "overlay": session.result.overlay,
            "notebook": session._repr_html_,
            "features": lambda: session.features.save(place / "one.features"),
            "features with picture": lambda: session.features.save(place / "two.features", picture=True),
            "load and use": lambda: session.use(type(session.features).load(place / "two.features")),
            "click again": click,
        }
        for name, call in calls.items():
            call()
            above[name] = peak() - before
    return {"before": before, "above": above}


def report(rows: list[tuple[int, int, str, dict[str, Any]]], bundle: str) -> str:
    """Return the report in Markdown."""
    heads = [f"{width} x {height} {suffix.upper()}" for height, width, suffix, _ in rows]
    parts = [
        "# The largest pictures",
        "",
        f"Peak memory of a process with one session on `{bundle}`, in MiB above what it has with the bundle open and a"
        " small photograph set, after each call and those before it (`python benchmarks/sizes.py`).",
        "",
        f"| call | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(rows)}",
    ]
    for name in rows[0][3]["above"] if rows else ():
        cells = [f"{found['above'][name] / 2**20:.0f}" for _, _, _, found in rows]
        parts.append(f"| {name} | {' | '.join(cells)} |")
    before = " | ".join(f"{found['before'] / 2**20:.0f}" for *_, found in rows)
    parts.append(f"| the process before | {before} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
