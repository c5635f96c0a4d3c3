"""How the command lines take -v and -q: the group of commands of `hil` and of `sim`."""

import typer
from typer.core import TyperGroup

#: These are understood before and after the name of a command.
ANYWHERE = ("-v", "--verbose", "-q", "--quiet")


class Root(TyperGroup):
    """The group of all commands; it takes -v and -q wherever they stand."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        end = args.index("--") if "--" in args else len(args)
        front = [word for word in args[:end] if word in ANYWHERE]
        rest = [word for word in args[:end] if word not in ANYWHERE]
        return super().parse_args(ctx, front + rest + args[end:])
