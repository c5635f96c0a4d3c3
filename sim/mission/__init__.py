"""What a mission asks for, and whether it was held: the mission's file, its devices, regions, passes and budgets."""

from pathlib import Path

#: The missions that ship with Nadir, a TOML file each.
SHIPPED = Path(__file__).parents[1] / "missions"
