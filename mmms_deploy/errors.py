"""The named errors a caller can meet; benchmarks and evaluations have their own beside them.

Every message has three parts: what was given, what was expected, and what to do next. The last one is said in the words
of the door that the user came through, Python or the command line.

    MMMSDeployError
        FileReadError
        CheckpointError
            CheckpointNotFoundError
            CheckpointCorruptError
            CheckpointKeysError
            DescriptionError
        SizeError
        ExportError
            CutError
            GateError
        OutputExistsError
        OutputFormatError
        OutputWriteError
        BundleError
            BundleNotFoundError
            BundleCorruptError
            BundleVersionError
            VerificationError
        EngineError
            AnswerError
            EngineUnavailableError
            EngineConflictError
            ForkError
            CudaError
            ResidentBudgetError
            PlanError
            PlanBuildError
                PlanPrecisionError
        SessionError
            NoImageError
            SessionClosedError
            SupersededError
            HistoryError
            ImageError
            ModalityError
            FeatureError
            MaskInputError
            SurfaceError
            ClickError
            ChoiceError
        StoreError
        WorkError
            OtherImageError
            WorkDiffersError
        JournalError
            JournalInUseError
            JournalDiffersError
            ImageMissingError
        MaskError
        AnnotationError
        ClickListError
        ClusterError
        HubError
            HubReferenceError
            HubUnreachableError
            HubNotFoundError
            HubAccessError
            HubRepositoryExistsError
        DoorError
        RegistryError
        WeightsError
            OtherWeightsError
    MMMSDeployWarning
        StoreWarning
        JournalWarning
"""

from __future__ import annotations

from enum import StrEnum


class Door(StrEnum):
    """Where a user came in; it decides in which words an error says what to do.

    Other tools are doors, too (``doors/``); they show the words of Python.
    """

    PYTHON = "python"
    COMMAND_LINE = "command line"


class MMMSDeployError(Exception):
    """Base of all errors raised by mmms-deploy.

    Args:
        given: What happened or was given, as a sentence.
        expected: What would have been right.
        fix: What to do next, for a caller in Python, e.g. ``pass device="auto"``.
        command_fix: The same for a user of the command line, e.g. ``pass --device auto``; None where ``fix`` is right
            for both.
    """

    def __init__(
        self, given: str, *, expected: str | None = None, fix: str | None = None, command_fix: str | None = None
    ) -> None:
        self.given = given
        self.expected = expected
        self.fix = fix
        self.command_fix = fix if command_fix is None else command_fix
        super().__init__(self.message(Door.PYTHON))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors of other processes come back as they were; every class has arguments of its own.
        return _restored, (type(self), self.args, self.__dict__)

    def message(self, door: Door) -> str:
        """Return the whole message in the words of a door."""
        fix = self.fix if door is Door.PYTHON else self.command_fix
        parts = (self.given, self.expected and f"expected: {self.expected}", fix and f"to fix: {fix}")
        whole = "\n  ".join(part for part in parts if part)
        # The name of a file need not be UTF-8; what Python makes of the other bytes cannot be printed.
        return whole.encode("utf-8", "backslashreplace").decode("utf-8")


def _restored(kind: type[MMMSDeployError], args: tuple[object, ...], state: dict[str, object]) -> MMMSDeployError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class MMMSDeployWarning(UserWarning):
    """A fallback was taken (a slower engine, another precision). With ``strict`` it is refused instead."""


class StoreWarning(MMMSDeployWarning):
    """A store of features works without a part of it: its folder cannot be used, or an entry was damaged."""


class JournalWarning(MMMSDeployWarning):
    """A session cannot write to its journal, such as when the disk is full; the session goes on."""


# --- files ----------------------------------------------------------------------------------------------------------


class FileReadError(MMMSDeployError):
    """A file cannot be read: it is missing, no regular file, too large, or not of the format that is expected.

    Most readers raise the error of their own subject from it.

    Attributes:
        reason: Why, as a clause, e.g. ``it is a FIFO``.
        missing: Whether there is nothing at the path.
    """

    def __init__(
        self,
        given: str,
        *,
        reason: str,
        missing: bool = False,
        expected: str | None = None,
        fix: str | None = None,
        command_fix: str | None = None,
    ) -> None:
        self.reason = reason
        self.missing = missing
        super().__init__(given, expected=expected, fix=fix, command_fix=command_fix)


# --- checkpoints and networks ---------------------------------------------------------------------------------------


class CheckpointError(MMMSDeployError):
    """A checkpoint file cannot be used."""


class CheckpointNotFoundError(CheckpointError):
    """The checkpoint file does not exist."""


class CheckpointCorruptError(CheckpointError):
    """The checkpoint file is neither a readable safetensors file nor a state dict, or reading it would execute code."""


class CheckpointKeysError(CheckpointError):
    """Keys of a checkpoint are missing, unexpected or misshapen for the network it describes."""


class DescriptionError(CheckpointError):
    """The description of the network (metadata, TOML/JSON file, flags) is missing, incomplete or contradictory."""


class SizeError(MMMSDeployError):
    """The network input size does not fit the backbone's patches or the feature pyramid."""


# --- export ---------------------------------------------------------------------------------------------------------


class ExportError(MMMSDeployError):
    """An export could not be done; nothing was written."""


class CutError(ExportError):
    """A graph cannot be cut into stages by the rates of its inputs."""


class GateError(ExportError):
    """The exported graphs do not compute what the checkpoint computes."""


class OutputExistsError(MMMSDeployError):
    """The output exists already, and replacing it was not requested."""


class OutputFormatError(MMMSDeployError):
    """The name of an output ends in no suffix of a format that is written."""


class OutputWriteError(MMMSDeployError):
    """Output cannot be written (no permission, disk full). No half-written file is left."""


# --- bundles --------------------------------------------------------------------------------------------------------


class BundleError(MMMSDeployError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no bundle at the given path."""


class BundleCorruptError(BundleError):
    """A file of a bundle is missing, was changed, or is not what the manifest says."""


class BundleVersionError(BundleError):
    """A bundle was written in a schema that this version does not read."""


class VerificationError(BundleError):
    """The replay of a bundle's golden clicks gave other masks on this machine."""


# --- engines --------------------------------------------------------------------------------------------------------


class EngineError(MMMSDeployError):
    """An engine failed."""


class AnswerError(EngineError):
    """A network answers with numbers that are no probabilities, such as NaN."""


class EngineUnavailableError(EngineError):
    """The requested engine or device cannot be used on this machine."""


class EngineConflictError(EngineError):
    """Two installed packages exclude each other (onnxruntime and onnxruntime-gpu)."""


class ForkError(EngineError):
    """A session or an engine was used in a child that was forked after it had been opened."""


class CudaError(EngineError):
    """A call of the CUDA runtime failed.

    Attributes:
        call: The call, e.g. ``cudaMalloc``.
        code: Its return code.
        name: Name of that code, e.g. ``cudaErrorMemoryAllocation``.
    """

    def __init__(
        self, given: str, *, call: str, code: int, name: str, expected: str | None = None, fix: str | None = None
    ) -> None:
        self.call = call
        self.code = code
        self.name = name
        super().__init__(given, expected=expected, fix=fix)


class ResidentBudgetError(EngineError):
    """The GPU can hold no further resident image: the limit on sessions or on their memory is reached."""


class PlanError(EngineError):
    """A compiled plan cannot be used: damaged, cut off, not written by this user, or for something else."""


class PlanBuildError(EngineError):
    """A stage cannot be compiled into a plan."""


class PlanPrecisionError(PlanBuildError):
    """A compiled plan does not compute in the requested precision."""


# --- sessions -------------------------------------------------------------------------------------------------------


class SessionError(MMMSDeployError):
    """A session was used in a way it cannot serve."""


class NoImageError(SessionError):
    """A click, or a picture of the result, before an image was set, or where its pixels are not kept."""


class SessionClosedError(SessionError):
    """A session was used after it was closed."""


class SupersededError(SessionError):
    """A call on an ``AsyncSession`` whose place a newer one took; it has not happened."""


class HistoryError(SessionError):
    """Nothing to undo or redo."""


class ImageError(SessionError):
    """An image has the wrong type, shape or contents, or cannot be read."""


class ModalityError(SessionError):
    """A modality image is missing, surplus, or has the wrong type, shape or contents."""


class FeatureError(SessionError):
    """Backbone features from elsewhere do not fit the bundle."""


class MaskInputError(SessionError):
    """A mask given to a session has the wrong type, shape or values."""


class SurfaceError(SessionError):
    """The name of a surface is not a text, is empty, or is unknown; or there are more than the network answers for."""


class ClickError(SessionError):
    """A click is outside of the image or not a number."""


class ChoiceError(SessionError):
    """There are no answers to choose from, or none of that number."""


# --- stores of features ---------------------------------------------------------------------------------------------


class StoreError(MMMSDeployError):
    """A store of features, or a prefetch into one, was asked for something that it cannot be or do."""


# --- work and journals ----------------------------------------------------------------------------------------------


class WorkError(MMMSDeployError):
    """A file of work cannot be read: it is missing, damaged, or something else."""


class OtherImageError(WorkError):
    """A file of work or a journal belongs to another image than the one that is set."""


class WorkDiffersError(WorkError):
    """The masks of a file of work are other ones when its clicks are answered again."""


class JournalError(MMMSDeployError):
    """A journal cannot be read, or a path given for one is something else."""


class JournalInUseError(JournalError):
    """Another session writes to a journal."""


class JournalDiffersError(JournalError):
    """What a journal says cannot be repeated, or leads to other masks."""


class ImageMissingError(JournalError):
    """An image of a journal or a file of work, or a modality of it, is in none of the places that were searched."""


# --- masks ----------------------------------------------------------------------------------------------------------


class MaskError(MMMSDeployError):
    """A mask that is compared has the wrong shape or type."""


# --- annotations ----------------------------------------------------------------------------------------------------


class AnnotationError(MMMSDeployError):
    """A mask, run lengths, polygons or labels cannot be written, or a file of them is damaged or of another kind."""


# --- lists of clicks ------------------------------------------------------------------------------------------------


class ClickListError(MMMSDeployError):
    """A list of clicks (CSV or JSON) cannot be read, or does not fit the pictures."""


# --- clusters -------------------------------------------------------------------------------------------------------


class ClusterError(MMMSDeployError):
    """Work cannot be given to other processes or to a Ray cluster."""


# --- the hub --------------------------------------------------------------------------------------------------------


class HubError(MMMSDeployError):
    """Files cannot be taken from the Hugging Face hub, or put there."""


class HubReferenceError(HubError):
    """A reference to the hub is not of the form ``hf:owner/name[@revision][/path]``."""


class HubUnreachableError(HubError):
    """The hub does not answer, or may not be asked, and the files are not in its cache."""


class HubNotFoundError(HubError):
    """The hub has no such repository, revision or file; or several could be meant."""


class HubAccessError(HubError):
    """The hub does not let this user read or write a repository."""


class HubRepositoryExistsError(HubError):
    """The repository holds files already, and replacing them was not requested."""


# --- other tools ----------------------------------------------------------------------------------------------------


class DoorError(MMMSDeployError):
    """What another tool requests does not fit, or that tool is not installed (docs/integrations.md)."""


# --- published weights ----------------------------------------------------------------------------------------------


class RegistryError(MMMSDeployError):
    """A package registry does not answer or may not be asked, or what it gives is not the package that is pinned."""


class WeightsError(MMMSDeployError):
    """Published weights of a backbone are unknown, or no source has them."""


class OtherWeightsError(WeightsError):
    """A file does not hold the published weights that were asked for."""
