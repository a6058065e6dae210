"""Evaluation of interactive segmentation: simulated clicks, measures, data sets, comparison. No torch.

Any predictor can be evaluated: a ``Session``, an object with ``set_image`` and ``click``, or a plain function through
:class:`~mmms_deploy.evaluation.predictor.FunctionPredictor`. Names are loaded when they are first used.

In reading order:

- ``scene``: an image with its surfaces, and what a data set is
- ``datasets/``: readers of published data sets
- ``depth``: the deepest pixel of a region
- ``annotator``: where the simulated annotator clicks next
- ``measures``: boundary IoU and NoC of one object; IoU is in ``mmms_deploy/replay/metrics.py``
- ``predictor``: what is evaluated, and a plain function as a predictor
- ``bundles``: bundles as predictors
- ``checkpoint_predictor``: a checkpoint in PyTorch as a predictor
- ``modalities``: which modalities of a data set a network is shown
- ``settings``: what an evaluation does
- ``clicking``: clicking through one object
- ``surfaces``: several surfaces in one image: NoCMS, FRMS and the multi-instance task
- ``lock``: one evaluation at a time in a folder of results
- ``results``: the results of every scene, and the folder that keeps them
- ``run``: every scene of the data sets, by one worker or several
- ``summary``: the measures of each data set
- ``comparison``: two predictors on the same objects
- ``replay``: pictures of results
- ``report/``: what an evaluation gives to read
- ``noc_gate``: the gate by clicks of an export
- ``errors``: the named errors of evaluations
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.evaluation.annotator import Annotator, SimulatedClick, next_click
    from mmms_deploy.evaluation.bundles import BundlePredictor, BundleSource
    from mmms_deploy.evaluation.clicking import ObjectResult, click_through
    from mmms_deploy.evaluation.comparison import Comparison, compare, paired_interval, smallest_visible
    from mmms_deploy.evaluation.datasets import DATASETS, open_dataset, parse_dataset_argument
    from mmms_deploy.evaluation.depth import distance_to_border
    from mmms_deploy.evaluation.measures import (
        Summary,
        area_under_curve,
        boundary_iou,
        clicks_to_reach,
        iou_after,
        noc,
        summarise,
    )
    from mmms_deploy.evaluation.predictor import FunctionPredictor, JointPredictor, Predictor
    from mmms_deploy.evaluation.report.page import render_page
    from mmms_deploy.evaluation.results import PredictorFacts, SceneResult
    from mmms_deploy.evaluation.run import Contestant, Entry, Evaluation, evaluate
    from mmms_deploy.evaluation.scene import Dataset, Scene, Surface
    from mmms_deploy.evaluation.settings import Protocol, Settings
    from mmms_deploy.evaluation.summary import DatasetSummary, summarise_run
    from mmms_deploy.evaluation.surfaces import JointMask, multi_instance, multi_surface
    from mmms_deploy.replay.metrics import iou

_MODULES = {
    "DATASETS": "datasets",
    "Annotator": "annotator",
    "BundlePredictor": "bundles",
    "BundleSource": "bundles",
    "Comparison": "comparison",
    "Contestant": "run",
    "Dataset": "scene",
    "DatasetSummary": "summary",
    "Entry": "run",
    "Evaluation": "run",
    "FunctionPredictor": "predictor",
    "JointMask": "surfaces",
    "JointPredictor": "predictor",
    "ObjectResult": "clicking",
    "Predictor": "predictor",
    "PredictorFacts": "results",
    "Protocol": "settings",
    "Scene": "scene",
    "SceneResult": "results",
    "Settings": "settings",
    "SimulatedClick": "annotator",
    "Summary": "measures",
    "Surface": "scene",
    "area_under_curve": "measures",
    "boundary_iou": "measures",
    "click_through": "clicking",
    "clicks_to_reach": "measures",
    "compare": "comparison",
    "distance_to_border": "depth",
    "evaluate": "run",
    "iou": "measures",
    "iou_after": "measures",
    "multi_instance": "surfaces",
    "multi_surface": "surfaces",
    "next_click": "annotator",
    "noc": "measures",
    "open_dataset": "datasets",
    "paired_interval": "comparison",
    "parse_dataset_argument": "datasets",
    "render_page": "report.page",
    "smallest_visible": "comparison",
    "summarise": "measures",
    "summarise_run": "summary",
}

__all__ = [
    "DATASETS",
    "Annotator",
    "BundlePredictor",
    "BundleSource",
    "Comparison",
    "Contestant",
    "Dataset",
    "DatasetSummary",
    "Entry",
    "Evaluation",
    "FunctionPredictor",
    "JointMask",
    "JointPredictor",
    "ObjectResult",
    "Predictor",
    "PredictorFacts",
    "Protocol",
    "Scene",
    "SceneResult",
    "Settings",
    "SimulatedClick",
    "Summary",
    "Surface",
    "area_under_curve",
    "boundary_iou",
    "click_through",
    "clicks_to_reach",
    "compare",
    "distance_to_border",
    "evaluate",
    "iou",
    "iou_after",
    "multi_instance",
    "multi_surface",
    "next_click",
    "noc",
    "open_dataset",
    "paired_interval",
    "parse_dataset_argument",
    "render_page",
    "smallest_visible",
    "summarise",
    "summarise_run",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
