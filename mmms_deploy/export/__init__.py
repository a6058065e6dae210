"""From a checkpoint to a bundle. Needs the ``[export]`` extra.

In reading order:

- ``exporter``: ``export_bundle``, the whole way from a source to a bundle
- ``source``: the network to export, from a checkpoint or with random weights
- ``rewrites/``: exact rewrites into a form that engines run faster
- ``network``: the recurrent form of a network, and its ONNX graph; ``labelled``: that of a network with labels
- ``cut``: from one graph to stages, and the names of the further cuts; ``subgraphs``: the graphs inside of a node
- ``graphs``: writes the stages' graphs into a bundle
- ``operations``: counts a graph's floating-point operations
- ``gate``: compares torch, the whole graph, the stages and a session; on ``samples``, with ``reference``,
  ``modulation`` and ``comparison``
- ``absmax``: the backbone's largest activations
- ``half/``: graphs in float16 and bfloat16, and their gate
- ``steps``: the steps of an export, as progress bars show them

The names below load on first use, so that importing the package loads no torch.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.export.cut import Cut
    from mmms_deploy.export.exporter import ExportReport, export_bundle
    from mmms_deploy.export.source import Source, SourcedNetwork, demo_checkpoint, open_source

__all__ = ["Cut", "ExportReport", "Source", "SourcedNetwork", "demo_checkpoint", "export_bundle", "open_source"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Cut": "cut",
        "ExportReport": "exporter",
        "Source": "source",
        "SourcedNetwork": "source",
        "demo_checkpoint": "source",
        "export_bundle": "exporter",
        "open_source": "source",
    },
)
