"""napari: a bundle behind a dock widget, where clicks are a Points layer and objects are a Labels layer.

docs/napari.md describes it for its users.

``napari.yaml`` beside this file tells napari of the widget, by the entry point ``napari.manifest``. napari imports this
module to find it, so nothing is imported here.
"""
