"""Kill a sandbox's programs at every step that they put on record, clean up, and print what is left of it.

    tools/room .venv/bin/python -m tools.crash_points            # root; ends with 0 if nothing is left of any
    tools/room .venv/bin/python -m tools.crash_points --docs     # writes the table of docs/crash-points.md, too

`tests/functional/sandbox/test_crash_points.py` asks the same of it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from tests.crash.campaign import Campaign, campaign
from tests.crash.table import markdown, summary, survivors, unreached

DOCS = Path("docs/crash-points.md")
BEGIN, END = "<!-- table: python -m tools.crash_points --docs -->", "<!-- end of table -->"
WORKERS = 3  # lives at once: each waits for others of its processes most of the time


def measure(workers: int = WORKERS) -> Campaign:
    """Have them all die, in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as top:
        return campaign(Path(top), workers=workers)


def with_table(text: str, result: Campaign) -> str:
    """A document with the table of this campaign."""
    table = f"{BEGIN}\n{summary(result)}.\n\n{markdown(result)}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table, text, flags=re.DOTALL)


def main() -> int:
    """Measure, print the table, and with `--docs` write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help=f"write the table of {DOCS}")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"lives at once (default: {WORKERS})")
    arguments = parser.parse_args()
    result = measure(arguments.workers)
    if arguments.docs:
        DOCS.write_text(with_table(DOCS.read_text(), result))
    else:
        print(markdown(result))
    left = [*survivors(result), *unreached(result)]
    print(*left, f"{summary(result)}, {result.seconds:.0f} s", sep="\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
