"""What an epoch costs here and elsewhere: benchmark/epoch.py by its short name, with the same arguments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmark"))

from epoch import main

if __name__ == "__main__":
    main()
