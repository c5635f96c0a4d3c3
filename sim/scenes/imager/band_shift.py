"""A scene as an imager hands it over whose bands are not registered, and as a payload registers it."""

from typing import Self

from payload.errors import InputError
from payload.imager.registration import MovedBands, Shifts, registered
from payload.scene import SceneInfo
from sim.scenes.open_scene import OpenScene

#: Published medians of PhiSat-2's bands reach 2.2 px.
MOST_PX = 8
#: Where the bands behind the first lie, in units of the shift: rows and columns, in turn.
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (-1, -1), (1, -1))


def displacements(bands: int, shift_px: int) -> Shifts:
    """(rows, columns) of each band from the first."""
    turns = (DIRECTIONS[number % len(DIRECTIONS)] for number in range(bands - 1))
    return ((0, 0), *((shift_px * y, shift_px * x) for y, x in turns))


class MovedScene(MovedBands):
    """Closes the scene that it reads from."""

    def __init__(self, scene: OpenScene, shifts: Shifts, info: SceneInfo) -> None:
        super().__init__(scene, shifts, info)
        self._opened = scene

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def as_imaged(scene: OpenScene, shift_px: int, register: bool) -> OpenScene:
    """The scene with its bands `shift_px` apart, and registered on board. InputError for a shift that is none."""
    if not 0 <= shift_px <= MOST_PX:
        scene.close()
        raise InputError(f"band shift is {shift_px} px, wanted 0 to {MOST_PX}; PhiSat-2's reach 2.2")
    if shift_px:
        scene = MovedScene(scene, displacements(len(scene.info.bands), shift_px), scene.info)
    shifts, info = registered(scene) if register else ((), scene.info)
    return MovedScene(scene, shifts, info) if shifts else scene
