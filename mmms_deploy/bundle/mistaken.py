"""What stands in a bundle's place and is none: what it is called, and what to do about it."""

from __future__ import annotations

from mmms_deploy.bundle.names import MANIFEST_NAME
from mmms_deploy.bundle.recognise import Found, Thing

POINTER_FIX = "fetch the file itself: git lfs pull"


def named(found: Found) -> str:
    """Return what was found in words, with an article, such as ``a checkpoint``."""
    if found.thing is Thing.BUNDLE_PART:
        name = "the manifest" if found.path.name == MANIFEST_NAME else "a file"
        return f"{name} of the bundle {found.inside[0]}" if found.inside else f"{name} of a bundle"
    return str(found.thing.value)


def file_itself(found: Found) -> str | None:
    """Return how to come to a file in whose place something else was fetched; None where that is not so."""
    return {
        Thing.POINTER: POINTER_FIX,
        Thing.WEB_PAGE: "download the file itself; a server answered with a page in its place",
    }.get(found.thing)


def bundle_instead(found: Found) -> str | None:
    """Return how to come to a bundle from what was found; None where only the caller can say it."""
    path, thing = found.path, found.thing
    if thing is Thing.BUNDLE_PART and not found.inside:
        return f"name the folder that holds it with the bundle's other files, under the name {MANIFEST_NAME}"
    listed = found.inside[0] if found.inside else path
    return {
        Thing.BUNDLES: f"name one of them: {found.listed}",
        Thing.BUNDLE_PART: f"name its folder, {listed}",
        Thing.CHECKPOINT: f"make a bundle of it: mmms-export --ckpt {path}",
        Thing.CHECKPOINTS: f"make a bundle of one: mmms-export --ckpt {listed}",
        Thing.GRAPH: "make a bundle of the PyTorch checkpoint that it comes from: mmms-export --ckpt FILE",
        Thing.ARCHIVED_BUNDLE: f"unpack it, and name the folder that then holds {MANIFEST_NAME}",
        Thing.ARCHIVE: f"unpack it, and name the folder that then holds {MANIFEST_NAME}",
        Thing.DESCRIPTION: f"make a bundle with it: mmms-export --ckpt FILE --description {path}",
    }.get(thing) or file_itself(found)
