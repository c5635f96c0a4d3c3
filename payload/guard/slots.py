"""Two places for bundles on board: a new one is tried in the other place, and taken back unless it proves itself.

    slots/a, slots/b     bundles
    slots/slots.json     {"active": "a", "trial": "b" or null, "starts": of the trial}

Every change is a file written beside, synced and renamed: a cut leaves the old state or the new one.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from payload.bundle import Bundle, load_bundle
from payload.errors import BundleError
from payload.guard.telemetry import Count, EventId, Telemetry

FILE = "slots.json"
PLACES = ("a", "b")


class Slots:
    """`trusted_keys` None: signatures are not required. `rolled_back`: the last choice was another than was to fly."""

    def __init__(self, folder: Path, trusted_keys: Sequence[bytes] | None = None) -> None:
        self._folder, self._keys = folder, trusted_keys
        self.rolled_back = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def trial_folder(self) -> Path:
        """Where the bundle on trial lies; BundleError if there is none."""
        place = self._state()["trial"]
        if place is None:
            raise BundleError(f"{self._folder}: no bundle is on trial; install one first")
        return self._folder / str(place)

    def install(self, upload: Path, bundle_id: int) -> Bundle:
        """A bundle into the place that does not fly, on trial from the next start on. BundleError where it is not the
        one announced, not whole, or not signed as it must be: then nothing has changed."""
        state = self._state()
        place = PLACES[state["active"] == PLACES[0]]
        new = self._folder / f"{place}.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            shutil.copytree(upload, new)
            bundle = load_bundle(new, flight_only=True, trusted_keys=self._keys)
            if bundle.bundle_id != bundle_id:
                raise BundleError(
                    f"{upload}: bundle {bundle.bundle_id:08x}, announced was {bundle_id:08x}; upload the right one"
                )
        except (OSError, BundleError) as error:
            shutil.rmtree(new, ignore_errors=True)
            raise BundleError(str(error)) from None
        if state["trial"] is not None:
            self._save(state | {"trial": None})
        shutil.rmtree(self._folder / place, ignore_errors=True)
        new.rename(self._folder / place)
        self._save({"active": state["active"], "trial": place, "starts": 0})
        return bundle

    def choose(self, telemetry: Telemetry | None = None) -> Bundle:
        """The bundle to start with: the one on trial once, else the active one, else the other. BundleError where none
        is whole. Where it is not the one that was to fly, the trial is over, and that is counted and told."""
        state = self._state()
        trial, wanted = state["trial"], state["trial"] or state["active"]
        order = [state["active"], *(place for place in PLACES if place != state["active"])]
        if trial is not None and state["starts"] == 0:
            self._save(state | {"starts": 1})
            order.insert(0, trial)
        place, bundle = self._first_whole(order)
        self.rolled_back = place != wanted
        if self.rolled_back:
            self._save(state | {"trial": None, "starts": 0})
            if telemetry is not None:
                telemetry.count(Count.ROLLBACKS)
                telemetry.tell(EventId.ROLLED_BACK, f"{wanted} to {place}, bundle {bundle.bundle_id:08x}")
        return bundle

    def _first_whole(self, order: Sequence[str | None]) -> tuple[str, Bundle]:
        causes = []
        for place in order:
            try:
                return str(place), load_bundle(
                    self._folder / str(place), flight_only=True, trusted_keys=self._keys
                )
            except BundleError as error:
                causes.append(str(error))
        raise BundleError(f"{self._folder}: no bundle is whole ({'; '.join(causes)}); upload one")

    def select(self, place: str) -> None:
        """The bundle in this place flies from the next start on, on its own responsibility: it is not on trial.
        BundleError where there is none that is whole; then nothing has changed."""
        load_bundle(self._folder / place, flight_only=True, trusted_keys=self._keys)
        self._save({"active": place, "trial": None, "starts": 0})

    @property
    def on_trial(self) -> str | None:
        """The place whose bundle has still to prove itself."""
        return None if (place := self._state()["trial"]) is None else str(place)

    @property
    def active(self) -> str | None:
        """The place that flies where nothing is on trial."""
        return None if (place := self._state()["active"]) is None else str(place)

    def confirm(self) -> None:
        """The bundle on trial has proved itself (self-test passed, a scene coded): from now on it is the active one."""
        state = self._state()
        if state["trial"] is not None:
            self._save({"active": state["trial"], "trial": None, "starts": 0})

    def _state(self) -> dict[str, Any]:
        try:
            table = json.loads((self._folder / FILE).read_text(encoding="ascii"))
            fits = table["active"] in (*PLACES, None) and table["trial"] in (*PLACES, None)
            if fits and isinstance(table["starts"], int):
                return dict(table)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {"active": next((p for p in PLACES if (self._folder / p).is_dir()), None), "trial": None, "starts": 0}

    def _save(self, state: dict[str, Any]) -> None:
        new = self._folder / f"{FILE}.new"
        with new.open("w", encoding="ascii") as stream:
            json.dump(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        new.rename(self._folder / FILE)
        descriptor = os.open(self._folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
