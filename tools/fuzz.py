"""Give every reader damaged files, and print what each did with them.

    python tools/fuzz.py [--count 1000] [--seed 0] [--keep fuzz-out] [READER ...]

A reader may read a file or refuse it by a named error. Anything else is a failure: another exception, more than
20 seconds, more memory than a small file can need, a process that dies. What broke a reader is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run, and return the exit code: 0 when nothing broke."""
    sys.path.insert(0, str(ROOT))
    from tests.support.fuzzing import READERS, run_in_child

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-out"), help="folder for files that break a reader")
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"any of: {', '.join(READERS)}")
    options = parser.parse_args()
    unknown = set(options.readers) - READERS.keys()
    if unknown:
        parser.error(f"no reader {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    options.keep.mkdir(parents=True, exist_ok=True)
    print(f"{'reader':26} {'inputs':>8} {'accepted':>9} {'refused':>8} {'tracebacks':>11} {'hangs':>6}")
    broken: list[str] = []
    totals = [0] * 5
    for name in options.readers or READERS:
        (outcome,) = run_in_child(
            [name], options.seed, options.count, keep=options.keep, seconds=120 + options.count
        ).values()
        row = [outcome.inputs, outcome.accepted, outcome.refused, len(outcome.tracebacks), outcome.hangs]
        totals = [total + one for total, one in zip(totals, row, strict=True)]
        print(f"{name:26} {row[0]:8} {row[1]:9} {row[2]:8} {row[3]:11} {row[4]:6}", flush=True)
        broken += [f"{name}: {line}" for line in sorted(set(outcome.tracebacks))]
    print(f"{'all':26} {totals[0]:8} {totals[1]:9} {totals[2]:8} {totals[3]:11} {totals[4]:6}")
    for line in broken:
        print(line)
    if totals[3] or totals[4]:
        print(f"what broke a reader is in {options.keep}/")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
