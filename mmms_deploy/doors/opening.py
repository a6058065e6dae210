"""How a door opens a bundle: in the words of its tool, which are often strings, one setting each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Bundle
from mmms_deploy.documents import document
from mmms_deploy.errors import DoorError
from mmms_deploy.files import MIB
from mmms_deploy.imaging.cleaning import Count, MaskCleaning, Pixels
from mmms_deploy.session import Model, Session
from mmms_deploy.spelling import did_you_mean
from mmms_deploy.store import FeatureStore


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set about a bundle behind a door.

    Attributes:
        device: As for :class:`~mmms_deploy.Session`.
        engine: Name of an engine, as for :class:`~mmms_deploy.Session`.
        precision: As for :class:`~mmms_deploy.Session`.
        threads: As for :class:`~mmms_deploy.Session`.
        strict: As for :class:`~mmms_deploy.Session`.
        zoom: As for :class:`~mmms_deploy.Session`.
        flip: As for :class:`~mmms_deploy.Session`.
        fill_holes: Holes of masks of at most so many pixels are filled; 0 for none.
        drop_specks: Parts of masks of at most so many pixels are dropped; 0 for none.
        keep_largest: Only so many parts of a mask stay, those with positive clicks first; 0 for all.
        simplify: How far outlines of masks may move, in pixels, to have fewer corners; 0 for outlines as they are.
        store_mib: MiB of features of images that were seen, kept in memory: one that comes back runs no backbone.
        store_folder: A folder for features that outlive the process (docs/store.md); empty for none.
    """

    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    strict: bool = False
    zoom: bool = False
    flip: bool = False
    fill_holes: Count = 0
    drop_specks: Count = 0
    keep_largest: Count = 0
    simplify: Pixels = 0.0
    store_mib: int = 1024
    store_folder: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return an opening of settings by name; numbers and booleans may be written as text.

        Raises:
            DoorError: A name is unknown, or a value has another type or is out of range.
        """
        try:
            return msgspec.convert(dict(settings), cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            odd = next((name for name in settings if name not in cls.__struct_fields__), None)
            hint = did_you_mean(odd, cls.__struct_fields__) if odd is not None else ""
            raise DoorError(
                f"the settings {shown(dict(settings))}: {error}{hint}",
                expected=f"settings of a session by name: {known}",
                fix=f"correct or leave out that setting ({document('integrations')})",
            ) from error

    @property
    def cleaning(self) -> MaskCleaning:
        """What is done to masks after the network has answered."""
        return MaskCleaning(
            fill_holes=self.fill_holes,
            drop_specks=self.drop_specks,
            keep_largest=self.keep_largest,
            simplify=self.simplify,
        )

    def model(self, bundle: Bundle | str | Path) -> Model:
        """Open a bundle's engine, with a store of features; the caller closes it.

        Raises:
            BundleError: There is no usable bundle.
            EngineError: There is no usable engine.
            StoreError: There is no usable store.
        """
        store = FeatureStore(self.store_folder or None, host_bytes=self.store_mib * MIB)
        return Model(
            bundle,
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            threads=self.threads,
            strict=self.strict,
            store=store,
        )

    def session(self, model: Model) -> Session:
        """Open a session on a model; the caller closes it.

        Raises:
            EngineError: There is no memory for another session.
            SessionError: ``zoom`` or ``flip`` is not possible with this bundle; or masks are to be cleaned, and the
                library for it is not installed.
        """
        return model.session(zoom=self.zoom, flip=self.flip, cleaning=self.cleaning, keep_image=False)
