"""Reading and writing files that others may have made: what every reader and writer of the package shares.

- ``reading``: opens regular files only, with a limit on what is read into memory
- ``documents``: JSON and TOML, with a limit on depth
- ``arrays``: ``.npy`` and ``.npz``, whose headers are checked before anything is allocated
- ``output``: writes a file whole or not at all, and replaces nothing but regular files
- ``folders``: writes a folder whole or not at all
- ``cache``: the user's folder for what can be made again
- ``kept``: folders in it, or one in its place until the process ends; files by their hashes
- ``flags``: flags of ``os.open`` that a system may not have
- ``locks``: locks on open files

A reader raises :class:`~mmms_deploy.errors.FileReadError`, which the caller turns into the error of its own subject.
"""

from mmms_deploy.files.documents import decode_json, read_json, read_toml
from mmms_deploy.files.output import append_to, partial_beside, replacing, write_file, writing
from mmms_deploy.files.reading import (
    GIB,
    MIB,
    PathLike,
    as_path,
    check_regular,
    open_regular,
    read_bytes,
    read_text,
    unreadable,
)

__all__ = [
    "GIB",
    "MIB",
    "PathLike",
    "append_to",
    "as_path",
    "check_regular",
    "decode_json",
    "open_regular",
    "partial_beside",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
    "replacing",
    "unreadable",
    "write_file",
    "writing",
]
