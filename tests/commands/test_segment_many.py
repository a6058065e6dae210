"""mmms-segment on many images, several objects and lists of clicks: what it reads, writes and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import mask_of_rle, read_annotation, read_labels
from mmms_deploy.commands.segment import main
from mmms_deploy.engines import select
from mmms_deploy.session.backbone_features import save_features
from tests.support.invoke import invoke
from tests.support.joint import write_joint
from tests.support.toy import write_toy


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures of several sizes; ``photos`` has three of them."""
    monkeypatch.chdir(tmp_path)
    for name, size in {"photos/p1.png": (60, 90), "photos/p2.jpg": (50, 40), "photos/p10.png": (64, 64)}.items():
        save(tmp_path / name, size)
    save(tmp_path / "photo.png", (100, 150))
    return tmp_path


def save(file: Path, size: tuple[int, int], level: int = 51) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(file)


def segment(*args: object) -> Result:
    return invoke(main, *args)


def done(*args: object) -> Result:
    result = segment(*args)
    assert result.exit_code == 0, result.output
    return result


def refused(words: str, *args: object, code: int = 1) -> None:
    result = segment(*args)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def mask_of(file: Path) -> np.ndarray:
    with Image.open(file) as mask:
        return np.asarray(mask) > 0


# --- the shortest call ------------------------------------------------------------------------------------------------


def test_no_option_at_all(paint: Bundle, folder: Path) -> None:
    result = done(paint.path, "photo.png")
    assert "note: no click was given: clicked at the centre, 74,49; choose with --pos X,Y" in result.stderr
    assert "click 1  + (74, 49)" in result.stdout
    with Session(paint) as session:
        session.set_image(folder / "photo.png")
        np.testing.assert_array_equal(mask_of(folder / "photo-mask.png"), session.click(74, 49).mask)
    with Image.open(folder / "photo-overlay.png") as picture:
        assert picture.size == (150, 100)
    refused("photo-mask.png exists", paint.path, "photo.png")
    done(paint.path, "photo.png", "--pos", "1,2", "--overwrite")


def test_a_folder_without_any_option(paint: Bundle, folder: Path) -> None:
    result = done(paint.path, "photos")
    assert "at the centre of every image" in result.stderr
    assert re.findall(r"\d/3 +photos/(\w+)", result.stdout) == ["p1", "p2", "p10"], "in natural order"
    assert files_in(folder / "segmented") == [
        *(f"masks/{name}.png" for name in ("p1", "p10", "p2")),
        *(f"overlays/{name}.jpg" for name in ("p1", "p10", "p2")),
    ]
    assert mask_of(folder / "segmented" / "masks" / "p2.png").shape == (50, 40)


# --- several objects on the command line ------------------------------------------------------------------------------

OBJECTS = (
    "--object",
    "cat",
    "--pos",
    "30,20",
    "--object",
    "dog",
    "--pos",
    "100,60",
    "--object",
    "cat",
    "--neg",
    "90,90",
)


def test_objects_on_the_command_line(paint: Bundle, folder: Path) -> None:
    result = done(paint.path, "photo.png", *OBJECTS, "--labels", "labels.png", "--coco", "coco.json")
    assert re.findall(r"object +(\w+)", result.stdout) == ["cat", "dog", "cat"]
    with Session(paint) as session:
        session.set_image(folder / "photo.png")
        session.select("cat")
        session.click(30, 20)
        session.select("dog")
        dog = session.click(100, 60).mask
        session.select("cat")
        cat = session.click(90, 90, False).mask
        by_name, expected = session.surfaces, session.labels
    labels, names = read_labels(folder / "labels.png")
    assert names == {"cat": 1, "dog": 2}
    for name, label in names.items():
        np.testing.assert_array_equal(labels == label, expected == by_name[name])
    coco = json.loads((folder / "coco.json").read_text())
    assert [one["name"] for one in coco["categories"]] == ["cat", "dog"]
    assert coco["images"] == [{"id": 1, "file_name": "photo.png", "height": 100, "width": 150}]
    for annotation, mask in zip(coco["annotations"], (cat, dog), strict=True):
        np.testing.assert_array_equal(mask_of_rle(annotation["segmentation"]), mask)
    assert coco["annotations"][0]["clicks"] == [[30, 20, 1], [90, 90, 0]]
    assert not list(folder.glob("photo-*")), "only what was named is written"


def test_several_objects_give_a_label_map_unless_outputs_are_named(paint: Bundle, folder: Path) -> None:
    done(paint.path, "photo.png", *OBJECTS)
    assert {path.name for path in folder.glob("photo-*")} == {"photo-labels.png", "photo-overlay.png"}


def test_one_object_with_a_name_and_its_outline(paint: Bundle, folder: Path) -> None:
    done(paint.path, "photo.png", "--object", "cat", "--pos", "30,20", "--out", "cat.json")
    found = read_annotation(folder / "cat.json")
    assert found.clicks == ((30, 20, True),)
    assert found.mask.shape == (100, 150)


def test_clicks_before_any_object_are_on_the_first_surface(paint: Bundle, folder: Path) -> None:
    done(paint.path, "photo.png", "--pos", "1,2", "--object", "dog", "--pos", "100,60", "--labels", "labels.png")
    assert read_labels(folder / "labels.png")[1] == {"1": 1, "dog": 2}


# --- many images ------------------------------------------------------------------------------------------------------

CSV = """image,object,x,y,positive
photos/p10.png,dog,10,20,1
photos/p1.png,cat,30,20,1
photos/p1.png,dog,50,20,1
photos/p1.png,cat,40,30,0
"""


def test_a_list_of_clicks_says_everything(paint: Bundle, folder: Path) -> None:
    (folder / "clicks.csv").write_text(CSV)
    kinds = "masks,labels,json,overlays"
    done(paint.path, "--clicks", "clicks.csv", "--out-dir", "out", "--write", kinds, "--coco", "coco.json")
    objects = ("p1/cat", "p1/dog", "p10/dog")
    assert files_in(folder / "out") == sorted(
        [
            *(f"masks/photos/{name}.png" for name in objects),
            *(f"json/photos/{name}.json" for name in objects),
            *(f"labels/photos/{name}.png" for name in ("p1", "p10")),
            *(f"overlays/photos/{name}.jpg" for name in ("p1", "p10")),
        ]
    )
    with Session(paint) as session:
        session.set_image(folder / "photos" / "p1.png")
        session.select("cat")
        session.click(30, 20)
        session.select("dog")
        session.click(50, 20)
        session.select("cat")
        np.testing.assert_array_equal(
            mask_of(folder / "out/masks/photos/p1/cat.png"), session.click(40, 30, False).mask
        )
    assert read_annotation(folder / "out/json/photos/p1/cat.json").clicks == ((30, 20, True), (40, 30, False))
    # One name has one number in all images.
    assert read_labels(folder / "out/labels/photos/p1.png")[1] == {"dog": 1, "cat": 2}
    assert read_labels(folder / "out/labels/photos/p10.png")[1] == {"dog": 1}
    coco = json.loads((folder / "coco.json").read_text())
    assert [one["file_name"] for one in coco["images"]] == ["photos/p10.png", "photos/p1.png"]
    assert [one["name"] for one in coco["categories"]] == ["dog", "cat"]
    # What was written can be done again.
    done(paint.path, "--clicks", "coco.json", "--coco", "again.json")
    clicks = [
        [one["clicks"] for one in json.loads((folder / name).read_text())["annotations"]]
        for name in ("coco.json", "again.json")
    ]
    assert clicks[0] == clicks[1]


def test_pycocotools_reads_the_file(paint: Bundle, folder: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    done(paint.path, "photos", "--object", "cat", "--pos", "20,20", "--coco", "rle.json", "--out-dir", "out")
    done(paint.path, "photos", "--object", "cat", "--pos", "20,20", "--coco", "outlines.json", "--polygons", "0")
    for name in ("rle.json", "outlines.json"):
        dataset = coco.COCO(str(folder / name))
        for image in dataset.imgs.values():
            (annotation,) = dataset.imgToAnns[image["id"]]
            stem = Path(image["file_name"]).stem
            expected = mask_of(folder / "out" / "masks" / stem / "cat.png")
            np.testing.assert_array_equal(dataset.annToMask(annotation) > 0, expected)
    outlines = json.loads((folder / "outlines.json").read_text())["annotations"]
    assert all(isinstance(one["segmentation"], list) for one in outlines)


def test_results_mirror_folders(paint: Bundle, folder: Path) -> None:
    save(folder / "more" / "p1.png", (20, 20))
    done(paint.path, "photos", "more", "photo.png", "--pos", "5,5", "--out-dir", "out", "--write", "masks")
    names = ["more/p1", "photo", "photos/p1", "photos/p10", "photos/p2"]
    assert files_in(folder / "out") == [f"masks/{name}.png" for name in names]
    save(folder / "photos" / "p1.jpg", (20, 20))
    save(folder / "photos" / "below" / "p3.png", (20, 20))
    done(paint.path, "photos", "--recursive", "--pos", "5,5", "--out-dir", "photos/out", "--write", "masks")
    expected = ["below/p3", "p1.jpg", "p1.png", "p10", "p2"]
    assert files_in(folder / "photos" / "out") == [f"masks/{name}.png" for name in expected]
    done(paint.path, "photos", "--recursive", "--pos", "5,5", "--out-dir", "photos/out", "--write", "labels")
    assert len(files_in(folder / "photos" / "out" / "labels")) == 5, "results are no images"


def test_an_image_counts_once(paint: Bundle, folder: Path) -> None:
    result = done(paint.path, "photos", "photos/p1.png", "photos/../photos/p1.png", "--pos", "5,5", "--coco", "a.json")
    assert "3/3" in result.stdout


def test_one_session_and_one_engine(paint: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = select.open_request
    monkeypatch.setattr(select, "open_request", lambda *given: opened.append(given) or original(*given))
    done(paint.path, "photos", "--pos", "5,5")
    assert len(opened) == 1


def test_modalities_and_features_of_many_images(modal: Bundle, folder: Path, tmp_path: Path) -> None:
    for name, size in {"p1": (60, 90), "p2": (50, 40), "p10": (64, 64)}.items():
        Image.fromarray(np.full(size, 20, np.uint16)).save(folder / f"{name}.png")
        (folder / "depth").mkdir(exist_ok=True)
        (folder / "event").mkdir(exist_ok=True)
        (folder / f"{name}.png").rename(folder / "depth" / f"{name}.png")
        np.save(folder / "event" / f"{name}.npy", np.zeros((*size, 3)))
    given = ("photos", "--pos", "5,5", "--modality", "depth=depth", "--modality", "event=event")
    done(modal.path, *given)
    assert len(files_in(folder / "segmented" / "masks")) == 3
    (folder / "event" / "p2.npy").unlink()
    refused("modality 'event': there is no file for photos/p2.jpg in event", modal.path, *given, "--overwrite")
    refused(
        "depth/p1.png is one file, and there are 3 images", modal.path, *given[:3], "--modality", "depth=depth/p1.png"
    )
    box = write_toy(tmp_path / "box", black_box=True)
    (folder / "features").mkdir()
    for name in ("p1", "p2", "p10"):
        save_features(folder / "features" / f"{name}.npz", {"f1": np.full((1, 1, 1, 1), 0.2, np.float32)})
    done(box.path, "photos", "--pos", "5,5", "--features", "features", "--out-dir", "other")


# --- which picture a list means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photos/p1.png", "p1.png", "p1", "./photos/p1.png", r"photos\p1.png"])
def test_names_that_mean_a_picture(paint: Bundle, folder: Path, name: str) -> None:
    (folder / "clicks.json").write_text(json.dumps({name: [[30, 20]]}))
    result = done(paint.path, "photos", "--clicks", "clicks.json", "--coco", "coco.json")
    assert "2 images without a click in clicks.json: photos/p2.jpg, photos/p10.png" in result.stderr
    assert [one["file_name"] for one in json.loads((folder / "coco.json").read_text())["images"]] == ["p1.png"]


def test_a_name_beside_the_list(paint: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "photos" / "clicks.csv").write_text("image,x,y\np1.png,3,4\n")
    done(paint.path, "--clicks", "photos/clicks.csv", "--coco", "coco.json")
    assert json.loads((folder / "coco.json").read_text())["images"][0]["file_name"] == "p1.png"


@pytest.mark.parametrize(("disk", "said"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accented_letters_of_a_list_are_found_on_disk_in_either_form(
    paint: Bundle, folder: Path, disk: Literal["NFC", "NFD"], said: Literal["NFC", "NFD"]
) -> None:
    save(folder / normalize(disk, "Größe") / normalize(disk, "Zürich é.png"), (20, 20))
    (folder / "clicks.json").write_text(json.dumps({normalize(said, "Größe\\Zürich é.png"): [[3, 4]]}))
    done(paint.path, "--clicks", "clicks.json", "--coco", "coco.json")
    (folder / "coco.json").unlink()
    done(paint.path, normalize(disk, "Größe"), "--pos", "3,4", "--coco", "coco.json")

    done(paint.path, normalize(disk, "Größe"), "--clicks", "coco.json", "--coco", "again.json")
    assert (folder / "again.json").read_bytes() == (folder / "coco.json").read_bytes()


def test_a_list_without_names_is_for_one_image(paint: Bundle, folder: Path) -> None:
    (folder / "clicks.csv").write_text("x,y\n3,4\n")
    done(paint.path, "photo.png", "--clicks", "clicks.csv")
    assert (folder / "photo-mask.png").exists()
    refused("line 2: the list names no images, and there are 3", paint.path, "photos", "--clicks", "clicks.csv")
    refused("the command line neither", paint.path, "--clicks", "clicks.csv")


@pytest.mark.parametrize(
    ("content", "images", "words"),
    [
        ("image,x,y\nphotos/p3.png,1,2\n", ["photos"], "line 2: none of the 3 images is called 'photos/p3.png'"),
        ("image,x,y\np1.pgn,1,2\n", ["photos"], "did you mean 'p1.png'?"),
        ("image,x,y\nphotos/p3.png,1,2\n", [], "line 2: there is no file 'photos/p3.png'"),
        ("image,x,y\np1,1,2\n", ["photos", "more"], "line 2: 'p1' may be any of 2 images: photos/p1.png, more/p1.png"),
        ("image,x,y\nphotos/p1.png,1,2\nphotos/p1.png,90,2\n", [], "line 3: click (90.0, 2.0) is outside of the image"),
        ("image,x,y\nphoto.png,1,2\n", ["photos"], "no click for any of the 3 images"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_before_anything_runs(
    paint: Bundle, folder: Path, content: str, images: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(select, "open_request", opened)
    save(folder / "more" / "p1.png", (20, 20))
    (folder / "clicks.csv").write_text(content)
    refused(words, paint.path, *images, "--clicks", "clicks.csv", "--out-dir", "out")
    assert not (folder / "out").exists()


def test_images_of_the_list_that_are_not_named_are_left_out(paint: Bundle, folder: Path) -> None:
    (folder / "clicks.csv").write_text("image,x,y\nphoto.png,1,2\nphotos/p1.png,1,2\n")
    result = done(paint.path, "photo.png", "--clicks", "clicks.csv")
    assert "1 image of clicks.csv not named on the command line: photos/p1.png" in result.stderr


# --- files that are there, and failures -------------------------------------------------------------------------------


def test_existing_files_are_kept_or_passed_over(paint: Bundle, folder: Path) -> None:
    done(paint.path, "photos/p1.png", "--pos", "5,5", "--out-dir", "out")
    mine = folder / "out" / "masks" / "p1.png"
    mine.write_text("mine")
    refused("out/masks/p1.png exists", paint.path, "photos", "--pos", "5,5", "--out-dir", "out")
    result = done(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--skip-existing")
    assert "1 image passed over" in result.stderr
    assert "engine" in result.stdout
    assert mine.read_text() == "mine"
    assert len(files_in(folder / "out" / "masks")) == 3
    (folder / "out" / "overlays" / "p1.jpg").unlink()
    done(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--skip-existing")
    assert (folder / "out" / "overlays" / "p1.jpg").exists(), "only what is missing is written"
    assert mine.read_text() == "mine"
    result = done(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--skip-existing")
    assert "3 images passed over" in result.stderr
    assert result.stdout == "", "no engine is opened when nothing is left to do"
    done(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--overwrite")
    assert mask_of(mine).shape == (60, 90)


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(paint: Bundle, folder: Path) -> None:
    (folder / "photos" / "p3.png").write_text("hello")
    cut = (folder / "photos" / "p10.png").read_bytes()
    (folder / "photos" / "p4.png").write_bytes(cut[:60])
    result = segment(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--coco", "coco.json")
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "photos/p3.png is a text file" in said
    assert "photos/p4.png cannot be decoded" in said
    assert "error: 2 of 5 images could not be segmented: photos/p3.png, photos/p4.png" in said
    assert "finished 3 images, 3 objects" in result.stdout
    assert len(files_in(folder / "out" / "masks")) == 3
    images = json.loads((folder / "coco.json").read_text())["images"]
    assert [one["file_name"] for one in images] == ["p1.png", "p2.jpg", "p10.png"]
    refused("photos/p3.png is a text file", paint.path, "photos/p3.png", "--out", "mask.png")
    (folder / "photos" / "p4.png").write_text("hello")
    given = ("photos/p3.png", "photos/p4.png", "--pos", "5,5", "--coco", "none.json")
    refused("2 of 2 images could not be segmented", paint.path, *given)
    assert not (folder / "none.json").exists()


def test_an_interrupt_keeps_what_is_finished_and_writes_no_coco_file(
    paint: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Session.set_image, []

    def set_image(self: Session, *given: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *given, **named)

    monkeypatch.setattr(Session, "set_image", set_image)
    result = segment(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--coco", "coco.json")
    assert result.exit_code == 130
    assert "2 of 3 images are finished" in result.stderr
    assert files_in(folder / "out" / "masks") == ["p1.png", "p2.png"]
    assert not (folder / "coco.json").exists()
    monkeypatch.setattr(Session, "set_image", original)
    done(paint.path, "photos", "--pos", "5,5", "--out-dir", "out", "--skip-existing")
    assert len(files_in(folder / "out" / "masks")) == 3


def test_files_for_one_image_are_refused_for_several(paint: Bundle, folder: Path) -> None:
    refused(
        "--out mask.png is for one image, and there are 3", paint.path, "photos", "--pos", "5,5", "--out", "mask.png"
    )
    (folder / "clicks.csv").write_text("object,x,y\ncat,3,4\ndog,5,6\n")
    refused(
        "the mask of one object, and there are 2", paint.path, "photo.png", "--clicks", "clicks.csv", "--out", "m.png"
    )
    refused("photos/p2.jpg: click (60.0, 5.0) is outside", paint.path, "photos", "--pos", "60,5")


def test_a_coco_file_in_the_folder_of_the_results(paint: Bundle, folder: Path) -> None:
    outputs = ("--out-dir", "new/out", "--coco", "new/out/coco.json", "--write")
    done(paint.path, "photos", "--pos", "5,5", *outputs, "masks")
    assert (folder / "new" / "out" / "coco.json").exists()
    refused("new/out/coco.json exists", paint.path, "photos", *outputs, "labels")


def test_an_empty_mask_is_named_and_not_in_the_coco_file(paint: Bundle, folder: Path) -> None:
    given = ("--object", "cat", "--pos", "5,5", "--object", "none", "--neg", "60,60", "--coco", "coco.json")
    result = done(paint.path, "photo.png", *given, "--labels", "labels.png")
    assert "photo.png: the mask of 'none' is empty" in result.stderr
    coco = json.loads((folder / "coco.json").read_text())
    assert [one["surface"] for one in coco["annotations"]] == ["cat"]
    assert [one["name"] for one in coco["categories"]] == ["cat", "none"]
    assert read_labels(folder / "labels.png")[1] == {"cat": 1, "none": 2}


def test_what_is_read_is_not_written(paint: Bundle, folder: Path) -> None:
    save(folder / "out" / "masks" / "p1.png", (20, 20))
    given = ("out/masks/p1.png", "--pos", "5,5", "--out-dir", "out", "--overwrite")
    refused("out/masks/p1.png is read and would be written", paint.path, *given)


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".", "a\nb", 'a"<>|?*', "x" * 300, "ä" * 200, "CON:", " "])
def test_no_name_of_an_object_leads_out_of_the_folder(paint: Bundle, folder: Path, name: str) -> None:
    (folder / "clicks.json").write_text(json.dumps({"photo.png": {name: [[3, 4]], "other": [[5, 6]]}}))
    arguments = ("--clicks", "clicks.json", "--out-dir", "out", "--write", "masks,labels")
    if not name.strip():
        refused("the object is", paint.path, *arguments)
        return
    done(paint.path, *arguments)
    assert len(files_in(folder / "out" / "masks" / "photo")) == 2
    assert set(read_labels(folder / "out" / "labels" / "photo.png")[1]) == {name, "other"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CON", "CON_.png"), ("nul", "nul_.png"), ("aux.cat", "aux_.cat.png"), ("COM1", "COM1_.png"),
        ("lpt9.", "lpt9_.png"), ("prn .a", "prn_.a.png"), ("console", "console.png"), ("COM", "COM.png"),
    ],
)  # fmt: skip
def test_no_object_has_the_name_of_a_device_of_windows(paint: Bundle, folder: Path, name: str, file: str) -> None:
    done(paint.path, "photo.png", "--object", name, "--pos", "3,4", "--out-dir", "out", "--write", "masks")
    assert files_in(folder / "out") == [f"masks/photo/{file}"]


def test_objects_whose_files_would_be_one_are_refused(paint: Bundle, folder: Path) -> None:
    (folder / "clicks.json").write_text(json.dumps({"photo.png": {"Cat": [[3, 4]], "cat": [[5, 6]]}}))
    refused(
        "'Cat' and 'cat' of photo.png would have one file", paint.path, "--clicks", "clicks.json", "--out-dir", "out"
    )
    done(paint.path, "--clicks", "clicks.json", "--out-dir", "out", "--write", "labels")


def test_control_characters_are_shown_and_not_obeyed(paint: Bundle, folder: Path) -> None:
    (folder / "clicks.json").write_text(json.dumps({"photo.png": {"\x1b[31mred [bold]": [[3, 4]]}}))
    result = done(paint.path, "--clicks", "clicks.json", "--coco", "coco.json")
    assert "\x1b" not in result.output
    assert r"\x1b[31mred [bold]" in result.stdout
    (folder / "clicks.json").write_text(json.dumps({"\x1b[31m.png": [[3, 4]]}))
    result = segment(paint.path, "--clicks", "clicks.json")
    assert result.exit_code == 1
    assert "\x1b" not in result.output


# --- a network that answers for all objects at once -------------------------------------------------------------------


def test_all_objects_at_once(tmp_path: Path) -> None:
    bundle = write_joint(tmp_path / "joint")
    clicks = ("--object", "cat", "--pos", "20,30", "--object", "dog", "--pos", "120,60")
    clicks += ("--neg", "70,50", "--object", "cat", "--pos", "40,40")
    result = done(
        bundle.path, "photo.png", *clicks, "--out-dir", "out", "--write", "masks,labels", "--coco", "all.json"
    )
    with Session(bundle) as session:
        session.set_image("photo.png")
        for name, *click in (("cat", 20, 30), ("dog", 120, 60), ("dog", 70, 50, False), ("cat", 40, 40)):
            session.select(name)
            session.click(*click)
        masks = {name: session.select(name).mask for name in ("cat", "dog")}
        labels = session.labels
    written, names = read_labels("out/labels/photo.png")
    assert names == {"cat": 1, "dog": 2}
    np.testing.assert_array_equal(written, np.array([0, 0, 1, 2])[labels])  # the session's own "1" has no click
    for name, mask in masks.items():
        np.testing.assert_array_equal(np.asarray(Image.open(f"out/masks/photo/{name}.png")) > 0, mask)
        assert f"object   {name}: mask {mask.sum()} px" in result.stdout
    coco = json.loads(Path("all.json").read_text())
    assert [one["area"] for one in coco["annotations"]] == [masks["cat"].sum(), masks["dog"].sum()]
    assert [one["clicks"] for one in coco["annotations"]] == [
        [[20, 30, 1], [40, 40, 1]],
        [[120, 60, 1], [70, 50, 0]],
    ]
    Path("clicks.csv").write_text(
        "image,object,x,y,positive\nphoto.png,cat,20,30,1\nphoto.png,dog,120,60,1\nphoto.png,dog,70,50,0\n"
        "photo.png,cat,40,40,1\nphotos/p1.png,cat,3,3,1\n"
    )
    done(bundle.path, "--clicks", "clicks.csv", "--out-dir", "again", "--write", "labels")
    np.testing.assert_array_equal(read_labels("again/labels/photo.png")[0], written)


def test_more_than_a_list_of_clicks_holds_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_joint(tmp_path / "joint", sizes=(2, 4), objects=2)
    monkeypatch.setattr(select, "open_request", lambda *_: pytest.fail("an engine was opened"))
    point = ("--pos", "20,30")
    refused("at most 4", bundle.path, "photo.png", *point * 5)
    several = [word for name in ("a", "b", "c") for word in ("--object", name, *point)]
    refused("at most 2 at once", bundle.path, "photo.png", *several)
