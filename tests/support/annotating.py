"""A grey image, the clicks of an annotator on it, and the answers that NumPy finds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmms_deploy import Bundle, Click, ClickResult, Session
from mmms_deploy.engines.protocol import Value
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.resize import resize
from tests.support.toy import Reference

SIZE = (50, 70)
GREY = np.full((*SIZE, 3), 51, dtype=np.uint8)
NETWORK = (64, 96)
PLANE = 4 * NETWORK[0] * NETWORK[1]
"""Bytes of a float32 map of the network's size."""


def click_on(session: Session, count: int) -> None:
    for number in range(count):
        session.click(number % 70, 10)


def annotated(session: Session) -> list[np.ndarray]:
    """Clicks, undo, redo and a new branch; the answers."""
    session.set_image(GREY)
    answers = [session.click(x, y, x != 30).network_probability for x, y in ((10, 10), (60, 40), (30, 20), (31, 22))]
    answers += [session.undo().network_probability for _ in range(3)]
    answers.append(session.redo().network_probability)
    answers.append(session.click(5, 45).network_probability)
    session.set_image(GREY // 2)
    answers.append(session.click(35, 25).network_probability)
    return answers


def reference(bundle: Bundle, clicks: list[Click], feature: float = 0.2) -> np.ndarray:
    """The probability (H0, W0) that NumPy finds for these clicks."""
    network = Reference(bundle.manifest, feature, SIZE)
    probability = network.prob
    for click in clicks:
        column, row = to_network(
            click.x, click.y, image=SIZE, network=bundle.manifest.size, rule=bundle.manifest.clicks.coordinates
        )
        probability = network.click(column, row, click.positive)
    return resize(probability, SIZE, bundle.manifest.clicks.mask_resize)


def recorded_outputs(session: Session) -> dict[str, Value]:
    """Return a dict that receives, by name, the tensors of every stage that the session runs from now on."""
    outputs: dict[str, Value] = {}
    runner = session._runner
    run = runner.run

    def recorded(stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        values = run(stage, inputs)
        outputs.update(values)
        return values

    runner.run = recorded  # type: ignore[method-assign]
    return outputs


def check(result: ClickResult, probability: np.ndarray) -> None:
    np.testing.assert_allclose(result.probability, probability, atol=1e-5)
    certain = np.abs(probability - 0.5) > 1e-4
    np.testing.assert_array_equal(result.mask[certain], (probability > 0.5)[certain])
