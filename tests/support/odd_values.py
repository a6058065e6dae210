"""Arguments of wrong and odd kinds, drawn from a seed: what a program may pass by mistake, or on purpose."""

from __future__ import annotations

import random
from collections import OrderedDict, UserDict, UserList
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from mmms_deploy import LATER, Click, Polygon


class RaisedByArgument(Exception):
    """What a hostile argument raises by itself: a caller's own error, which passes through."""


class Hostile:
    """Answers nothing that Python or NumPy asks of it."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise RaisedByArgument

    def __len__(self) -> int:
        raise RaisedByArgument

    def __iter__(self) -> Iterator[Any]:
        raise RaisedByArgument

    def __getitem__(self, key: object) -> Any:
        raise RaisedByArgument

    def __float__(self) -> float:
        raise RaisedByArgument

    def __repr__(self) -> str:
        raise RaisedByArgument


class Unprintable:
    """Has no text."""

    def __repr__(self) -> str:
        raise RaisedByArgument


class Lying:
    """An array that is none."""

    shape = (32, 32)
    dtype = np.dtype(bool)
    ndim = 2

    def __array__(self, *_: object, **__: object) -> Any:
        return "no array"


class Longer(list):  # type: ignore[type-arg]
    """A list that says another length."""

    def __len__(self) -> int:
        return 1 << 40


class Endless:
    """Has one more item always; asked for too many, it says so."""

    def __iter__(self) -> Iterator[int]:
        yield from range(100_000)
        raise RaisedByArgument


class OwnArray(np.ndarray):
    """An array of a class of its own."""


class OwnText(str):
    """A text of a class of its own."""


class OwnNumber(float):
    """A number of a class of its own."""


class Reading:
    """A file that reads other things than bytes."""

    def read(self, *_: object) -> Any:
        return "text"

    def seek(self, *_: object) -> int:
        return 0

    def tell(self) -> int:
        return 0


def _raise(_: object) -> Any:
    raise RaisedByArgument


def _circular() -> Any:
    one: list[Any] = []
    one.append(one)
    return one


def _circular_dict() -> Any:
    one: dict[str, Any] = {}
    one["counts"] = one["surfaces"] = one["size"] = one
    return one


def _read_only() -> Any:
    array = np.zeros((32, 32), bool)
    array.setflags(write=False)
    return array


def _deep() -> Any:
    one: Any = []
    for _ in range(5000):
        one = [one]
    return one


NUMBERS: tuple[Callable[[], Any], ...] = (
    lambda: True,
    lambda: False,
    lambda: 0,
    lambda: 1,
    lambda: -1,
    lambda: 2,
    lambda: 10**9,
    lambda: 10**400,
    lambda: -(10**5000),
    lambda: 0.5,
    lambda: -0.5,
    lambda: 31.5,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: -float("inf"),
    lambda: 1e300,
    lambda: -0.0,
    lambda: 5e-324,
    lambda: 1j,
    lambda: Decimal("1.5"),
    lambda: Decimal("NaN"),
    lambda: Fraction(1, 3),
    lambda: OwnNumber(1.5),
    *(lambda t=t: np.dtype(t).type(1) for t in "?bBhHiIlLefdgFDG"),
    lambda: np.float64("nan"),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.timedelta64(1, "s"),
    lambda: np.str_("1"),
    lambda: np.array(3),
    lambda: np.array(3.5),
    lambda: np.array([3]),
)
TEXTS: tuple[Callable[[], Any], ...] = (
    lambda: "",
    lambda: "1",
    lambda: "2",
    lambda: "x",
    lambda: "\0",
    lambda: "\ud800",
    lambda: "é\u202e\x1b[31m",
    lambda: "a" * 6000,
    lambda: "../x",
    lambda: "rgb",
    lambda: "bgr",
    lambda: "rle",
    lambda: "cpu",
    lambda: "cuda:99",
    lambda: "fp16",
    lambda: OwnText("1"),
    lambda: "one.png",
    lambda: "one.json",
    lambda: "folder",
    lambda: Path("one.png"),
    Path,
    lambda: b"",
    lambda: b"x",
    lambda: b"\xff" * 100,
    lambda: bytearray(b"P6 1 1 255 abc"),
    lambda: memoryview(b"abcdef")[::2],
    lambda: b"\x89PNG\r\n\x1a\n" + bytes(50),
    lambda: BytesIO(b""),
    lambda: StringIO("x"),
    Reading,
)
ARRAYS: tuple[Callable[[], Any], ...] = (
    *(lambda t=t: np.zeros((32, 32), t) for t in "?bBhHiIlLqQefdgFD"),
    *(lambda t=t: np.ones((32, 32, 3), t) for t in "?BHif"),
    lambda: np.zeros((32, 32), object),
    lambda: np.full((32, 32), None, object),
    lambda: np.zeros((32, 32), "U3"),
    lambda: np.zeros((32, 32), "M8[s]"),
    lambda: np.zeros((32, 32), [("a", "u1"), ("b", "f4")]),
    lambda: np.zeros((32, 32), ">f8"),
    lambda: np.zeros((32, 32), ">u2"),
    lambda: np.zeros((0,), np.uint8),
    lambda: np.zeros((0, 0), bool),
    lambda: np.zeros((0, 3)),
    lambda: np.zeros((32, 0, 3), np.uint8),
    lambda: np.zeros((1, 32, 32), np.float32),
    lambda: np.zeros((1, 1, 32, 32), np.float32),
    lambda: np.zeros((1,) * 32, np.uint8),
    lambda: np.zeros((31, 32), bool),
    lambda: np.zeros((32, 32, 5), np.uint8),
    lambda: np.zeros((64, 64), bool)[::2, ::-2],
    lambda: np.asfortranarray(np.zeros((32, 32, 3), np.uint8)),
    lambda: np.broadcast_to(np.uint8(7), (32, 32, 3)),
    lambda: np.full((32, 32), np.nan),
    lambda: np.full((32, 32), np.inf, np.float32),
    lambda: np.full((32, 32), 0.5, np.float16),
    lambda: np.full((32, 32), 255, np.uint8),
    lambda: np.full((32, 32), -1),
    lambda: np.full((32, 32), 2**63, np.uint64),
    _read_only,
    lambda: np.ma.MaskedArray(np.zeros((32, 32)), mask=True),
    lambda: np.ma.MaskedArray(np.zeros((32, 32), bool)),
    lambda: np.zeros((32, 32), bool).view(OwnArray),
    lambda: np.matrix(np.zeros((32, 32))),
    lambda: np.zeros((32, 32), np.uint8).tolist(),
    lambda: [[0, 0], [0]],
    lambda: np.array([[3.0, 4.0, 1.0]]),
    lambda: np.array([[np.nan, 4.0]]),
    lambda: memoryview(np.zeros((32, 32), np.uint8)),
    Lying,
)
CONTAINERS: tuple[Callable[[], Any], ...] = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    lambda: [None],
    lambda: [[]],
    lambda: [[1, 2]],
    lambda: [[1, 2, 1], [3, 4, 0]],
    lambda: [[1, 2, 3, 4]],
    lambda: [(1, "2")],
    lambda: [Click(1, 2)],
    lambda: [Click(1e9, 2)],
    lambda: [Click("x", None)],  # type: ignore[arg-type]
    lambda: [{"x": 1, "y": 2}],
    lambda: [{"x": 1, "y": 2, "positive": 2, "z": 1}],
    lambda: [{"choice": 0}],
    lambda: [{"choice": 10**400}],
    lambda: {"x": 1},
    lambda: {1: 2, None: 3, ("a",): 4},
    lambda: {"\ud800": "\ud800"},
    lambda: {"1": 10**400},
    lambda: {"a": 1, "b": 1},
    lambda: {"size": [32, 32], "counts": "x"},
    lambda: {"size": [32, 32], "counts": [1024]},
    lambda: {"size": [10**9, 10**9], "counts": [10**18]},
    lambda: {"size": [32, 32], "counts": [-1, 1025]},
    lambda: {"size": [32, 32], "counts": b"\xff"},
    lambda: {"size": None, "counts": None},
    lambda: {"segmentation": {"size": [32, 32], "counts": [1024]}},
    lambda: [[1, 1, 5, 1, 5, 5]],
    lambda: [[1, 1, float("nan"), 1, 5, 5]],
    lambda: [[1, 1, 1e300, 1, 5, -1e300]],
    lambda: {"images": [], "annotations": [], "categories": []},
    lambda: {"images": [{"id": 1}], "annotations": [{"image_id": 1}], "categories": [{}]},
    lambda: {"images": None, "annotations": 3, "categories": "x"},
    lambda: {"format": "mmms-deploy-session", "version": 1},
    lambda: OrderedDict(a=1),
    lambda: UserDict(size=[32, 32], counts=[1024]),
    lambda: UserList([[1, 2, 1]]),
    lambda: Longer([[1, 2]]),
    lambda: (one for one in [[1, 2, 1], [3, 4, 1]]),
    lambda: iter([]),
    lambda: range(3),
    lambda: map(_raise, ["x"]),
    Endless,
    _circular,
    _circular_dict,
    _deep,
)
OBJECTS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    object,
    Hostile,
    Unprintable,
    lambda: Ellipsis,
    lambda: NotImplemented,
    lambda: LATER,
    lambda: int,
    lambda: np,
    lambda: len,
    lambda: Click(3, 4),
    lambda: Click(float("nan"), 4),
    lambda: Polygon(np.array([[1, 1], [5, 1], [5, 5.0]])),
    lambda: [Polygon(np.array([[1, 1], [5, 1], [5, 5.0]]))],
    lambda: [Polygon(np.array([[1, np.nan], [5, 1], [5, 5.0]]))],
    lambda: Polygon("x"),  # type: ignore[arg-type]
    lambda: Polygon(np.zeros((0, 2)), holes=(None,)),  # type: ignore[arg-type]
    lambda: Exception("x"),
    lambda: slice(None),
)
EVERY = (*NUMBERS, *TEXTS, *ARRAYS, *CONTAINERS, *OBJECTS)


def odd(draw: random.Random) -> Any:
    """Return one of them, a new one each time; kinds are equally likely."""
    return draw.choice(draw.choice((NUMBERS, TEXTS, ARRAYS, CONTAINERS, OBJECTS)))()
