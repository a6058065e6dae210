"""Call every public entry with arguments of wrong and odd kinds, and print what came of it.

    python tools/fuzz_session.py [--count 20000] [--seed 0]

A call answers, or refuses by a named error and leaves the session as it was. Anything else is printed, and the exit
code is 1 then.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run, and return the exit code: 0 when nothing broke."""
    sys.path.insert(0, str(ROOT))
    from tests.support.entries import fuzz

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="calls")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same calls")
    options = parser.parse_args()
    tried = fuzz(options.seed, options.count)
    print(f"{'entry':34} {'calls':>8}")
    for name, count in sorted(tried.calls.items()):
        print(f"{name:34} {count:8}")
    print(
        f"{sum(tried.calls.values())} calls: {tried.answered} answered, {tried.refused} refused by name, {tried.passed}"
        f" ended by an argument's own error, {sum(tried.broken.values())} broken"
    )
    for line, count in sorted(tried.broken.items()):
        print(f"{count} x {line}".encode(errors="backslashreplace").decode())
    return int(bool(tried.broken))


if __name__ == "__main__":
    sys.exit(main())
