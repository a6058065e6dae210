"""Evaluation of interactive segmentation: the simulated annotator and the measures. NumPy only, no torch."""

from mmms_deploy.evaluation.annotator import Annotator, SimulatedClick, distance_to_border, next_click
from mmms_deploy.evaluation.measures import Summary, iou, iou_after, noc, summarise

__all__ = [
    "Annotator",
    "SimulatedClick",
    "Summary",
    "distance_to_border",
    "iou",
    "iou_after",
    "next_click",
    "noc",
    "summarise",
]
