"""python -m fmnist_lit: check the command line before anything heavy is imported, then let Hydra run it."""

import sys

from fmnist_lit.launch import launch


def main() -> None:
    """Run the command line and exit with the code of its status."""
    sys.exit(launch(sys.argv[1:]))


if __name__ == "__main__":
    main()
