"""Kill a sandbox's programs at every step that they put on record, clean up, and print what is left of it.

    tools/room .venv/bin/python -m tools.crash_points            # root; ends with 0 if nothing was left
    tools/room .venv/bin/python -m tools.crash_points --docs     # writes docs/crash-points.md as well
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.campaign import campaign
from tests.crash.table import DOCS, document, summary


def main() -> int:
    """Run the campaign, print its table, and with `--docs` write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help=f"write {DOCS}")
    parser.add_argument("--workers", type=int, default=4, help="lives at once (default: 4)")
    parser.add_argument("--only", default="", help="programs to doom, comma-separated (default: all)")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as top:
        outcomes = campaign(Path(top), workers=arguments.workers, only=arguments.only)
    print(summary(outcomes), f"{time.monotonic() - began:.0f} s")
    if arguments.docs:
        DOCS.write_text(document(outcomes))
    return 1 if any(outcome.left for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
