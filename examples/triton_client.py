"""A client of NVIDIA Triton in twenty lines: a picture, clicks, and the mask after each; NumPy and NVIDIA's client.

    pip install ".[cpu,triton]"                              # in the clone; with a wheel, its file in place of the dot
    mmms-serve triton demo --out triton --this-python
    mmms-serve triton-run triton                             # the server; or one of your own on the folder
    python examples/triton_client.py 127.0.0.1:8000 demo photo.jpg mask.png 320,240,1 40,50,0

A click is x,y,1 on the object, or x,y,0 off it. docs/triton.md describes every input.
"""

import os
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image

server, model, picture, out, *clicks = sys.argv[1:]
client = triton.InferenceServerClient(server)
sequence = int.from_bytes(os.urandom(6), "big") + 1  # one annotator on one object; no other client has this number


def ask(name: str, value: np.ndarray, kind: str, **flags: bool) -> np.ndarray:
    """Send one input in the sequence, and return the mask that follows: (H, W) uint8, 1 on the object."""
    tensor = triton.InferInput(name, list(value.shape), kind)
    tensor.set_data_from_numpy(value)
    answer: np.ndarray = client.infer(model, [tensor], sequence_id=sequence, **flags).as_numpy("mask")
    return answer


mask = ask("image_file", np.array([Path(picture).read_bytes()], object), "BYTES", sequence_start=True)
for click in clicks:
    mask = ask("click", np.array(click.split(","), np.float64), "FP64", sequence_end=click is clicks[-1])
    print(f"{click}: {mask.sum()} pixels")
Image.fromarray(mask * 255).save(out)
