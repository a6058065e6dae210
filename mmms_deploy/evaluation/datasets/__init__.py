"""Readers of evaluation data sets: from the folders as they are published to scenes. See docs/datasets.md."""

from mmms_deploy.evaluation.datasets.argument import DatasetArgument, parse_dataset_argument
from mmms_deploy.evaluation.datasets.kind import Kind, Option, OptionType
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.registry import DATASETS, open_dataset

__all__ = [
    "DATASETS",
    "DatasetArgument",
    "Kind",
    "ListedDataset",
    "Option",
    "OptionType",
    "open_dataset",
    "parse_dataset_argument",
]
