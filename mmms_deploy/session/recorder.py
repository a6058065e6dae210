"""The seam between a session and what keeps a record of it: every call that can change the session goes through here.

A call that is decorated with :func:`recorded` tells the session's recorder what it was given, what the session was
before it, and what it answered, or by which error it was refused. A session without a recorder pays one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from mmms_deploy.engines.process import OwnProcess

F = TypeVar("F", bound=Callable[..., Any])


class Call(NamedTuple):
    """A call that ended.

    Attributes:
        name: Its name.
        args: What it was given by place.
        kwargs: What it was given by name.
        before: The session's state before it.
        seconds: How long it took.
    """

    name: str
    args: Sequence[object]
    kwargs: Mapping[str, object]
    before: Any
    seconds: float

    def given(self, place: int, name: str) -> object:
        """Return an argument.

        Args:
            place: Its place, from 0.
            name: Its name.
        """
        return self.args[place] if place < len(self.args) else self.kwargs.get(name)


class Recorder(Protocol):
    """Keeps a record of a session's calls. What it raises, the call raises, though it happened."""

    def done(self, call: Call, answer: object) -> None:
        """Keep a call that happened.

        Args:
            call: The call.
            answer: What it returns.
        """
        ...

    def refused(self, call: Call, error: BaseException) -> None:
        """Keep a call that raised an error, and changed nothing."""
        ...

    def missed(self) -> None:
        """Take note that something happened that is not in the record."""
        ...

    def taken_back(self, state: Any) -> None:
        """Keep that the session is again where it was before calls that happened.

        Args:
            state: Its state now, which it had before them.
        """
        ...

    def closed(self) -> None:
        """Take note that the session is closed. Safe to call twice."""
        ...


class Recording(Protocol):
    """A session, as :func:`recorded` sees it."""

    _own: OwnProcess
    _lock: Any
    _state: Any
    _recorder: Recorder | None
    _in_call: bool


def recorded(call: F) -> F:
    """Decorate a call of a session that can change it, so that the session's recorder sees it.

    A call inside of such a call is a part of it, and not seen by itself.
    """

    @wraps(call)
    def seen(self: Recording, /, *args: object, **kwargs: object) -> object:
        if self._recorder is None or self._own.elsewhere:
            return call(self, *args, **kwargs)
        with self._lock:
            recorder = self._recorder
            if recorder is None or self._in_call:
                return call(self, *args, **kwargs)
            before, start = self._state, perf_counter()
            self._in_call = True
            try:
                answer = call(self, *args, **kwargs)
            except BaseException as error:
                # An interrupt may come after the call has happened.
                if self._state is before:
                    recorder.refused(Call(call.__name__, args, kwargs, before, perf_counter() - start), error)
                else:
                    recorder.missed()
                raise
            finally:
                self._in_call = False
            try:
                recorder.done(Call(call.__name__, args, kwargs, before, perf_counter() - start), answer)
            except BaseException:
                recorder.missed()
                raise
            return answer

    seen.__dict__["is_recorded"] = True
    return cast("F", seen)
