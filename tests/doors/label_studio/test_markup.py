"""A labelling configuration: which tags are found, and what is refused."""

from __future__ import annotations

import pytest

from mmms_deploy.doors.label_studio.markup import EXAMPLE, Control, parse_markup, picture_of
from mmms_deploy.errors import DoorError
from tests.support.labelling import configuration

RICH = """<View>
  <Header value="Click on the object"/>
  <View style="x">
    <Image name="left" value="$a"/><Image name="right" value="$b"/>
  </View>
  <BrushLabels name="strokes" toName="left"><Label value="car"/><Label value="A long name" alias="short"/></BrushLabels>
  <BitmaskLabels name="bits" toName="left"><View><Label value="road"/></View></BitmaskLabels>
  <Brush name="plain" toName="right"/>
  <KeyPointLabels name="dots" toName="left" smartOnly="true"><Label value="car"/><Label value="road"/></KeyPointLabels>
  <KeyPoint name="bare" toName="right" smart="true"/>
  <RectangleLabels name="boxes" toName="left"><Label value="car"/></RectangleLabels>
  <Choices name="sort" toName="left"><Choice value="car"/></Choices>
</View>"""


def test_every_tag_has_its_own_names() -> None:
    markup = parse_markup(RICH)
    assert markup.pictures == {"left": "a", "right": "b"}
    assert markup.prompts(boxes=False) == (
        Control("keypointlabels", "dots", "left", ("car", "road"), smart=True),
        Control("keypoint", "bare", "right", smart=True, open=True),
    )
    assert [one.name for one in markup.prompts(boxes=True)] == ["dots", "bare", "boxes"]
    assert [one.labels for one in markup.masks("left")] == [("road",), ("car", "short")]
    markup.check(boxes=False)


@pytest.mark.parametrize(("labels", "name"), [(["car"], "strokes"), (["road"], "bits"), (["short"], "strokes")])
def test_a_mask_goes_to_the_tag_that_has_its_label(labels: list[str], name: str) -> None:
    assert parse_markup(RICH).mask_for("left", labels).name == name


def test_a_tag_without_labels_takes_all() -> None:
    assert parse_markup(RICH).mask_for("right", []).name == "plain"


def test_a_bitmask_comes_before_a_brush() -> None:
    both = configuration().replace(
        "<KeyPoint", '<BitmaskLabels name="bits" toName="pic"><Label value="object"/></BitmaskLabels><KeyPoint', 1
    )
    assert parse_markup(both).mask_for("pic", ["object"]).name == "bits"


def test_labels_of_each_task_are_not_checked() -> None:
    text = configuration().replace('<BrushLabels name="area"', '<BrushLabels value="$names" name="area"')
    assert parse_markup(text).mask_for("pic", ["anything"]).name == "area"


def test_an_unknown_label_is_refused_by_name() -> None:
    with pytest.raises(DoorError, match=r"has the label 'dog' \(bits: road; strokes: car, short\)"):
        parse_markup(RICH).mask_for("left", ["dog"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no XML"),
        ("<View>", "is no XML"),
        ("no tags", "is no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "declares a document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>', "declares a document type"),
        ("<View>" * 200 + "</View>" * 200, "nested too deeply"),
        ("<View>" + " " * (1 << 20) + "</View>", "characters"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, said: str) -> None:
    with pytest.raises(DoorError, match=said):
        parse_markup(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<View/>", "has no KeyPointLabels for an Image"),
        (configuration(smart=False), "has no smart tag: points of dots are not sent"),
        (configuration("Ellipse"), "has no tag to answer with"),
        (configuration().replace('<Image name="pic"', '<Image name="other"'), "has no KeyPointLabels for an Image"),
        (configuration().replace('toName="pic" smart', 'toName="none" smart'), "has no KeyPointLabels for an Image"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(text: str, said: str) -> None:
    with pytest.raises(DoorError, match=said):
        parse_markup(text).check(boxes=False)


@pytest.mark.parametrize(
    ("attributes", "smart"),
    [("", True), ('smart="true"', True), ('smart="false"', False), ('smart="false" smartOnly="true"', True)],
)
def test_every_tag_is_smart_that_does_not_say_otherwise(attributes: str, smart: bool) -> None:
    (control,) = parse_markup(configuration().replace('smart="true"', attributes)).prompts(boxes=False)
    assert control.smart is smart


def test_the_example_can_be_used() -> None:
    parse_markup(EXAMPLE).check(boxes=False)


def test_boxes_alone_are_enough_where_the_network_takes_them() -> None:
    text = configuration().replace("KeyPointLabels", "RectangleLabels")
    parse_markup(text).check(boxes=True)
    with pytest.raises(DoorError, match="has no KeyPointLabels"):
        parse_markup(text).check(boxes=False)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("other", {"photo": "/a"}, "an Image of the labelling configuration: pic"),
        ("pic", {}, "the task's 'photo' is not there"),
        ("pic", {"photo": ["/a", "/b"]}, "the task's 'photo' holds"),
        ("pic", {"photo": ""}, "the task's 'photo' holds ''"),
    ],
)
def test_a_task_without_the_picture_says_what_is_missing(name: str, data: dict[str, object], said: str) -> None:
    with pytest.raises(DoorError, match=said):
        picture_of(parse_markup(configuration()), name, data)


def test_a_list_of_pictures_is_refused() -> None:
    text = configuration().replace('value="$photo"', 'valueList="$photos"')
    with pytest.raises(DoorError, match="has no value"):
        picture_of(parse_markup(text), "pic", {"photos": ["/a"]})
