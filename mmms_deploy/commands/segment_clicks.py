"""Lists of clicks for ``mmms-segment``, as CSV or JSON: which clicks, on which object of which picture.

Several forms are read, told by their content:

- CSV with a header: ``image,object,x,y,positive``; ``label`` (1 and 0) may stand for ``positive``
- JSON by picture and object: ``{"photo.jpg": {"cat": [[x, y, 1], [x, y, 0]]}}``, or ``{"photo.jpg": [[x, y, 1]]}``
- JSON records with the names of the columns: ``[{"image": "photo.jpg", "object": "cat", "x": 3, "y": 4}]``
- the COCO JSON that ``mmms-segment --coco`` writes, whose annotations hold their clicks
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmms_deploy.errors import ClickListError, FileReadError
from mmms_deploy.files import MIB, decode_json, read_bytes
from mmms_deploy.spelling import did_you_mean

UNNAMED = "1"
"""The object of clicks that name none: the surface that an image begins with."""
LARGEST = 64 * MIB
"""The most bytes that a list may have."""
MOST = 1_000_000
"""The most clicks that a list may have."""

_COLUMNS = ("image", "object", "x", "y", "positive", "label")
_ALIASES = {"file-name": "image", "filename": "image", "file": "image", "path": "image", "name": "object"}
_SIGNS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "positive", "pos", "+"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "negative", "neg", "-"), False),
}
_SEPARATOR = re.compile(r"\"?sep=(?P<sign>[,;\t])\"?", re.IGNORECASE)
"""A first line that tells a spreadsheet what separates the cells."""
_DECIMAL_COMMA = re.compile(r"^(\s*[+-]?[0-9]*),([0-9]+(?:[eE][+-]?[0-9]+)?\s*)$")
_SIGN = "1 (on the object) or 0 (off it)"
_CSV = "a CSV file whose first line names the columns, such as image,object,x,y,positive"
_JSON = 'JSON such as {"photo.jpg": {"cat": [[320, 240, 1], [40, 50, 0]]}}'


@dataclass(frozen=True, slots=True)
class ListedClick:
    """A click of a list, not compared with its picture yet.

    Attributes:
        object: Name of the object that is clicked.
        x: Column in the picture's own pixels.
        y: Row.
        positive: True on the object, False off it.
        where: Its place in the list, for messages, e.g. ``line 3``; empty for one from the command line.
        choice: Which of several answers to it is taken, from 0; None for the network's own choice.
    """

    object: str
    x: float
    y: float
    positive: bool
    where: str = ""
    choice: int | None = None


@dataclass(frozen=True)
class ClickList:
    """The clicks of a file.

    Attributes:
        path: The file.
        clicks: The clicks of every picture, in order, by the picture's name as the file writes it; None is the name of
            the only picture of a list that names none.
    """

    path: Path
    clicks: Mapping[str | None, tuple[ListedClick, ...]]


def read_click_list(path: Path) -> ClickList:
    """Read a list of clicks.

    Args:
        path: A CSV or JSON file in UTF-8, of at most :data:`LARGEST` bytes and :data:`MOST` clicks.

    Raises:
        ClickListError: It cannot be read, or something in it is no click; the message names the line or the place.
    """
    try:
        text = read_bytes(path, LARGEST).decode("utf-8-sig")
        is_json = path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "[")
        found = _of_json(path, decode_json(text, path, unique=True)) if is_json else _of_csv(path, text)
        clicks: dict[str | None, list[ListedClick]] = {}
        for number, (image, click) in enumerate(found):
            if number == MOST:
                raise _error(path, "", f"it holds more than {MOST} clicks", f"at most {MOST}", "cut it into parts")
            clicks.setdefault(image, []).append(click)
    except UnicodeDecodeError as error:
        given = f"it is no text in UTF-8 ({error.reason} at byte {error.start})"
        fix = "save it as UTF-8; in a spreadsheet, choose the file type 'CSV UTF-8'"
        raise _error(path, "", given, _CSV, fix) from error
    except FileReadError as error:
        if error.missing:
            raise ClickListError(
                f"no list of clicks at {path}", expected=f"{_CSV}, or JSON", fix="check the path"
            ) from None
        raise ClickListError(f"{path}: {error.reason}", expected=error.expected, fix="check the file") from error
    if not clicks:
        raise _error(path, "", "it holds no click", f"{_CSV}; or {_JSON}", "add the clicks to it")
    return ClickList(path, {image: tuple(listed) for image, listed in clicks.items()})


# --- CSV --------------------------------------------------------------------------------------------------------------


def _of_csv(path: Path, text: str) -> Iterator[tuple[str | None, ListedClick]]:
    lines = io.StringIO(text, newline=None)
    header = lines.readline()
    said = _SEPARATOR.fullmatch(header.strip("\r\n"))
    if said is not None:
        header = lines.readline()
    # Spreadsheets of countries that write 3,5 for a half separate cells by semicolons.
    delimiter = said["sign"] if said is not None else max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if said is not None:
            next(rows)
        names = _columns(path, next(rows, []), "line 1" if said is None else "line 2")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            where = f"line {rows.line_num}"
            if len(row) != len(names):
                given = f"there are {len(row)} cells where the header names {len(names)} columns"
                raise _error(path, where, given, "a cell for every column", "complete the line")
            record = dict(zip(names, row, strict=True))
            if delimiter != ",":
                record |= {axis: _DECIMAL_COMMA.sub(r"\1.\2", record[axis]) for axis in ("x", "y")}
            yield _record(path, where, record)
    except csv.Error as error:
        raise _error(path, f"line {rows.line_num}", f"it is no usable CSV: {error}", _CSV) from error


def _columns(path: Path, header: list[str], where: str) -> list[str]:
    names = [cell.strip().casefold() for cell in header]
    if not {"x", "y"} <= set(names):
        given = f"the header names no columns x and y: {','.join(header)[:200]}" if header else "it is empty"
        raise _error(path, where, given, _CSV, "write the names of the columns into the first line")
    _check_names(path, where, names, "column")
    return names


def _check_names(path: Path, where: str, names: list[str], what: str) -> None:
    for name in names:
        if name not in _COLUMNS:
            meant = did_you_mean(name, _COLUMNS, _ALIASES)
            fix = f"correct or remove the {what}"
            raise _error(path, where, f"the {what} {name!r} is not known{meant}", f"of {', '.join(_COLUMNS)}", fix)
        if names.count(name) > 1:
            raise _error(path, where, f"the {what} {name!r} is there twice", "every name once", "remove one of them")
    if {"positive", "label"} <= set(names):
        expected = "one of them: they say the same"
        raise _error(path, where, "it has both 'positive' and 'label'", expected, "remove one of them")


def _record(path: Path, where: str, record: Mapping[str, object]) -> tuple[str | None, ListedClick]:
    """Return the click of a line or of a JSON record with the names of the columns."""
    image = record.get("image")
    if "image" in record and not (isinstance(image, str) and image.strip()):
        raise _error(path, where, f"the image is {_brief(image)}", "the name of a picture", "name the picture")
    sign = record.get("positive", record.get("label", True))
    name = record.get("object", "")
    if isinstance(name, str) and not name.strip():
        name = UNNAMED
    return image if isinstance(image, str) else None, _click(path, where, name, record.get("x"), record.get("y"), sign)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _of_json(path: Path, found: object) -> Iterator[tuple[str | None, ListedClick]]:
    if isinstance(found, dict):
        if isinstance(found.get("images"), list) and isinstance(found.get("annotations"), list):
            yield from _of_coco(path, found)
            return
        for image, objects in found.items():
            yield from ((image, click) for click in _of_image(path, image, objects))
    elif isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        for number, record in enumerate(found, start=1):
            _check_names(path, f"record {number}", [str(name) for name in record], "field")
            yield _record(path, f"record {number}", record)
    elif isinstance(found, list):
        yield from ((None, click) for click in _of_object(path, "", UNNAMED, found))
    else:
        raise _error(path, "", f"it holds {_brief(found)}", _JSON)


def _of_image(path: Path, image: str, objects: object) -> Iterator[ListedClick]:
    if not image.strip():
        raise _error(path, "", "the name of a picture is empty", _JSON, "name the picture")
    if isinstance(objects, list):
        yield from _of_object(path, repr(image), UNNAMED, objects)
    elif isinstance(objects, dict):
        for name, clicks in objects.items():
            yield from _of_object(path, f"{image!r}, object {name!r}", name, clicks)
    else:
        raise _error(path, repr(image), f"its clicks are {_brief(objects)}", _JSON)


def _of_object(path: Path, where: str, name: str, clicks: object) -> Iterator[ListedClick]:
    if not isinstance(clicks, list):
        raise _error(path, where, f"the clicks are {_brief(clicks)}", "a list such as [[320, 240, 1]]")
    for number, click in enumerate(clicks, start=1):
        here = f"{where}, click {number}" if where else f"click {number}"
        if isinstance(click, dict):
            _check_names(path, here, [str(key) for key in click], "field")
            yield _record(path, here, {**click, "object": name})[1]
        elif isinstance(click, list) and 2 <= len(click) <= 3:
            yield _click(path, here, name, click[0], click[1], click[2] if len(click) > 2 else True)
        else:
            raise _error(path, here, f"it is {_brief(click)}", "[x, y], [x, y, 1] or [x, y, 0]")


def _of_coco(path: Path, found: dict[str, object]) -> Iterator[tuple[str | None, ListedClick]]:
    images = _by_id(path, found, "images", "file_name")
    categories = _by_id(path, found, "categories", "name")
    annotations = found["annotations"]
    assert isinstance(annotations, list)
    for number, annotation in enumerate(annotations, start=1):
        where = f"annotation {number}"
        if not isinstance(annotation, dict):
            raise _error(path, where, f"it is {_brief(annotation)}", "an annotation of COCO")
        image = _looked_up(path, where, annotation, "image_id", images)
        name = _looked_up(path, where, annotation, "category_id", categories)
        clicks = annotation.get("clicks")
        if not clicks:
            expected = "COCO JSON that mmms-segment --coco wrote; its annotations hold their clicks"
            raise _error(path, where, "it has no clicks", expected, "list the clicks yourself, as CSV or JSON")
        yield from ((image, click) for click in _of_object(path, where, name, clicks))


def _by_id(path: Path, found: dict[str, object], what: str, name: str) -> dict[int, str]:
    entries = found.get(what)
    named: dict[int, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        key, text = (entry.get("id"), entry.get(name)) if isinstance(entry, dict) else (None, None)
        if not isinstance(key, int) or isinstance(key, bool) or not isinstance(text, str) or not text.strip():
            raise _error(path, f"{what}, entry {number}", f"it has no usable 'id' and {name!r}", "COCO JSON")
        if key in named:
            raise _error(path, f"{what}, entry {number}", f"the id {key} is there twice", "every id once")
        named[key] = text
    return named


def _looked_up(path: Path, where: str, annotation: Mapping[str, object], key: str, names: Mapping[int, str]) -> str:
    value = annotation.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value not in names:
        raise _error(path, where, f"its {key} is {_brief(value)}, and there is no entry of this id", "COCO JSON")
    return names[value]


# --- one click --------------------------------------------------------------------------------------------------------


def _click(path: Path, where: str, name: object, x: object, y: object, sign: object) -> ListedClick:
    if not isinstance(name, str) or not name.strip():
        raise _error(path, where, f"the object is {_brief(name)}", "a name, such as cat", "name the object")
    return ListedClick(
        name, _number(path, where, "x", x), _number(path, where, "y", y), _sign(path, where, sign), where
    )


def _number(path: Path, where: str, axis: str, value: object) -> float:
    expected, fix = "a finite number of pixels, such as 320 or 31.5", ""
    number = math.nan
    if isinstance(value, str) and "_" not in value:  # Python would read 1_0 as ten
        fix = "write a point for the decimals, not a comma" if "," in value else ""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise _error(path, where, f"{axis} is {_brief(value)}", expected, fix)
    return number


def _sign(path: Path, where: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().casefold() in _SIGNS:
        return _SIGNS[value.strip().casefold()]
    fix = ""
    if str(value).strip() in ("2", "3", "-1"):
        fix = "leave it out: SAM's labels 2 and 3 are corners of a box and -1 is padding, and neither is a click"
    raise _error(path, where, f"positive is {_brief(value)}", _SIGN, fix)


def _brief(value: object) -> str:
    """Return a short form of a value for a message."""
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # a number of too many digits to print
        return "a number of too many digits"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _error(path: Path, where: str, given: str, expected: str, fix: str = "") -> ClickListError:
    place = f"{path}, {where}" if where else str(path)
    return ClickListError(f"{place}: {given}", expected=expected, fix=fix or "correct it there")
