"""The fields of a click contract for lists of points and several answers."""

from __future__ import annotations

import msgspec
import pytest

from mmms_deploy.bundle import AnswerForm, AnswerSpec, ClickContract, PointList, ResizeRule


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
