"""The file of a journal: a JSON text a line, appended whole, by one session at a time.

A line is written by one call of the system, to the end of the file. What a killed process left of a line has no line
end: readers pass over it, and the next session that writes to the file cuts it off. The lock is on the file itself; the
system takes it away when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from types import TracebackType
from typing import BinaryIO

from mmms_deploy.arguments import flag, shown, whole
from mmms_deploy.errors import FileReadError, JournalError, JournalInUseError, MMMSDeployWarning
from mmms_deploy.files import GIB, PathLike, append_to, as_path, open_regular, writing
from mmms_deploy.files.locks import lock

MOST_BYTES = GIB
"""The most bytes of a journal; no line is written beyond them."""
MOST_LINE = 256 << 20
"""The most bytes of one line that is read."""
FIRST = b'{"event":"opened",'
"""What the first line of a journal begins with."""
_BLOCK = 1 << 20


class Journal:
    """A file to which a session writes what is done in it; pass it, or its path, as ``journal`` to ``Session``.

    A file that holds a journal is gone on with: every session that writes to it begins with a line ``opened``. One
    session at a time writes to it, of this process and of others.

    Args:
        path: The file; it is made where it is not there.
        masks: Whether every event has its whole mask as run lengths. This takes 4 ms a click at 640 x 480 and 0.2 s at
            4000 x 3000, and the masks say what was to be seen in the image. Otherwise there are their hashes.
        sync: Whether every line is on the disk before the call returns, so that it outlives a loss of power; this takes
            as long as the disk takes. Otherwise it outlives the end of the process, however that ends.
        limit: The most bytes of the file.

    Raises:
        JournalInUseError: Another session writes to it.
        JournalError: The file is something else, or a setting is.
        OutputWriteError: It cannot be written.
    """

    def __init__(self, path: PathLike, *, masks: bool = False, sync: bool = False, limit: int = MOST_BYTES) -> None:
        self.path = as_path(path, "the path of the journal")
        self.masks = flag("masks", masks, JournalError)
        self._sync = flag("sync", sync, JournalError)
        most = whole(limit)
        if most is None or most < 0:
            raise JournalError(
                f"limit is {shown(limit, 80)}", expected="the most bytes of the file", fix="leave limit out"
            )
        self._limit = min(most, MOST_BYTES)
        self._pid = os.getpid()
        self._writer: object | None = None
        stream = append_to(self.path)
        try:
            self._take(stream)
            self._end = self._whole_lines()
            if self._end < os.fstat(stream.fileno()).st_size:
                with writing(self.path):
                    os.ftruncate(stream.fileno(), self._end)
        except BaseException:
            stream.close()
            raise
        self._stream = stream

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._stream.closed

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._end

    def begin(self, writer: object) -> None:
        """Take a writer; it is the only one until it ends.

        Args:
            writer: A session's recorder.

        Raises:
            JournalInUseError: Another one writes to it.
            JournalError: It is closed.
        """
        if self.closed:
            raise JournalError(
                f"the journal {self.path} is closed", expected="an open one", fix="make another Journal(path)"
            )
        if self._writer is not None:
            raise self._in_use()
        self._writer = writer

    def end(self, writer: object) -> None:
        """Let a writer go; another one may begin."""
        if self._writer is writer:
            self._writer = None

    def append(self, line: bytes) -> None:
        """Append a line, whole or not at all.

        Args:
            line: JSON without a line end.

        Raises:
            OSError: It cannot be written, or the journal has reached its limit; the file is as it was.
        """
        if os.getpid() != self._pid or self.closed:
            return
        content = line + b"\n"
        if self._end + len(content) > self._limit:
            raise OSError(f"it has reached its limit of {self._limit} bytes")
        handle, left = self._stream.fileno(), memoryview(content)
        try:
            while left:
                left = left[os.write(handle, left) :]
            if self._sync:
                os.fsync(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._end)
            raise
        self._end += len(content)

    def close(self) -> None:
        """Close the file, and free its lock. Safe to call twice."""
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                self._stream.close()

    def _take(self, stream: BinaryIO) -> None:
        try:
            lock(stream)
        except BlockingIOError:
            raise self._in_use() from None
        except OSError as error:
            warnings.warn(
                f"{self.path} cannot be locked ({error.strerror or error}): let one session at a time write to it",
                MMMSDeployWarning,
                stacklevel=4,
            )

    def _in_use(self) -> JournalInUseError:
        return JournalInUseError(
            f"another session writes to the journal {self.path}",
            expected="a journal for every session",
            fix="close that session first, or pass another path as journal",
        )

    def _whole_lines(self) -> int:
        """Return the bytes of the file's whole lines.

        Raises:
            JournalError: The file is no journal.
        """
        end = position = 0
        try:
            with open_regular(self.path) as stream:
                head = stream.read(len(FIRST))
                stream.seek(0)
                while block := stream.read(_BLOCK):
                    if (newline := block.rfind(b"\n")) >= 0:
                        end = position + newline + 1
                    position += len(block)
        except FileReadError as error:
            raise JournalError(error.given, expected="a journal, or a new file", fix="pass another path") from error
        # A process that was killed may have left a part of the first line.
        if head != FIRST and not (end == 0 and FIRST.startswith(head)):
            raise JournalError(
                f"{self.path} is there, and is no journal",
                expected="a new file, or a journal to go on with",
                fix="pass another path",
            )
        return end

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r}: {'closed' if self.closed else f'{self._end} bytes'})"
