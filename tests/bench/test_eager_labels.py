"""The network in PyTorch that a bench compares with, where the network sees a map of labels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mmms_deploy.bench.eager import EagerMMMS
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.models.checkpoint import random_network
from tests.support.interformer import tiny_interformer
from tests.support.toy import write_toy


def test_it_answers_as_the_reference(tmp_path) -> None:
    config = tiny_interformer()
    manifest = write_toy(tmp_path / "labelled", labels=True).manifest
    provenance = msgspec.structs.replace(manifest.provenance, description=to_builtins(config), random_seed=3)
    manifest = msgspec.structs.replace(manifest, provenance=provenance, image=config.image)
    (picture,) = make_pictures(manifest, 1, 4, (80, 120))
    eager, reference = EagerMMMS(manifest, 1), TorchReference(random_network(config, 3))
    eager.set_image(picture)
    reference.set_image(picture.rgb, {})
    for x, y, positive in picture.clicks:
        mask, answer = eager.click(x, y, positive), reference.click(x, y, positive)
        assert eager.probability == pytest.approx(answer.network_probability[0, 0].numpy(), abs=1e-5)
        assert np.array_equal(mask[answer.certain], answer.mask[answer.certain])
