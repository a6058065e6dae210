"""The graphs that tests share: a network with any difference has a graph of its own."""

from __future__ import annotations

from mmms_deploy.bundle.contract import ClickContract, PreviousMask
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.network import RecurrentNetwork
from mmms_deploy.export.rewrites import EVERY
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.models.checkpoint import random_network
from tests.support.tiny import DEPTH, EVENT, tiny_config
from tests.support.traced import fingerprint


def test_a_network_is_known_by_all_that_its_graph_depends_on() -> None:
    network = random_network(tiny_config(DEPTH), 0)
    binary = tiny_config(DEPTH, clicks=ClickContract(previous=PreviousMask.MASK, radius=4.0))
    different = [
        RecurrentNetwork(deploy_form(network)[0]),
        RecurrentNetwork(deploy_form(network)[0], {Cut.BLACK_BOX}),
        RecurrentNetwork(deploy_form(network, {EVERY})[0]),
        RecurrentNetwork(deploy_form(random_network(tiny_config(DEPTH), 1))[0]),
        RecurrentNetwork(deploy_form(random_network(tiny_config(EVENT), 0))[0]),
        RecurrentNetwork(deploy_form(random_network(binary, 0))[0]),
    ]
    seen = [fingerprint(each) for each in different]
    assert len(set(seen)) == len(seen)
    assert fingerprint(RecurrentNetwork(deploy_form(random_network(tiny_config(DEPTH), 0))[0])) == seen[0]
