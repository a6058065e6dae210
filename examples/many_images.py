"""Many images with clicks from your own code: one session for all of them, a mask for each, one COCO file in the end.

    pip install ".[cpu]"  # in the clone; with a wheel, its file in place of the dot
    python examples/many_images.py [FOLDER]

With FOLDER it clicks into the middle of each of its pictures; put your own clicks there. Without it, it takes the
photographs and the clicks of the demo's bundle. It writes masks/NAME.png and masks/coco.json. Where clicks are in a
file already, the command mmms-segment does the same without code.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmms_deploy import Bundle, MMMSDeployError, Session
from mmms_deploy.annotations import CocoWriter
from mmms_deploy.imaging import load_rgb
from mmms_deploy.replay import load_golden

OUT = Path("masks")


def pictures(bundle: Bundle) -> Iterator[tuple[str, Any, list[tuple[float, float, bool]]]]:
    """Yield the name of each picture, the picture, and its clicks (x, y, positive)."""
    if not sys.argv[1:]:
        for number, case in enumerate(load_golden(bundle.file("golden.npz")), start=1):
            yield f"demo{number}.png", case.image, [(float(x), float(y), p > 0) for x, y, p in case.clicks[:3]]
    for path in sorted(Path(sys.argv[1]).iterdir()) if sys.argv[1:] else ():
        try:
            image = load_rgb(path)
        except MMMSDeployError as error:  # a file that is no picture, or a damaged one
            print(f"{path.name} is left out: {error}", file=sys.stderr)
            continue
        yield path.name, image, [(image.shape[1] / 2, image.shape[0] / 2, True)]


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    coco = CocoWriter()
    with Session("demo") as session:  # opened once: opening takes longer than an image
        for name, image, clicks in pictures(session.bundle):
            session.set_image(image)
            for x, y, positive in clicks:
                result = session.click(x, y, positive)
            result.save(OUT / f"{Path(name).stem}.png", overwrite=True)
            coco.add(session.to_coco(name, categories={"1": "object"}))
            print(f"{name}: {result.area} pixels, image {result.timings.total:.0f} ms")
    coco.write(OUT / "coco.json", overwrite=True)
