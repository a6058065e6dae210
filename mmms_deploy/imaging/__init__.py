"""From image and modality files to the network's tensors, and from probabilities back to masks.

In reading order:

- ``io``: reads images and modalities into checked arrays
- ``formats``: which formats are opened, and what a file of another format is
- ``picture``: opens and decodes pictures; the only place that does
- ``sources``: pictures as bytes and file objects; what is none of them
- ``refusal``: how an error about a picture begins
- ``samples``: from decoded pictures to 8-bit colours, or to the samples as stored
- ``colours``: from arrays to 8-bit colours, by the rules for files; the order of channels
- ``arrays``: plain arrays, and what masked ones hide
- ``modality``: converts a modality's stored numbers to measurements in the network's unit
- ``preprocess``: resizes and normalises both into the network's input tensors
- ``coordinates``: where a pixel of the image lies in the network's input
- ``resize``: bilinear resizing, equal to PyTorch's
- ``resize_weights``: the resampling weights along one axis
- ``image_resize``: resizes an image in pieces, in threads
- ``threads``: shares pieces of a computation among threads that end with it
- ``scratch``: memory that these threads keep for the next computation
- ``tiles``: one axis of a resize in tiles
- ``mask_resize``: enlarges maps in tiles; of a mask, only the tiles on its outline
- ``mask_strips``: whole rows of tiles, for masks with outlines everywhere
- ``decision``: decides between maps of several owners at the image's size, in tiles
- ``cleaning``: fills holes of masks, drops specks, keeps the largest parts, simplifies outlines
- ``modulation``: changes the previous probability around the newest click
- ``float16``: converts float16 to float32

The names below load on first use.
"""

from typing import TYPE_CHECKING

from mmms_deploy.lazy import lazy_names

if TYPE_CHECKING:
    from mmms_deploy.imaging.cleaning import MaskCleaning
    from mmms_deploy.imaging.coordinates import to_network
    from mmms_deploy.imaging.io import load_modality, load_rgb
    from mmms_deploy.imaging.modality import measure
    from mmms_deploy.imaging.preprocess import load_modalities, prepare
    from mmms_deploy.imaging.resize import resize_above, resize_image

__all__ = [
    "MaskCleaning",
    "load_modalities",
    "load_modality",
    "load_rgb",
    "measure",
    "prepare",
    "resize_above",
    "resize_image",
    "to_network",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MaskCleaning": "cleaning",
        "load_modalities": "preprocess",
        "load_modality": "io",
        "load_rgb": "io",
        "measure": "modality",
        "prepare": "preprocess",
        "resize_above": "resize",
        "resize_image": "resize",
        "to_network": "coordinates",
    },
)
