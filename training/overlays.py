"""Draw the demo's answers on everyday pictures: ``python -m training.overlays --out docs/images/demo-overlays.jpg``.

The pictures are those inside the scikit-image package (public domain or CC0, see its ``data/README.txt``); none was
trained on. Each shows the mask after the clicks that are drawn on it, chosen before the first look at a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click as cli
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmms_deploy import Session
from mmms_deploy.session.overlay import draw_overlay
from training.picture import label

WIDTH, HEIGHT = 360, 300
"""Size of a tile in pixels; a picture is fitted into it."""
COLUMNS = 4
GAP = 6
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture and its clicks.

    Attributes:
        picture: Name of a picture in ``skimage.data``.
        clicks: (x, y) of the positive clicks, in the picture's pixels.
    """

    picture: str
    clicks: tuple[tuple[int, int], ...]


SHOWN = (
    Shown("chelsea", ((220, 180),)),
    Shown("coffee", ((290, 170),)),
    Shown("astronaut", ((220, 400),)),
    Shown("rocket", ((321, 220),)),
    Shown("motorcycle", ((370, 260),)),
    Shown("horse", ((190, 160),)),
    Shown("coffee", ((470, 290),)),
    Shown("astronaut", ((220, 120),)),
)


def read_picture(shown: Shown) -> NDArray[np.uint8]:
    """Return a picture, (H, W, 3) uint8."""
    from skimage import data
    from skimage.color import gray2rgb
    from skimage.util import img_as_ubyte

    picture = data.stereo_motorcycle()[0] if shown.picture == "motorcycle" else getattr(data, shown.picture)()
    picture = img_as_ubyte(picture)
    rgb: NDArray[np.uint8] = gray2rgb(picture) if picture.ndim == 2 else picture[..., :3]
    return np.ascontiguousarray(rgb)


def tile(session: Session, shown: Shown) -> Image.Image:
    """Click, and return the overlay at the size of a tile."""
    picture = read_picture(shown)
    session.set_image(picture)
    for x, y in shown.clicks:
        result = session.click(x, y)
    overlay = draw_overlay(picture, result.mask, result.clicks)
    overlay.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    count = len(shown.clicks)
    label(overlay, f"{count} click{'s' if count > 1 else ''}", (8, overlay.height - 8), "ls")
    return overlay


def sheet(session: Session, shown: tuple[Shown, ...] = SHOWN) -> Image.Image:
    """Return all overlays, in rows of :data:`COLUMNS`."""
    rows = -(-len(shown) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (WIDTH + GAP) - GAP, rows * (HEIGHT + GAP) - GAP), (255, 255, 255))
    for number, one in enumerate(shown):
        made = tile(session, one)
        row, column = divmod(number, COLUMNS)
        left = column * (WIDTH + GAP) + (WIDTH - made.width) // 2
        page.paste(made, (left, row * (HEIGHT + GAP) + (HEIGHT - made.height) // 2))
    return page


@cli.command()
@cli.option("--bundle", default="demo", show_default=True, help="A bundle.")
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="The JPEG to write.")
def main(bundle: str, out: Path) -> None:
    """Draw the overlays."""
    with Session(bundle) as session:
        sheet(session).save(out, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
