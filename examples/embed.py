"""Clicks inside your own program: a picture goes in, a mask comes out as a NumPy array.

    pip install ".[cpu]"  # in the clone; with a wheel, its file in place of the dot
    python examples/embed.py [PHOTO]

Without PHOTO it takes a photograph from the demo's bundle. It writes cutout.png, the object without its background.
"""

import sys

import numpy as np
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.imaging import load_rgb
from mmms_deploy.replay import load_golden

bundle = Bundle("demo")
image = load_rgb(sys.argv[1]) if sys.argv[1:] else load_golden(bundle.file("golden.npz"))[0].image

with Session(bundle) as session:
    session.set_image(image)  # the heavy part, once an image
    height, width = session.image_size
    session.click(0.44 * width, 0.25 * height)  # x to the right, y downwards: on the object
    session.click(0.44 * width, 0.41 * height, positive=False)  # beside it
    session.click(0.90 * width, 0.90 * height)  # a mistake ...
    result = session.undo()  # ... is taken back, and the network does not run for it

mask = result.mask  # (height, width) bool, at the photograph's own size: from here on it is your program's
print(f"{mask.sum()} of {mask.size} pixels after {result.index} clicks")
Image.fromarray(np.dstack([image, np.uint8(255) * mask])).save("cutout.png")
