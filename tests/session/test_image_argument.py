"""The image by both of its names, in every form, and what is said where a keyword was guessed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import ImageError, ModalityError
from tests.support.annotating import GREY, SIZE
from tests.support.toy import write_toy

PHOTO = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def answer(session: Session) -> bytes:
    return session.click(10, 10).network_probability.tobytes()


def test_both_names_and_every_form(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(file)
    session.set_image(PHOTO)
    expected = answer(session)
    for source in (PHOTO, file, str(file), file.read_bytes(), io.BytesIO(file.read_bytes()), Image.open(file)):
        for call in (
            session.set_image,
            lambda one: session.set_image(rgb=one),
            lambda one: session.set_image(image=one),
        ):
            assert set(call(source).to_dict()) == {"prepare", "engine", "total"}
            assert answer(session) == expected


def test_frames_of_opencv(paint: Bundle, tmp_path: Path) -> None:
    """The toy network does not tell colours apart, so the pixels that arrive are compared."""
    with Session(paint, threads=1) as session:
        taken = []
        prepare = session._inputs.prepare_image
        session._inputs.prepare_image = lambda image: taken.append(image) or prepare(image)  # type: ignore[method-assign, func-returns-value]
        session.set_image(PHOTO[:, :, ::-1], channel_order="bgr")
        session.set_image(image=PHOTO[:, :, ::-1], channel_order="BGR")
        for pixels in taken:
            np.testing.assert_array_equal(pixels, PHOTO)


def test_two_images_or_none(session: Session) -> None:
    with pytest.raises(ImageError, match="two images, as its first argument and as image="):
        session.set_image(GREY, image=GREY)
    for call in (session.set_image, lambda: session.set_image(None), lambda: session.set_image(image=None)):
        with pytest.raises(ImageError, match=r"no image, or None[\s\S]*cv2.imread returns None"):
            call()


@pytest.mark.parametrize(
    ("keywords", "fix"),
    [
        ({"bgr": GREY}, 'set_image(array, channel_order="bgr")'),
        ({"image_bgr": GREY}, 'set_image(array, channel_order="bgr")'),
        ({"frame_bgr": GREY, "rgb": GREY}, 'set_image(array, channel_order="bgr")'),
        ({"rgb": GREY, "image_format": "BGR"}, 'set_image(array, channel_order="bgr")'),
        ({"rgb": GREY, "image_format": "RGB"}, 'set_image(array, channel_order="rgb")'),
        ({"rgb": GREY, "format": "bgr"}, 'set_image(array, channel_order="bgr")'),
        ({"img": GREY}, "set_image(image)"),
        ({"frame": GREY}, 'set_image(frame, channel_order="bgr") where it comes from OpenCV'),
        ({"rgb": GREY, "order": "bgr"}, 'set_image(array, channel_order="bgr")'),
        ({"rgb": GREY, "color_space": "BGR"}, 'set_image(array, channel_order="bgr")'),
        ({"path": "photo.jpg"}, "set_image(image)"),
    ],
)
def test_names_that_are_guessed_lead_to_the_right_one(session: Session, keywords: dict[str, object], fix: str) -> None:
    before = session.click(10, 10)
    with pytest.raises(ImageError) as caught:
        session.set_image(**keywords)  # type: ignore[arg-type]
    assert fix in str(caught.value.fix)
    assert caught.value.expected
    assert session.result is before


def test_other_keywords_are_modalities(session: Session) -> None:
    with pytest.raises(ModalityError, match="surplus: depth"):
        session.set_image(GREY, depth=GREY)


def test_a_modality_may_have_a_guessed_name(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "frame", modalities=(ModalitySpec(name="frame"),))
    with Session(bundle, threads=1) as session:
        session.set_image(GREY, frame=np.zeros(SIZE))
        assert session.modalities == {"frame"}


@pytest.mark.parametrize("name", ["image", "channel_order"])
def test_no_modality_has_a_name_of_the_image(name: str) -> None:
    with pytest.raises(ValueError, match="expected a lower-case identifier not in"):
        ModalitySpec(name=name)


def test_modalities_as_contents(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "depth", modalities=(ModalitySpec(name="depth", scale=0.01),))
    depth = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    png, npy = io.BytesIO(), io.BytesIO()
    Image.fromarray(depth).save(png, "PNG")
    np.save(npy, depth)
    answers = set()
    with Session(bundle, threads=1) as session:
        for source in (depth, png, png.getvalue(), npy, memoryview(npy.getvalue())):
            session.set_image(GREY, depth=source)
            answers.add(answer(session))
    assert len(answers) == 1
