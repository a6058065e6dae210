"""The page's label PNG: written as Python writes it, and read as Python reads it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import read_labels, write_labels
from tests.support.annotating import GREY, SIZE
from tests.support.masks import AWKWARD, noisy
from tests.support.pngs import GREY as GREYS
from tests.support.pngs import PALETTE, SIGNATURE, chunk, chunks_of, header, picture
from tests.support.saving import Named, Refused, as_map, call_saving, patches

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = {
    "10": 2,
    "1": 10,
    'dög "x" \'': 3,
    "犬 \U0001f408": 7,
    "__proto__": 4,
    "constructor": 5,
    "a\nb\t\\ \x7f\x00": 6,
    "</script>": 9,
    "gone": 255,
}
SIZES = [(1, 1), (1, 7), (9, 1), (13, 17), (64, 48), (200, 300)]


def label_maps() -> list[tuple[np.ndarray, dict[str, int]]]:
    found = [(patches(size, range(1, 11), seed), NAMES) for seed, size in enumerate(SIZES)]
    found += [(patches(size, range(1, 11), seed), {**NAMES, "many": 256}) for seed, size in enumerate(SIZES)]
    found += [(patches((31, 33), range(1, 400), 1), {}), (patches((20, 20), [65535, 300, 1], 2), {"last": 65535})]
    found += [(mask * 3, {"three": 3}) for mask in AWKWARD.values()]
    found += [(mask * 200 + 1, {}) for mask in noisy(10)]
    return found


def turned(names: dict[str, int]) -> Named:
    return Named(tuple((label, name) for name, label in names.items()))


def unpacked(content: bytes) -> tuple[dict[bytes, bytes], np.ndarray, str]:
    """The chunks but the packed ones, and the samples and mode that Pillow finds."""
    chunks = chunks_of(content)
    with Image.open(io.BytesIO(content)) as image:
        return {kind: own for kind, own in chunks if kind != b"IDAT"}, np.asarray(image), image.mode


def test_written_files_are_those_of_python(modules: Page, tmp_path: Path) -> None:
    cases = label_maps()
    made = call_saving(modules, "labelPng", [[{**as_map(labels), "names": turned(names)}] for labels, names in cases])
    for (labels, names), content in zip(cases, made, strict=True):
        write_labels(tmp_path / "labels.png", labels, names, overwrite=True)
        expected, samples, mode = unpacked((tmp_path / "labels.png").read_bytes())
        chunks, found, found_mode = unpacked(content)
        assert chunks == expected
        assert found_mode == mode
        np.testing.assert_array_equal(found, samples)
        read, named = read_labels(content)
        np.testing.assert_array_equal(read, labels)
        assert named == read_labels(tmp_path / "labels.png")[1]
        kinds = [kind for kind, _ in chunks_of(content)]
        assert [kinds[0], kinds[-1]] == [b"IHDR", b"IEND"]
        for place, (kind, own) in enumerate(chunks_of(content)):
            assert chunk(kind, own) in content, f"the checksum of chunk {place}"


def test_files_are_read_as_python_reads_them(modules: Page, tmp_path: Path) -> None:
    files = []
    for labels, names in label_maps():
        write_labels(tmp_path / "labels.png", labels, names, overwrite=True)
        files.append((tmp_path / "labels.png").read_bytes())
    write_labels(tmp_path / "labels.png", patches((9, 9), [1, 2], 3), None, overwrite=True)
    files.append((tmp_path / "labels.png").read_bytes())
    for bits, colour in [(1, GREYS), (2, GREYS), (4, GREYS), (8, GREYS), (16, GREYS)] + [
        (n, PALETTE) for n in (1, 2, 4, 8)
    ]:
        for seed, size in enumerate([(1, 1), (3, 5), (8, 8), (19, 21), (2, 40)]):
            samples = np.random.default_rng(seed).integers(0, 1 << bits, size)
            for filters in ([0], [1], [2], [3], [4], [4, 2, 0, 3, 1]):
                files.append(picture(samples, bits, colour, filters=filters, part=7))
            files.append(picture(samples, bits, colour, filters=[3, 4, 1], interlaced=True))
    # As other programs store them.
    samples = patches((30, 20), [1, 2, 200], 5).astype(np.uint8)
    for mode in ("L", "1"):
        stream = io.BytesIO()
        Image.fromarray(samples).convert(mode).save(stream, format="PNG", optimize=True)
        files.append(stream.getvalue())
    json = b'{"dog": 2, "3": 7, "1": 200}'
    packed = b"mmms_labels\0" + b"\1\0de\0Namen\0" + zlib.compress('{"Löwe": 2}'.encode())
    texts = [
        chunk(b"tEXt", b"mmms_labels\0" + json),
        chunk(b"zTXt", b"mmms_labels\0\0" + zlib.compress(json)),
        chunk(b"iTXt", packed),
        chunk(b"iTXt", b"mmms_labels\0\0\0\0\0" + json) + chunk(b"tEXt", b"mmms_labels\0{}"),
        chunk(b"tEXt", b"mmms_labels2\0no names") + chunk(b"tIME", bytes(7)),
    ]
    files += [picture(samples, between=[text]) for text in texts] + [picture(samples, after=[text]) for text in texts]
    for content, found in zip(files, call_saving(modules, "readLabelPng", [[one] for one in files]), strict=True):
        labels, names = read_labels(content)
        assert not isinstance(found, Refused), found
        assert (found["height"], found["width"]) == labels.shape
        np.testing.assert_array_equal(found["labels"].reshape(labels.shape), labels)
        assert list(found["names"].pairs) == [(label, name) for name, label in names.items()]


def test_a_session_takes_it_up(modules: Page, paint: Bundle, tmp_path: Path) -> None:
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        session.click(10, 10)
        session.select('dög "x"')
        session.click(50, 30)
        session.select("none")
        names = Named(tuple((label, name) for name, label in session.surfaces.items()))
        (content,) = call_saving(modules, "labelPng", [[{**as_map(session.labels), "names": names}]])
        session.save_labels(tmp_path / "labels.png")
        labels, surfaces = session.labels, dict(session.surfaces)
    (tmp_path / "page.png").write_bytes(content)
    for file in (content, tmp_path / "page.png"):
        with Session(paint, threads=1) as session:
            session.set_image(GREY)
            assert session.load_labels(file) == surfaces
            np.testing.assert_array_equal(session.labels, labels)
    saved = (tmp_path / "labels.png").read_bytes()
    (found, other) = call_saving(modules, "readLabelPng", [[saved, list(SIZE)], [saved, [SIZE[1], SIZE[0]]]])
    np.testing.assert_array_equal(found["labels"].reshape(SIZE), labels)
    assert found["names"] == names
    assert isinstance(other, Refused)
    assert "70 columns and 50 rows" in other.given


def with_header(content: bytes, **changes: Any) -> bytes:
    return content[:8] + header(**{"width": 20, "height": 30, **changes}) + content[33:]


def made_of(data: bytes) -> bytes:
    return SIGNATURE + header(20, 30) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def broken() -> dict[str, tuple[bytes, str]]:
    samples = patches((30, 20), [1, 2, 200], 5)
    good = picture(samples, filters=[0, 1, 2])
    data = dict(chunks_of(good))[b"IDAT"]
    packed = {"short": data[:-6], "not zlib": b"x" * 40, "wrong sum": data[:-4] + b"1234", "more": data + b"more"}
    found = {
        f"its data: {name}": (good.replace(chunk(b"IDAT", data), chunk(b"IDAT", own)), "data")
        for name, own in packed.items()
    }
    names = {
        "no JSON": b"{",
        "a list": b"[1]",
        "a label of 0": b'{"a": 0}',
        "no number": b'{"a": "1"}',
        "no name": b'{"": 1}',
        "twice": b'{"a": 1, "b": 1}',
        "no Unicode": b'{"\xff": 1}',
        "half a pair": b'{"\\ud800": 1}',
    }
    for name, text in names.items():
        damaged = picture(samples, between=[chunk(b"iTXt", b"mmms_labels\0\0\0\0\0" + text)])
        found[f"its names: {name}"] = damaged, "names"
    bomb = b"mmms_labels\0\0" + zlib.compress(b"{" + b" " * (8 << 20) + b"}", 9)
    found["names that unpack to 8 MB"] = picture(samples, between=[chunk(b"zTXt", bomb)]), "names"
    turn = struct.pack(">2sHIHHHIHH", b"MM", 42, 8, 1, 0x112, 3, 1, 6, 0)
    return {
        **found,
        "empty": (b"", "no PNG"),
        "a JPEG": (b"\xff\xd8\xff\xe0" + bytes(40), "no PNG"),
        "no chunk": (SIGNATURE, "too early"),
        "no end": (good[:-12], "too early"),
        "no name of a chunk": (SIGNATURE + chunk(b"\0\0\0\0", b""), "name"),
        "no header": (made_of(b"")[:8] + made_of(b"")[33:], "begin"),
        "no data": (SIGNATURE + header(20, 30) + chunk(b"IEND", b""), "too short"),
        "colours": (with_header(good, colour=2), "3 channels"),
        "grey and alpha": (with_header(good, colour=4), "2 channels"),
        "a depth that is none": (with_header(good, bits=3), "header"),
        "a palette of 16 bits": (with_header(good, bits=16), "header"),
        "no pixels": (with_header(good, width=0), "0 x 30"),
        "too large": (with_header(good, width=1 << 20, height=1 << 20), "at most"),
        "larger than its data": (with_header(good, width=13000, height=13000), "too short"),
        "a little larger than its data": (with_header(good, height=31), "early"),
        "smaller than its data": (with_header(good, height=29), "more rows"),
        "an unknown filter": (made_of(zlib.compress(bytes([9]) + bytes(629))), "filter 9"),
        "a bomb": (made_of(zlib.compress(bytes(64 << 20), 9)), "more rows"),
        "turned": (picture(samples, between=[chunk(b"eXIf", turn)]), "turned"),
    }


def test_damaged_files_are_refused_by_name(modules: Page) -> None:
    cases = broken()
    good = picture(patches((12, 10), [1, 2], 5), 8, GREYS, between=[chunk(b"iTXt", b'mmms_labels\0\0\0\0\0{"a": 1}')])
    cut = [good[:length] for length in range(len(good))]
    flipped = [good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :] for place in range(len(good))]
    # What is allocated, and what is unpacked, is counted.
    modules.evaluate("""() => {
      const counted = { longest: 0, unpacked: 0 };
      globalThis.counted = counted;
      const { read } = ReadableStreamDefaultReader.prototype;
      ReadableStreamDefaultReader.prototype.read = async function () {
        const part = await read.call(this);
        counted.unpacked += part.value?.length ?? 0;
        return part;
      };
      globalThis.Uint16Array = new Proxy(Uint16Array, {
        construct(kind, given, made) {
          if (typeof given[0] === "number") counted.longest = Math.max(counted.longest, given[0]);
          return Reflect.construct(kind, given, made);
        },
      });
    }""")
    answers = call_saving(modules, "readLabelPng", [[content] for content, _ in cases.values()])
    for (name, (_, said)), answer in zip(cases.items(), answers, strict=True):
        assert isinstance(answer, Refused), name
        assert (answer.name, answer.kind) == ("AnswerError", "AnnotationError"), (name, answer)
        assert said in answer.given, (name, answer)
        assert answer.expected
        assert answer.fix
    counted = modules.evaluate("() => counted")
    assert 620 <= counted["longest"] <= 640
    assert counted["unpacked"] < 4 << 20  # of 64 MB and 8 MB
    for number, answer in enumerate(call_saving(modules, "readLabelPng", [[one] for one in (*cut, *flipped)])):
        assert isinstance(answer, Refused), number
        assert answer.kind == "AnnotationError", (number, answer)
        assert any(word in answer.given for word in ("PNG", "early", "chunk", "checksum")), (number, answer)


def test_label_maps_that_are_none(modules: Page) -> None:
    plain = as_map(patches((4, 5), [1], 0))
    names = Named(((1, "dog"),))
    wrong: list[dict[str, Any]] = [
        {**plain, "width": 6, "names": names},
        {**plain, "width": 2.5, "height": 8, "names": names},
        {**plain, "labels": [1] * 20, "names": names},
        {"labels": np.zeros(0, np.uint16), "width": 0, "height": 4, "names": names},
        {**plain, "names": Named(((0, "dog"),))},
        {**plain, "names": Named(((65536, "dog"),))},
        {**plain, "names": Named(((1, ""),))},
        {**plain, "names": Named(((1, "dog"), (2, "dog")))},
        {**plain, "names": Named(((1, 3),))},  # type: ignore[arg-type]
    ]
    for given, answer in zip(wrong, call_saving(modules, "labelPng", [[one] for one in wrong]), strict=True):
        assert isinstance(answer, Refused), given
        assert answer.kind == "AnnotationError"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_read(modules: Page, seed: int) -> None:
    random = np.random.default_rng(seed)
    cases = []
    for _ in range(20):
        size = tuple(int(side) for side in random.integers(1, 40, 2))
        labels = random.choice(random.integers(1, 65536 if random.random() < 0.5 else 256, 6), 6)
        cases.append(patches((size[0], size[1]), [int(one) for one in labels], seed))
    named = [Named(tuple((int(label), f"n{label}") for label in np.unique(one) if label)) for one in cases]
    files = call_saving(modules, "labelPng", [[{**as_map(m), "names": n}] for m, n in zip(cases, named, strict=True)])
    read = call_saving(modules, "readLabelPng", [[one] for one in files])
    for labels, names, found in zip(cases, named, read, strict=True):
        np.testing.assert_array_equal(found["labels"].reshape(labels.shape), labels)
        assert found["names"] == names
