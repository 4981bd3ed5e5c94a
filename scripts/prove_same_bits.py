"""The tutorial's very bits, proved: proofs/same_bits.py by its short name, with the same arguments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "proofs"))

from same_bits import main

if __name__ == "__main__":
    main()
