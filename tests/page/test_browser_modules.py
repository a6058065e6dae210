"""The arithmetic of the browser's modules, compared with Python's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy.annotations.rle import rle_of
from mmms_deploy.bundle.contract import ClickContract, Coordinates, ResizeRule
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import resize, resize_above, through_image
from mmms_deploy.session.answers import given_logits
from mmms_deploy.session.click_labels import labels_of_mask
from mmms_deploy.session.result import Click

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PLAIN, ALIGNED, WIDENED = ResizeRule(), ResizeRule(align_corners=True), ResizeRule(antialias=True)
SIZES = [
    ((8, 8), (8, 8)),
    ((8, 12), (64, 50)),
    ((7, 5), (33, 61)),
    ((56, 56), (720, 1280)),
    ((1, 9), (40, 3)),
    ((40, 60), (11, 17)),
    ((30, 20), (90, 7)),
    ((5, 5), (1, 1)),
]
RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def imported(chromium: Browser, page_files: str) -> Iterator[Page]:
    """One page for all tests here: they keep nothing in it."""
    page = chromium.new_page()
    page.route("**/empty.html", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto(f"{page_files}/empty.html")
    yield page
    page.close()


def packed(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


READ = """
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const floats = (text) => new Float32Array(bytes(text).buffer);
const text = (array) => {
  const content = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let made = "";
  for (let i = 0; i < content.length; i += 4096) {
    made += String.fromCharCode(...content.subarray(i, i + 4096));
  }
  return btoa(made);
};
"""


def call(page: Page, body: str, *args: object) -> Any:
    """Run JavaScript that may use ``args``, ``bytes``, ``floats`` and ``text``."""
    return page.evaluate(f"async (args) => {{ {READ} {body} }}", list(args))


def numbers(said: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(said), dtype=dtype).reshape(shape)


def plain(rule: ResizeRule) -> dict[str, bool]:
    return {"align_corners": rule.align_corners, "antialias": rule.antialias}


@pytest.mark.parametrize("rule", [PLAIN, ALIGNED, WIDENED], ids=["half_pixel", "align_corners", "antialias"])
def test_maps_are_resized_as_in_python(imported: Page, rule: ResizeRule) -> None:
    for before, after in SIZES:
        plane = RANDOM.normal(size=before).astype(np.float32)
        said = call(
            imported,
            """const { resize } = await import("/browser/resize.js");
            const [plane, [height, width], size, rule] = args;
            return text(resize({ height, width, numbers: floats(plane) }, size, rule).numbers);""",
            *(packed(plane), before, after, plain(rule)),
        )
        np.testing.assert_allclose(numbers(said, "<f4", after), resize(plane, after, rule), atol=1e-5)


@pytest.mark.parametrize("rule", [PLAIN, ALIGNED], ids=["half_pixel", "align_corners"])
@pytest.mark.parametrize("threshold", [0.5, 0.0, -1.25])
def test_masks_are_those_of_python_but_for_rounding(imported: Page, rule: ResizeRule, threshold: float) -> None:
    for before, after in SIZES:
        plane = RANDOM.normal(size=before).astype(np.float32)
        said = call(
            imported,
            """const { resizeAbove } = await import("/browser/resize.js");
            const [plane, [height, width], size, rule, threshold] = args;
            return text(resizeAbove({ height, width, numbers: floats(plane) }, size, rule, threshold));""",
            *(packed(plane), before, after, plain(rule), threshold),
        )
        mask = numbers(said, "u1", after).astype(bool)
        near = np.abs(resize(plane, after, rule) - threshold) < 1e-5
        np.testing.assert_array_equal(mask[~near], resize_above(plane, after, rule, threshold)[~near])
        assert np.count_nonzero(near) <= 1 + 1e-4 * near.size


def test_flat_maps_at_the_threshold_are_not_above_it(imported: Page) -> None:
    plane = np.full((6, 6), 0.5, dtype=np.float32)
    for after in ((6, 6), (60, 47)):
        said = call(
            imported,
            """const { resizeAbove } = await import("/browser/resize.js");
            const rule = { align_corners: false, antialias: false };
            return text(resizeAbove({ height: 6, width: 6, numbers: floats(args[0]) }, args[1], rule, 0.5));""",
            *(packed(plane), after),
        )
        assert not numbers(said, "u1", after).any()


@pytest.mark.parametrize(("up", "down"), [(PLAIN, WIDENED), (ALIGNED, ALIGNED), (PLAIN, PLAIN)])
def test_maps_go_through_the_images_size_as_in_python(imported: Page, up: ResizeRule, down: ResizeRule) -> None:
    for before, between in SIZES:
        plane = RANDOM.random(before).astype(np.float32)
        said = call(
            imported,
            """const { throughImage } = await import("/browser/resize.js");
            const [plane, [height, width], size, up, down] = args;
            return text(throughImage({ height, width, numbers: floats(plane) }, size, up, down).numbers);""",
            *(packed(plane), before, between, plain(up), plain(down)),
        )
        expected = through_image(plane, between, up, down)
        np.testing.assert_allclose(numbers(said, "<f4", before), expected, atol=2e-6)


@pytest.mark.parametrize("decode", ["decodeHalf", "decodeBits"])
def test_every_half_precision_number_is_exact(imported: Page, decode: str) -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    said = call(
        imported,
        """const half = await import("/browser/half.js");
        return text(half[args[1]](new Uint16Array(bytes(args[0]).buffer)));""",
        *(packed(bits), decode),
    )
    found, expected = numbers(said, "<f4", (1 << 16,)), bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


@pytest.mark.parametrize("rule", list(Coordinates))
def test_clicks_lie_where_python_says(imported: Page, rule: Coordinates) -> None:
    cases = [
        (float(x), float(y), image, network)
        for image in ((480, 640), (1, 7), (3000, 4000))
        for network in ((224, 224), (1, 1), (30, 50))
        for x, y in RANDOM.uniform(-0.5, 4000, (6, 2))
    ]
    said = call(
        imported,
        """const { toNetwork } = await import("/browser/coordinates.js");
        return args[0].map(([x, y, image, network]) => toNetwork(x, y, image, network, args[1]));""",
        *(cases, str(rule)),
    )
    expected = [to_network(x, y, image=image, network=network, rule=rule) for x, y, image, network in cases]
    np.testing.assert_allclose(said, expected, rtol=1e-14)


def test_run_lengths_are_those_of_coco_and_come_back(imported: Page) -> None:
    height, width = 19, 23
    masks = [RANDOM.random((height, width)) < part for part in (0.0, 0.02, 0.5, 0.97, 1.0)]
    corner = np.zeros((height, width), dtype=bool)
    corner[-1, -1] = corner[0, 5:9] = corner[:, 12] = True
    for mask in (*masks, corner):
        said = call(
            imported,
            """const { maskOf, maskOfRle, rleOf, wholeOf } = await import("/browser/masks.js");
            const [pixels, size] = args;
            const rle = rleOf(maskOf(bytes(pixels), size), size);
            return [rle, text(wholeOf(maskOfRle(rle.counts, size), size))];""",
            *(packed(mask.astype(np.uint8)), (height, width)),
        )
        assert said[0] == rle_of(mask)
        np.testing.assert_array_equal(numbers(said[1], "u1", mask.shape).astype(bool), mask)


def test_masks_that_are_put_in_are_labels_and_logits_as_in_python(imported: Page) -> None:
    rule = ClickContract(radius=4.5, threshold=0.4)
    probability = RANDOM.random((30, 40)).astype(np.float32)
    probability[0, :4] = 0, 1, -1e-7, np.nextafter(np.float32(1), np.float32(2))
    clicks = [Click(30.2, 20.7, positive=True), Click(70.0, 50.0, positive=False), Click(32.0, 24.0, positive=False)]
    said = call(
        imported,
        """const { givenLogits, labelsOfMask } = await import("/browser/forms.js");
        const [plane, clicks, image, network, contract] = args;
        const labels = labelsOfMask(floats(plane), clicks, image, network, contract);
        return [text(labels), text(givenLogits(floats(plane)))];""",
        packed(probability),
        [{"x": one.x, "y": one.y, "positive": one.positive} for one in clicks],
        *((60, 90), probability.shape, {"radius": 4.5, "threshold": 0.4, "coordinates": "half_pixel"}),
    )
    labels = labels_of_mask(probability, clicks, (60, 90), rule)[0, 0]
    np.testing.assert_array_equal(numbers(said[0], "u1", probability.shape), labels)
    np.testing.assert_allclose(numbers(said[1], "<f4", probability.shape), given_logits(probability), rtol=1e-6)


def test_the_label_map_is_that_of_all_masks_laid_over_each_other(imported: Page) -> None:
    """Steps that change one mask, the order, or nothing, each compared with painting everything."""
    size, steps = (24, 31), 60
    planes = [(RANDOM.random(size) < 0.3) & (RANDOM.random(size) < RANDOM.random()) for _ in range(12)]
    drawn = [RANDOM.permutation(12)[: RANDOM.integers(0, 6)].tolist() for _ in range(steps)]
    said = call(
        imported,
        """const { LabelMap } = await import("/browser/label_map.js");
        const { maskOf } = await import("/browser/masks.js");
        const [planes, steps, size] = args;
        const masks = planes.map((plane) => maskOf(bytes(plane), size));
        const map = new LabelMap(size);
        return steps.map((step) => {
          const changed = map.paint(step.map((i) => ({ label: i + 1, mask: masks[i] })));
          return [changed, changed && text(map.within(changed)), text(map.labels), [...map.extents()]];
        });""",
        *([packed(plane.astype(np.uint8)) for plane in planes], drawn, size),
    )
    before = np.zeros(size, dtype=np.uint16)
    for step, (changed, within, whole, extents) in zip(drawn, said, strict=True):
        labels = np.zeros(size, dtype=np.uint16)
        for i in step:
            labels[planes[i]] = i + 1
        np.testing.assert_array_equal(numbers(whole, "<u2", size), labels)
        rows, columns = np.nonzero(labels != before)
        if rows.size == 0:
            assert changed is None
        else:
            box = [int(v) for v in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
            assert [changed[key] for key in ("x", "y", "width", "height")] == box
            part = labels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
            np.testing.assert_array_equal(numbers(within, "<u2", part.shape), part)
        areas = {
            label: int(count) for label, count in zip(*np.unique(labels[labels > 0], return_counts=True), strict=True)
        }
        assert {label: extent["area"] for label, extent in extents} == areas
        before = labels


def test_tensors_that_no_history_reaches_are_freed(imported: Page) -> None:
    """A stage of JavaScript whose answer is a half-filled map; what is kept are the tensors of four snapshots."""
    said = call(
        imported,
        """const { LocalSession } = await import("/browser/local_session.js");
        const plain = { align_corners: false, antialias: false };
        const contract = {
          ...{ answers: null, points: null, memory: "maps", previous_resize: null, mask_resize: plain },
          ...{ threshold: 0.5, coordinates: "half_pixel", radius: 5 },
        };
        const state = [{ input: "maps", output: "maps_next", start: 0 }, { input: "prev", output: "prob", start: 0 }];
        const tensors = { click: "click", answer: "prob", previous: "prev", candidates: null };
        const clicks = { size: [4, 4], answer_size: [4, 4], contract, state, tensors, history_limit: 3 };
        let kept = new Set();
        const stage = {
          filled: (name) => ({ name }),
          upload: (name, numbers) => ({ name, numbers }),
          run: async () => new Map([["maps_next", {}], ["prob", { numbers: new Float32Array(16).fill(1, 8) }]]),
          numbers: async (tensor) => tensor.numbers,
          keep: (tensors) => { kept = tensors; },
        };
        const session = new LocalSession(clicks, [8, 8], stage);
        const sizes = [];
        for (let i = 0; i < 6; i += 1) {
          await session.click(i, 3, true);
          sizes.push(kept.size);
        }
        for (const made of ["undo", "undo", "reset"]) {
          await session[made]();
          sizes.push(kept.size);
        }
        return sizes;""",
    )
    # Two of the snapshot before any click, which are always there, and two of every click that can be reached.
    assert said == [4, 6, 8, 10, 10, 10, 10, 10, 2]
