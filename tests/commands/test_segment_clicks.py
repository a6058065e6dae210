"""Lists of clicks: every form is read, and everything that is no click is refused with its line or place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmms_deploy.commands import segment_clicks
from mmms_deploy.commands.segment_clicks import read_click_list
from mmms_deploy.errors import ClickListError
from mmms_deploy.session.surfaces import FIRST

Read = dict[str | None, list[tuple[str, float, float, bool]]]


def read(tmp_path: Path, content: str | bytes | object, name: str = "") -> Read:
    if isinstance(content, str | bytes):
        file = tmp_path / (name or "clicks.csv")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        file = tmp_path / (name or "clicks.json")
        file.write_text(json.dumps(content))
    found = read_click_list(file)
    return {
        image: [(click.object, click.x, click.y, click.positive) for click in clicks]
        for image, clicks in found.clicks.items()
    }


TWO = {"a.jpg": [("cat", 3.0, 4.5, True), ("cat", 5.0, 6.0, False)], "b.jpg": [("dog", 7.0, 8.0, True)]}


@pytest.mark.parametrize(
    "content",
    [
        "image,object,x,y,positive\na.jpg,cat,3,4.5,1\na.jpg,cat,5,6,0\nb.jpg,dog,7,8,1\n",
        "y,x,label,image,object\n4.5,3,1.0,a.jpg,cat\n6,5,0.0,a.jpg,cat\n8,7,1,b.jpg,dog\n",
        "\ufeffImage, Object ,X,Y,Positive\r\na.jpg,cat,3,4.5,True\r\n\r\na.jpg,cat,5,6,false\r\nb.jpg,dog,7,8,yes\r\n",
        "image;object;x;y;positive\na.jpg;cat;3;4.5;+\na.jpg;cat;5;6;-\nb.jpg;dog;7;8;pos\n;;;;\n",
        '\ufeff"image";"object";"x";"y";"positive"\r\n"a.jpg";"cat";"3,0";" 4,5";1\r\na.jpg;cat;5;"6,00";0\r\n'
        '"b.jpg";"dog";7;8,0;1\r\n',
        "sep=;\r\nimage;object;x;y;positive\r\na.jpg;cat;3;4,5;1\r\na.jpg;cat;5;6;0\r\nb.jpg;dog;7;8;1\r\n",
        'image\tobject\tx\ty\tpositive\na.jpg\tcat\t3\t4.5\t1\na.jpg\tcat\t5\t6\tneg\n"b.jpg"\tdog\t7\t8\t1\n',
        {"a.jpg": {"cat": [[3, 4.5, 1], [5, 6, 0]]}, "b.jpg": {"dog": [[7, 8]]}},
        {"a.jpg": {"cat": [[3, 4.5, True], [5, 6, False]]}, "b.jpg": {"dog": [{"x": 7, "y": 8}]}},
        [
            {"image": "a.jpg", "object": "cat", "x": 3, "y": 4.5, "positive": True},
            {"image": "a.jpg", "object": "cat", "x": 5, "y": 6, "label": 0},
            {"image": "b.jpg", "object": "dog", "x": 7, "y": 8},
        ],
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "clicks": [[3, 4.5, 1], [5, 6, 0]]},
                {"image_id": 9, "category_id": 2, "clicks": [[7, 8, 1]]},
            ],
        },
    ],
)
def test_every_form_says_the_same(tmp_path: Path, content: object) -> None:
    assert read(tmp_path, content) == TWO


def test_image_and_object_may_be_missing(tmp_path: Path) -> None:
    assert read(tmp_path, "x,y\n3,4\n") == {None: [("1", 3, 4, True)]}
    assert read(tmp_path, "object,x,y\n,3,4\n") == {None: [("1", 3, 4, True)]}
    assert read(tmp_path, [[3, 4], [5, 6, 0]]) == {None: [("1", 3, 4, True), ("1", 5, 6, False)]}
    assert read(tmp_path, {"a.jpg": [[3, 4]]}) == {"a.jpg": [("1", 3, 4, True)]}


def test_json_is_told_by_its_content(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf [[3, 4]]", "clicks.txt") == {None: [("1", 3, 4, True)]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        ("image,object,x,y,positive\n", "it holds no click"),
        ("a.jpg,cat,3,4,1\n", "line 1: the header names no columns x and y"),
        ("image,x,y,postive\na,1,2,1\n", "the column 'postive' is not known; did you mean 'positive'?"),
        ("filename,x,y\na,1,2\n", "did you mean 'image'?"),
        ("x,y,x\n1,2,3\n", "'x' is there twice"),
        ("x,y,label,positive\n1,2,1,1\n", "both 'positive' and 'label'"),
        ("x,y\n1,2\n1\n", "line 3: there are 1 cells where the header names 2 columns"),
        ("x,y\n1,2,1\n", "line 2: there are 3 cells"),
        ("x,y\n1,\n", "line 2: y is ''"),
        ("x,y\n1,abc\n", "line 2: y is 'abc'"),
        ("x,y\n1,1_0\n", "line 2: y is '1_0'"),
        ("x,y\nnan,1\n", "line 2: x is 'nan'"),
        ("x,y\n1e999,1\n", "line 2: x is '1e999'"),
        ('x,y\n"3,5",1\n', "a point for the decimals"),
        ("x;y\n1,000,5;1\n", "line 2: x is '1,000,5'"),
        ("x;y\n3,;1\n", "line 2: x is '3,'"),
        ("sep=;\nx;z\n3;1\n", "line 2: the header names no columns x and y"),
        ("sep=;\nx;y\n3;a\n", "line 3: y is 'a'"),
        ("image;x;y\nZürich;1;2\n".encode("cp1252"), "'CSV UTF-8'"),
        ("x,y,positive\n1,2,maybe\n", "line 2: positive is 'maybe'"),
        ("x,y,positive\n1,2,\n", "line 2: positive is ''"),
        ("x,y,label\n1,2,2\n", "corners of a box"),
        ("image,x,y\n,1,2\n", "line 2: the image is ''"),
        ('x,y\n"1,2\n', "no usable CSV"),
        ("x,y\n1,2\0\n", "line 2"),
        (b"\xff\xfe" + "x,y\n1,2\n".encode("utf-16-le"), "no text in UTF-8"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_csv_file_is_named_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ClickListError) as found:
        read(tmp_path, content)
    assert words in str(found.value)
    assert str(tmp_path / "clicks.csv") in str(found.value)


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1, "clicks": [[1, 2, 1]]}],
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "it holds no click"),
        (3, "it holds 3"),
        ({"a.jpg": 3}, "'a.jpg': its clicks are 3"),
        ({"": [[1, 2]]}, "the name of a picture is empty"),
        ({"a.jpg": {"cat": {"x": 1}}}, "'a.jpg', object 'cat': the clicks are an object of 1"),
        ({"a.jpg": {"cat": [[1, 2], [1]]}}, "'a.jpg', object 'cat', click 2: it is a list of 1"),
        ({"a.jpg": {"": [[1, 2]]}}, "the object is ''"),
        ({"a.jpg": [320, 240]}, "'a.jpg', click 1: it is 320"),
        ({"a.jpg": [["x", 2]]}, "x is 'x'"),
        ({"a.jpg": [[True, 2]]}, "x is True"),
        ({"a.jpg": [[1, 10**400]]}, "y is 1000"),
        ({"a.jpg": [[1, 2, 5]]}, "positive is 5"),
        ([{"image": "a.jpg", "x": 1}], "record 1: y is missing"),
        ([{"image": 3, "x": 1, "y": 2}], "record 1: the image is 3"),
        ([{"image": "a.jpg", "x": 1, "y": 2, "lable": 1}], "did you mean 'label'?"),
        ([{"image": "a.jpg", "x": 1, "y": 2, "object": 5}], "record 1: the object is 5"),
        ({**COCO, "images": []}, "annotation 1: its image_id is 1"),
        ({**COCO, "images": [{"id": "x", "file_name": "a.jpg"}]}, "images, entry 1"),
        ({**COCO, "images": COCO["images"] * 2}, "the id 1 is there twice"),
        ({**COCO, "annotations": [{"image_id": 1, "category_id": 1}]}, "annotation 1: it has no clicks"),
        ({**COCO, "annotations": [7]}, "annotation 1: it is 7"),
        ('{"a.jpg": [[1, 2]], "a.jpg": [[3, 4]]}', "the key 'a.jpg' is there twice"),
        ('{"a.jpg": [[1, NaN]]}', "NaN is no JSON"),
        ("{", "no usable JSON"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_json_file_is_named_with_its_place(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(ClickListError) as found:
        read(tmp_path, content, "clicks.json")
    assert words in str(found.value)


def test_there_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_clicks, "MOST", 2)
    assert read(tmp_path, "x,y\n1,2\n1,2\n")
    with pytest.raises(ClickListError, match="more than 2 clicks"):
        read(tmp_path, "x,y\n1,2\n1,2\n1,2\n")
    monkeypatch.setattr(segment_clicks, "LARGEST", 5)
    with pytest.raises(ClickListError, match="at most 5 bytes"):
        read(tmp_path, "x,y\n1,2\n")
    with pytest.raises(ClickListError, match="no list of clicks at"):
        read_click_list(tmp_path / "nothing.csv")


def test_clicks_that_name_no_object_are_on_the_first_surface() -> None:
    assert segment_clicks.UNNAMED == FIRST
