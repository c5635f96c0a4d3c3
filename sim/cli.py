"""The command line of the ground: parses, calls one function, prints its result. Exit 0 held, 1 a requirement failed, 2 bad input."""

import sys

import typer

from payload.errors import InputError

app = typer.Typer(
    name="sim",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Nadir: an onboard inference payload, from scene to ground.",
)


@app.callback()
def _root() -> None:
    """Nadir: an onboard inference payload, from scene to ground."""


def main() -> None:
    """Entry point of the console script `sim`."""
    try:
        app()
    except InputError as error:
        print(f"sim: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
