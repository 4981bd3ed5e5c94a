"""A new version: its number wherever it stands, and what is unreleased in the changelog under it.

python scripts/release/cut.py 0.2.0
"""

import argparse
import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="today unless it is given")
    args = parser.parse_args()
    if not re.fullmatch(r"\d+\.\d+\.\d+", args.version):
        print(f"error: {args.version}: must be three numbers, such as 0.2.0", file=sys.stderr)
        return 2
    edits = {
        "src/fmnist_lit/__init__.py": ((r'^__version__ = ".*"$', f'__version__ = "{args.version}"'),),
        "CITATION.cff": (
            (r"^version: .*$", f"version: {args.version}"),
            (r"^(?:date-released: .*\n)?license:", f"date-released: {args.date}\nlicense:"),
        ),
        "CHANGELOG.md": ((r"^## \[Unreleased\]$", f"## [Unreleased]\n\n## [{args.version}] - {args.date}"),),
    }
    for name, replacements in edits.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for pattern, replacement in replacements:
            text, times = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert times == 1, f"{pattern} is in {name} {times} times, not once"
        (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
    print(f"{args.version}: look at git diff, commit it, then tag that commit v{args.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
