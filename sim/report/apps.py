"""Applications on board -> their section of a report: what they answered, when that was here, and what it cost beside
the pictures of the same places."""

from collections.abc import Iterable, Mapping
from typing import Any

from hil.devices.latency import Work
from payload.link.app_record import OCTETS, PARTS, AppRecord
from payload.link.space_packet import octets_on_air
from sim.apps.products import ANSWERS_FILE, answer_row
from sim.apps.quality import Quality, qualities
from sim.ground.reception import SceneReception
from sim.mission.devices import estimate
from sim.mission.spec import Mission
from sim.onboard.apps_run import AppRun, AppsRun

BASIS = "measured: answers, octets, operations; modelled: times of the pass, joules; false alarms: measured elsewhere"


def apps_section(
    mission: Mission, onboard: AppsRun, received: SceneReception, answers_s: Mapping[int, float], tiles: dict[str, Any],
    downlinked_octets: int,
) -> dict[str, Any]:  # fmt: skip
    """The table `apps`. `answers_s`: when each answer was here first; `tiles`: those of the report."""
    answers = [answer for _, answer in sorted(received.answers.items())]
    octets = onboard.answers * onboard.copies * octets_on_air(OCTETS, mission.policy.packet_octets)
    alerts_s = [answers_s[a.number] for a in answers if a.alert and a.number in answers_s]
    measured = qualities()
    return {
        "basis": BASIS,
        "answers_made": onboard.answers, "answers_received": len(answers),
        "answers_missing": onboard.answers - len(answers), "copies": onboard.copies,
        "alerts": sum(answer.alert for answer in answers),
        "first_alert_s": min(alerts_s, default=None), "last_alert_s": max(alerts_s, default=None),
        "answer_packet_octets": octets,
        "answer_share_percent": 100 * octets / downlinked_octets if downlinked_octets else None,
        "picture_octets": _picture_octets(answers, tiles),
        "energy_j": _joules(mission, onboard.apps), "file": ANSWERS_FILE if answers else None,
        "list": [_app(app, mission, answers, measured) for app in onboard.apps],
        "answers": [_answer(answer, onboard, mission, answers_s) for answer in answers],
    }  # fmt: skip


def _app(
    app: AppRun, mission: Mission, answers: Iterable[AppRecord], measured: Mapping[str, Quality]
) -> dict[str, Any]:
    mine = [answer for answer in answers if answer.app == app.digest]
    quality = measured.get(app.kind)
    fits = quality is not None and round(quality.threshold * PARTS) == app.threshold
    return {
        "name": app.name, "indicator": app.indicator.name, "unit": app.indicator.unit,
        "threshold": app.threshold / PARTS, "answers": len(mine), "alerts": sum(answer.alert for answer in mine),
        "macs": app.macs, "macs_per_px": app.macs / app.looked_px if app.looked_px else None,
        "energy_j": _joules(mission, [app]), "cut_off": app.cut_off,
        "false_alarm_percent": quality.false_alarm_percent if fits and quality else None,
        "false_alarms_of": _told(quality, bool(fits)),
    }  # fmt: skip


def _told(quality: Quality | None, fits: bool) -> str:
    """What the rate of false alarms is of, or why there is none."""
    if quality is None:
        return "not measured: no figures of this application are kept"
    return quality.of if fits else f"not measured at this threshold, but at {quality.threshold:g}"


def _joules(mission: Mission, apps: Iterable[AppRun]) -> float | None:
    """Modelled energy of the operations alone, on the mission's device."""
    apps = list(apps)
    work = Work(macs=float(sum(app.macs for app in apps)))
    return estimate(mission.device, work, 0).energy_j if work.macs else 0.0


def _answer(
    answer: AppRecord, onboard: AppsRun, mission: Mission, answers_s: Mapping[int, float]
) -> dict[str, Any]:
    """A row of the table: as in answers.geojson, with the names that the mission gives."""
    by_digest = {app.digest: app for app in onboard.apps}
    app = by_digest.get(answer.app)
    site = mission.sites[answer.site].name if answer.site is not None and answer.site < len(mission.sites) else None
    told = {"app_name": app.name if app else None, "site_name": site, "arrived_s": answers_s.get(answer.number)}
    named = {"name": app.indicator.name, "unit": app.indicator.unit} if app else {}
    return answer_row(answer) | named | told


def _picture_octets(answers: Iterable[AppRecord], tiles: Mapping[str, Any]) -> int:
    """Octets of the tile codes of every tile that an answer is about: what the same places cost as pictures."""
    side, touched = tiles["tile_px"], set()
    for answer in answers:
        top, left, height, width = answer.box
        touched |= {
            (row, col)
            for row in range(top // side, (top + height - 1) // side + 1)
            for col in range(left // side, (left + width - 1) // side + 1)
        }
    return sum(tile["octets_sent"] or 0 for tile in tiles["list"] if (tile["row"], tile["col"]) in touched)
