"""A service over runs -> dashboard.html, a bulletin for each period, mails in an outbox, and geoservice.json.

service -> sites -> runs -> readings -> figures, with verdicts -> aggregates -> pages -> mails
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.design.figures import figure as shown
from sim.geoservice import pages
from sim.geoservice.figures import Figure, aggregates, figures_of, groups_of
from sim.geoservice.outbox import to_whom, write_mail
from sim.geoservice.pages import Told
from sim.geoservice.readings import read_all
from sim.geoservice.runs import Run, find_runs
from sim.geoservice.service import Service, load_service
from sim.geoservice.sites import Site, read_sites
from sim.geoservice.verdicts import Verdict, read_verdicts, standing, verdicts_file
from sim.products.delivery import whole_or_nothing
from sim.progress import Progress
from sim.toml_tables import read_json

SCHEMA, RECORD = "nadir-geoservice/1", "geoservice.json"


@dataclass(frozen=True)
class GeoserviceRequest:
    """What the user asked for."""

    service: Path
    runs: Path
    out: Path
    overwrite: bool = False


def geoservice(request: GeoserviceRequest, progress: Progress) -> dict[str, Any]:
    """Writes all of it or nothing, and gives what geoservice.json holds. InputError where an input cannot be used."""
    service = load_service(request.service)
    sites = read_sites(request.service.parent / service.sites)
    template = _template(request.service, service)
    groups = groups_of({site.name: site.groups for site in sites})
    _refuse_unknown_groups(service, list(groups)[1:], request.service)
    verdicts = read_verdicts(verdicts_file(request.service))
    notes: list[str] = []
    with whole_or_nothing(request.out, request.overwrite) as folder:
        runs = find_runs(request.runs, notes)
        readings = read_all(service, sites, runs, progress)
        if not readings:
            raise InputError(f"{request.runs}: no run covers any of the {len(sites)} sites; look at their coordinates")
        figures = figures_of(service, readings, runs, verdicts)
        notes += _uncovered(sites, figures) + _outdated(verdicts, figures)
        told = Told(service, sites, runs, figures, aggregates(service, figures, groups), notes)
        written = _write(told, folder, request.out, template)
        record = _record(told, request.service, written)
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def _template(path: Path, service: Service) -> Path | None:
    """The user's own template of the bulletin, counted from the service's file."""
    if service.bulletin.template is None:
        return None
    template = path.parent / service.bulletin.template
    if not template.is_file():
        raise InputError(f"{path}: bulletin.template: {template} is no file; give one beside the service, or none")
    return template


def _refuse_unknown_groups(service: Service, known: Sequence[str], path: Path) -> None:
    for recipient in service.recipients:
        for group in recipient.groups:
            if group not in known:
                listed = ", ".join(known) or "none"
                who = f"{path}: recipient {recipient.name}"
                raise InputError(f"{who}: no site is in group {group[:60]!r}; there are {listed}")


def _uncovered(sites: Sequence[Site], figures: Sequence[Figure]) -> list[str]:
    seen = {one.site for one in figures}
    return [f"{site.name}: no run covers it" for site in sites if site.name not in seen]


def _outdated(verdicts: Sequence[Verdict], figures: Sequence[Figure]) -> list[str]:
    gone = sorted(set(standing(verdicts)) - {one.name for one in figures})
    return [f"verdict of figure {name}: no figure has that name now, as its runs or its rule changed" for name in gone]


def _write(told: Told, folder: Path, out: Path, template: Path | None) -> dict[str, Any]:
    """Pages and mails; their paths."""
    names = {period: f"{pages.BULLETINS}/{pages.file_name(period)}.html" for period in told.periods}
    (folder / pages.BULLETINS).mkdir()
    mails = []
    for period, name in names.items():
        text = pages.bulletin(told, period, out, template)
        (folder / name).write_text(text, encoding="utf-8")
        mails.append(_bulletin_mail(told, period, folder, text))
    mails += [_alert_mail(told, one, folder) for one in newly_alert(told.figures)]
    (folder / pages.DASHBOARD).write_text(pages.dashboard(told, out, names), encoding="utf-8")
    return {"dashboard": pages.DASHBOARD, "bulletins": names, "mails": sorted(mail for mail in mails if mail)}


def newly_alert(figures: Sequence[Figure]) -> Iterator[Figure]:
    """The figures with which an alert is confirmed: one for each alert."""
    before = None
    for one in figures:
        follows = before is not None and (before.site, before.indicator) == (one.site, one.indicator)
        if one.state == "alert" and not (follows and before is not None and before.state == "alert"):
            yield one
        before = one


def _bulletin_mail(told: Told, period: str, folder: Path, text: str) -> str | None:
    service, name = told.service, f"bulletin-{pages.file_name(period)}"
    title = service.bulletin.title or f"Bulletin of {service.title}"
    alerts = [f"{one.site}: {_sentence(service, one)}" for one in told.figures
              if one.period == period and one.state in ("alert", "unconfirmed")]  # fmt: skip
    words = [f"{title}, {period}.", "", *(alerts or ["No alert."]), "", "The bulletin is attached."]
    body = "\n".join(words) + "\n"
    return write_mail(folder, name, service.sender, to_whom(service, "bulletin"), f"{title}: {period}", body, text)


def _alert_mail(told: Told, one: Figure, folder: Path) -> str | None:
    service, site = told.service, next(site for site in told.sites if site.name == one.site)
    indicator = service.indicators[one.indicator]
    runs = [run for run in told.runs if run.number in one.runs]
    words = [f"{one.site}: {_sentence(service, one)}", "", f"Figure {one.name}, {one.period}. {indicator.rule}.",
             *(f"Moderator: {comment}" for comment in one.comments), "", "Read from",
             *(f"run {run.number}, {run.name}, SHA-256 {run.digest}" for run in runs)]  # fmt: skip
    subject = f"Alert: {one.site}, {indicator.named(one.indicator)}, {one.period}"
    recipients = to_whom(service, "alerts", site.groups)
    return write_mail(folder, f"alert-{one.name}", service.sender, recipients, subject, "\n".join(words) + "\n")


def _sentence(service: Service, one: Figure) -> str:
    indicator = service.indicators[one.indicator]
    value = shown(one.value, "not seen")
    return f"{indicator.named(one.indicator)} {value} {indicator.shown_unit}".strip() + f", {one.state}"


def _record(told: Told, path: Path, written: dict[str, Any]) -> dict[str, Any]:
    service, states = told.service, told.states
    return {
        "schema": SCHEMA, "title": service.title, "service": path.name,
        "service_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "period": service.period,
        "moderated": service.moderated,
        "sites": [{"name": site.name, "groups": list(site.groups), "state": states[site.name]} for site in told.sites],
        "indicators": {name: {"title": one.named(name), "unit": one.shown_unit, "rule": one.rule, "when": one.when,
                              "alert": one.alert, "clear": one.clear, "combine": one.over_passes}
                       for name, one in service.indicators.items()},
        "runs": [_run(run) for run in told.runs],
        "figures": [_figure(one) for one in told.figures],
        "aggregates": [asdict(one) for one in told.aggregates],
        "notes": list(told.notes), **written,
    }  # fmt: skip


def _run(run: Run) -> dict[str, Any]:
    return {
        "number": run.number, "kind": run.kind, "name": run.name, "scene": run.scene, "takes": len(run.takes),
        "at": run.at.isoformat() if run.at else None, "digest": run.digest, "files": dict(sorted(run.files.items())),
    }  # fmt: skip


def _figure(one: Figure) -> dict[str, Any]:
    bare = replace(one, readings=())
    readings = [{"run": r.run, "at": r.at.isoformat(), "value": r.value, "seen_percent": r.seen_percent,
                 "cause": r.cause} for r in one.readings]  # fmt: skip
    return asdict(bare) | {"runs": one.runs, "waits": one.waits, "readings": readings}


def figure_in(out: Path, name: str) -> dict[str, Any]:
    """A figure of an earlier run. InputError where there is no run, or no such figure."""
    record = read_json(out / RECORD, "--out, the folder that sim geoservice wrote")
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise InputError(f"{out / RECORD}: is of no schema {SCHEMA}; run sim geoservice again")
    try:
        found: dict[str, dict[str, Any]] = {one["name"]: one for one in record["figures"]}
        waiting = ", ".join(one["name"] for one in found.values() if one["waits"]) or "none"
    except (KeyError, TypeError):
        raise InputError(f"{out / RECORD}: its figures cannot be read; run sim geoservice again") from None
    if name not in found:
        raise InputError(f"{out / RECORD}: has no figure {name}; those that wait for a verdict: {waiting[:200]}")
    return found[name]


def counted(number: int, plural: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {plural[:-1] if number == 1 else plural}"


def as_text(record: dict[str, Any], out: Path) -> str:
    """What the command prints."""
    count = {name: counted(len(record[name]), name) for name in ("figures", "sites", "runs", "bulletins", "mails")}
    lines = [f"{record['title']}: {count['figures']} of {count['sites']} from {count['runs']}"]
    lines += [f"  {site['name']}: {site['state']}" for site in record["sites"]]
    lines += [f"  waits for a verdict: figure {one['name']}, {one['site']}, {one['indicator']} {shown(one['value'])}, "
              f"{one['period']}" for one in record["figures"] if one["waits"]]  # fmt: skip
    lines += [f"  note: {note}" for note in record["notes"]]
    return "\n".join([*lines, f"wrote {out / record['dashboard']}, {count['bulletins']}, "
                      f"{count['mails']} in {out / 'outbox'} (none is sent)"]) + "\n"  # fmt: skip
