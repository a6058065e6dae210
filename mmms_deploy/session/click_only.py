"""What a session with a click bundle refuses, by name: all that needs the stages that encode an image."""

from __future__ import annotations

from mmms_deploy.bundle import Manifest
from mmms_deploy.errors import ModalityError, SessionError

WITH_FEATURES = "with the image's features, or open the session with a store that has them"
_FIX = f"call use(Features.load(FILE)) {WITH_FEATURES}"
_COMMAND_FIX = "pass --features FILE with the image's features, which mmms-package --image writes from the whole bundle"


def takes_no_image(manifest: Manifest) -> SessionError:
    """Return the error for an image, without a store that could have its features."""
    return SessionError(
        f"{manifest.name} is a click bundle: it holds the click stage alone, and encodes no image",
        expected=f"the image's features, encoded with the bundle whose digest begins with {_parent(manifest)}",
        fix=_FIX,
        command_fix=_COMMAND_FIX,
    )


def not_in_store(manifest: Manifest) -> SessionError:
    """Return the error for an image whose features the store does not have."""
    return SessionError(
        f"{manifest.name} is a click bundle, and its store has no features of this image",
        expected="features of the same pixels, encoded without modalities, with the bundle whose digest begins with"
        f" {_parent(manifest)}",
        fix="put them into the store; or, where the image was encoded with modalities, call use(Features.load(FILE))",
        command_fix=_COMMAND_FIX,
    )


def takes_no_modalities(manifest: Manifest, given: str) -> ModalityError:
    """Return the error for modalities, which are in the features already.

    Args:
        manifest: The click bundle's.
        given: Their names.
    """
    return ModalityError(
        f"modalities given: {given or 'none'}; {manifest.name} is a click bundle, and has no stage that reads one",
        expected="features in which all modalities are already",
        fix="encode the image again, with the whole bundle and the new modality",
        command_fix="leave out --modality; mmms-package --image takes it, beside the whole bundle",
    )


def takes_no_backbone(manifest: Manifest) -> SessionError:
    """Return the error for a backbone's features, of which a click stage needs what the next stages make of them."""
    return SessionError(
        f"{manifest.name} is a click bundle: it holds the click stage alone, and takes no backbone's features",
        expected="features that Model.encode, Session.features or mmms-package made with the whole bundle",
        fix="call use(Features.load(FILE)); set_features(...) is for a bundle exported with the cut 'black-box'",
        command_fix=_COMMAND_FIX,
    )


def shows_no_parts(manifest: Manifest, asked: str) -> SessionError:
    """Return the error for ``zoom`` or ``flip``, which show parts of the picture to the image stage.

    Args:
        manifest: The click bundle's.
        asked: Which of them.
    """
    return SessionError(
        f"{asked} was asked of {manifest.name}, a click bundle, which encodes no image",
        expected="a whole bundle, whose image stage can be shown parts of the picture",
        fix=f"leave out {asked}",
        command_fix=f"leave out --{asked}",
    )


def _parent(manifest: Manifest) -> str:
    return (manifest.features_of or "")[:12]
