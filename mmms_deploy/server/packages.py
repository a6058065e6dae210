"""The packages that a server needs."""

from __future__ import annotations

from mmms_deploy.installed import pip_install
from mmms_deploy.server.errors import ServerUnavailableError


def check_packages() -> None:
    """Check that the packages that serve HTTP are there, before anything is opened.

    Raises:
        ServerUnavailableError: One is not.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise ServerUnavailableError(
            f"{error.name or error} is not installed",
            expected="FastAPI and uvicorn, which serve HTTP",
            fix=pip_install("demo"),
        ) from error


def absent_package() -> str | None:
    """Return which of them is not installed, with the command that installs it; None where all are."""
    try:
        check_packages()
    except ServerUnavailableError as error:
        return f"{error.given}: {error.fix}"
    return None
