"""`hil` and `python -m hil`: the agent runs with the base install, every other command needs the ground's extra."""

import sys


def main() -> None:
    """Entry point. Exit 2 in one line where a package of an extra is missing."""
    if sys.argv[1:2] == ["agent"]:
        from hil.agent.serve import main as serve

        sys.exit(serve(sys.argv[2:]))
    try:
        from hil.cli import main as commands
    except ImportError as error:
        sys.stderr.write(f"hil: {error.name} is not installed; pip install 'nadir-payload[ground,bench]'\n")
        sys.exit(2)
    commands()


if __name__ == "__main__":
    main()
