"""Names in a pickle of what runs code, starts programs or touches files: a file with one is refused."""

from __future__ import annotations

import re
from collections.abc import Collection

_RUNNING = re.compile(
    r"(?:os|posix|nt|sys|subprocess|shutil|socket|ctypes|runpy|importlib|pkgutil|imp|code|codeop|pty|webbrowser|"
    r"multiprocessing|asyncio|threading|_thread|commands|urllib2?|http|httplib|requests|ftplib|smtplib|telnetlib|"
    r"pickle|_pickle|cPickle|dill|cloudpickle|joblib|marshal|pdb|bdb|timeit|cProfile|pip|setuptools|distutils|"
    r"torch\.hub|torch\.utils\.cpp_extension|torch\.package|numpy\.(?:testing|f2py|distutils))\..*"
    r"|(?:builtins|__builtin__)\.(?:eval|exec|execfile|compile|open|file|input|raw_input|__import__|getattr|setattr|"
    r"delattr|globals|locals|vars|apply|breakpoint|exit|quit|map|filter|reduce)"
    r"|(?:io|_io)\.(?:open|open_code|FileIO)|types\.(?:FunctionType|CodeType|MethodType)|operator\.methodcaller"
    r"|torch\.(?:load|save|jit\..*|serialization\.load)|numpy\.(?:load|save|fromfile|memmap)"
)
"""Names of what starts programs, runs code or touches files when a pickle calls it."""


def running_names(names: Collection[str]) -> list[str]:
    """Return those dotted names in a pickle that would run code, start programs or touch files where it is unpickled.

    Nothing of a pickle is called here (:mod:`mmms_deploy.weights.passive_pickle`). A file with such a name is refused
    all the same: it was made to harm, or is not what it seems.
    """
    return [name for name in names if _RUNNING.fullmatch(name)]
