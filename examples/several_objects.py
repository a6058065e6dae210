"""Several objects in one image, each with a name: a label map and a COCO file come out, and the labels go in again.

    pip install ".[cpu]"  # in the clone; with a wheel, its file in place of the dot
    python examples/several_objects.py

It takes the photograph of a cat from the demo's bundle, and writes labels.png, coco.json and objects.png.
"""

import json
from pathlib import Path

from mmms_deploy import Bundle, Session
from mmms_deploy.replay import load_golden

CLICKS = {
    "left eye": [(180, 105, True), (200, 160, False)],
    "right eye": [(322, 137, True), (322, 180, False)],
    "nose": [(260, 255, True), (260, 200, False), (200, 250, False)],
}
bundle = Bundle("demo")
cat = load_golden(bundle.file("golden.npz"))[2].image

with Session(bundle) as session:
    session.set_image(cat)  # once for all objects
    for name, clicks in CLICKS.items():
        session.select(name)  # a new object, or back to one: each has its own clicks and its own undo
        for x, y, positive in clicks:
            session.click(x, y, positive)
    session.remove("1")  # the surface that every image begins with; it has no clicks here
    for name, label in session.surfaces.items():
        print(f"{name}: label {label}, {(session.labels == label).sum()} pixels")

    session.save_labels("labels.png", overwrite=True)  # the label of each pixel, with the names in the file
    kinds = {"left eye": "eye", "right eye": "eye"}  # two objects of one category
    coco = session.to_coco("cat.png", categories=kinds)
    Path("coco.json").write_text(json.dumps(coco))

    session.set_image(cat)  # another day: the labels are read back, and clicks go on from there
    session.load_labels("labels.png")
    session.select("nose")
    session.click(268, 262)
    print(f"{session.surface} again: {session.result.area} pixels")
