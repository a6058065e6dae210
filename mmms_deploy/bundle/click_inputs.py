"""What the stages at clicks read that no click changes: the features of an image."""

from __future__ import annotations

from mmms_deploy.bundle.manifest import Manifest, Rate, Role, Stage, TensorSpec

_GIVEN = (Role.FEATURE, Role.IMAGE, Role.MODALITY)
"""Roles of tensors that no click changes."""


def click_stages(manifest: Manifest) -> tuple[Stage, ...]:
    """Return the stages that run at the first click or at every click, in order."""
    return tuple(stage for stage in manifest.stages if stage.rate >= Rate.FIRST_CLICK)


def click_inputs(manifest: Manifest) -> dict[str, TensorSpec]:
    """Return the tensors that the stages at clicks read and no click changes, by name: the features of an image.

    Their types are those of the bundle's first precision.
    """
    found: dict[str, TensorSpec] = {}
    computed: set[str] = set()
    for stage in click_stages(manifest):
        for graph in stage.graphs.values():
            for spec in graph.inputs:
                if spec.role in _GIVEN and spec.name not in computed:
                    found.setdefault(spec.name, spec)
        computed |= {spec.name for graph in stage.graphs.values() for spec in graph.outputs}
    return found
