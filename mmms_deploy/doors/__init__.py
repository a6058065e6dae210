"""Front doors: one bundle answers in the tools that people annotate with, each thin over the same model and sessions.

A door is a folder: ``cvat``, ``label_studio``, ``napari``, ``triton``. It translates what its tool says into calls of
:class:`~mmms_deploy.Session`, and the mask into what the tool takes; it decides nothing about masks. ``conformance``
replays a bundle's golden clicks through each and compares the masks with a session's own (``mmms-verify --doors``).
"""
