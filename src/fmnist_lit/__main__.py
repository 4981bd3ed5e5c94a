"""python -m fmnist_lit: check the command line before anything heavy is imported, then let Hydra run it."""

import sys

from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.processes.streams import guard_streams


def main() -> None:
    """Run the command line and exit with the code of its status."""
    guard_streams()
    with stop_request.listening():  # from here, because the imports alone take seconds
        try:
            from fmnist_lit.command_line.launch import launch

            code = launch(sys.argv[1:])
        except InterruptedRunError as stop:
            print(f"Interrupted by {stop}.", file=sys.stderr)
            code = 128 + stop.signum
    sys.exit(code)


if __name__ == "__main__":
    main()
