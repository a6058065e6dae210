"""The fields of a click contract for lists of points and of clicks, and for several answers."""

from __future__ import annotations

import msgspec
import pytest

from mmms_deploy.bundle import (
    AnswerForm,
    AnswerSpec,
    ClickContract,
    ClickList,
    ClickMemory,
    PointList,
    Rate,
    ResizeRule,
)


def test_a_contract_without_these_fields_reads_as_before() -> None:
    old = msgspec.json.decode(b'{"radius": 5.0}', type=ClickContract)
    assert old.points is None
    assert (old.answer_form, old.candidates, old.answer_size((448, 320))) == (AnswerForm.PROBABILITY, 1, (448, 320))


def test_the_fields_survive_being_written() -> None:
    contract = ClickContract(
        points=PointList(most=8), answers=AnswerSpec(form=AnswerForm.LOGITS, size=(256, 128), candidates=3)
    )
    assert msgspec.json.decode(msgspec.json.encode(contract), type=ClickContract) == contract
    assert (contract.answer_form, contract.candidates) == (AnswerForm.LOGITS, 3)
    assert contract.answer_size((1024, 1024)) == (256, 128)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"points": {"most": 0}}', "a list of points has from 1"),
        (b'{"answers": {"candidates": 0}}', "a network gives from 1"),
        (b'{"answers": {"size": [0, 8]}}', "an answer has sides from 1"),
        (b'{"answers": {"form": "odds"}}', "odds"),
    ],
)
def test_impossible_values_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.json.decode(raw, type=ClickContract)


def test_logits_are_not_reduced_as_probabilities() -> None:
    with pytest.raises(ValueError, match="previous_resize reduces a probability"):
        ClickContract(answers=AnswerSpec(form=AnswerForm.LOGITS), previous_resize=ResizeRule())


def test_lists_of_clicks_survive_being_written() -> None:
    contract = ClickContract(memory=ClickMemory.CLICKS, listed=ClickList(sizes=(4, 32), objects=255, learned=9))
    assert msgspec.json.decode(msgspec.json.encode(contract), type=ClickContract) == contract
    assert contract.listed is not None
    assert (contract.objects, contract.listed.fields) == (255, 5)
    assert [contract.listed.size_for(clicks) for clicks in (0, 4, 5, 32, 33)] == [4, 4, 32, 32, None]
    assert (ClickContract().objects, ClickList().fields) == (1, 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sizes": ()}, "must rise, from 1 to 4096 rows, got \\(\\)"),
        ({"sizes": (16, 16)}, "must rise"),
        ({"sizes": (0, 16)}, "must rise"),
        ({"sizes": (16, 5000)}, "must rise"),
        ({"objects": 256}, "1 to 255 objects"),
        ({"learned": 9}, "learned rows belong to an answer for several objects"),
    ],
)
def test_impossible_lists_are_refused(fields, words) -> None:
    with pytest.raises(ValueError, match=words):
        ClickList(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"listed": None}, "needs memory = 'clicks' and listed"),
        ({"memory": ClickMemory.MAPS}, "needs memory = 'clicks' and listed"),
        ({"previous_resize": ResizeRule()}, "leave out previous_resize"),
        ({"points": PointList()}, "leave out points"),
        ({"first_pass": True}, "leave out first_pass"),
        ({"answers": AnswerSpec(candidates=3)}, "come at the first click alone"),
        (
            {"listed": ClickList(objects=2), "answers": AnswerSpec(candidates=3, proposals=True)},
            "several objects at once, or with several candidates",
        ),
    ],
)
def test_a_list_of_clicks_excludes_a_state(fields, words) -> None:
    with pytest.raises(ValueError, match=words):
        ClickContract(**{"memory": ClickMemory.CLICKS, "listed": ClickList(), **fields})


def test_proposals_are_several_and_need_the_list() -> None:
    with pytest.raises(ValueError, match="got candidates = 1"):
        AnswerSpec(proposals=True)
    with pytest.raises(ValueError, match="takes all clicks as a list"):
        ClickContract(answers=AnswerSpec(candidates=7, proposals=True))


def test_rates_are_ordered_from_slow_to_fast() -> None:
    assert sorted([Rate.CLICK, Rate.FIRST_CLICK, Rate.IMAGE, Rate.MODALITY]) == list(Rate)
    assert max(Rate.FIRST_CLICK, Rate.CLICK) is Rate.CLICK
    assert Rate.MODALITY < Rate.FIRST_CLICK <= Rate.CLICK
    assert [rate.value for rate in Rate] == [0, 1, 3, 2], "the numbers in bundles that exist"
