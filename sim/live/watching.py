"""A run as it happens, for the page: the clock of the pass is held to the clock on the wall."""

import threading
import time
from typing import Any

from payload.bundle import Bundle
from payload.engine import Engine
from payload.link.scene_header import SceneHeader
from sim.ground.arrivals import Arrivals
from sim.live.server import LiveServer, Show
from sim.live.tile_pictures import TilePictures


class LiveRun:
    """Shows one run on a server. `speed`: seconds of the pass in a second on the wall."""

    def __init__(self, server: LiveServer, speed: float) -> None:
        self._server, self._speed = server, speed
        self._began_s: float | None = None
        self.stopped = threading.Event()

    def watch(self, header: SceneHeader, apid: int, bundle: Bundle, engine: Engine) -> Arrivals:
        """The record of a run that is watched."""
        arrivals = Arrivals(header, apid, self.pace)
        info = header.info
        pictures = TilePictures(arrivals.codes, bundle, engine, max(info.height_px, info.width_px))
        scene = arrivals.scene()
        self._server.show = Show(scene, True, self._speed, lambda after: state_of(arrivals, after), pictures.png)
        return arrivals

    def pace(self, now_s: float) -> None:
        """Waits until the wall's clock has come to where the pass's is."""
        wall_s = time.monotonic()
        self._began_s = wall_s if self._began_s is None else self._began_s
        wait_s = self._began_s + now_s / self._speed - wall_s
        if wait_s > 0.002:
            self.stopped.wait(wait_s)


def state_of(arrivals: Arrivals, after: int) -> dict[str, Any]:
    """What a page asks for: events it has not seen, and the counters as they are."""
    return {
        "now_s": round(arrivals.now_s, 6), "over": arrivals.over, "events": arrivals.events[after:],
        "samples": arrivals.samples[:], "unit": arrivals.unit,
    }  # fmt: skip
