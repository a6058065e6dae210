"""Readers of evaluation data sets: from the folders as they are published to scenes. See docs/datasets.md.

In reading order:

- ``argument``: a data set as one word of a command line
- ``registry``: all kinds of data sets, and how to open one
- ``kind``: what a kind of data set is: its folders, options and opening function
- ``listed``: a data set that reads a scene when it is indexed
- ``files``: finding files, and pairing those of one scene
- ``photo``: the image of a scene, and whether masks and modalities fit it
- ``labels``: reading masks and label maps
- ``surfaces``: from a label map to the surfaces of a scene
- ``mistaken``: masks that are no label maps: smoothed ones, trimaps
- ``pairs``: scenes of an image and one file of masks
- ``semantic``: scenes of an image, a semantic label map and modalities
- ``folder``: a plain folder of images, masks and modalities
- ``grabcut``, ``davis``, ``hqseg``: one object an image
- ``sbd``, ``voc``, ``coco``: many objects an image
- ``drawn``: scenes without a folder; ``outlines``: what they are drawn from
- ``deliver``, ``mfnet``, ``fmb``, ``mcubes``: classes and modalities
"""

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
