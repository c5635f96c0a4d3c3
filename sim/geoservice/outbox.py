"""Mails as files (RFC 5322), drafts for a mail program to date and send: nothing is sent here.

The same bulletin or alert gives the same octets, under a name of its own, so that one that was sent is known.
"""

import hashlib
from collections.abc import Iterable, Sequence
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

from sim.geoservice.service import Recipient, Service

OUTBOX = "outbox"


def to_whom(service: Service, what: str, groups: Iterable[str] = ()) -> list[Recipient]:
    """Who receives bulletins, or alerts of a site in these groups."""
    mine = set(groups)
    listed = [one for one in service.recipients if what in one.receives]
    return [one for one in listed if what == "bulletin" or not one.groups or mine & set(one.groups)]


def write_mail(
    folder: Path, name: str, sender: str, recipients: Sequence[Recipient], subject: str, text: str, page: str = ""
) -> str | None:
    """OUT/outbox/NAME.eml, the page attached where there is one; nothing where nobody receives it. Gives its path."""
    if not recipients:
        return None
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = sender
    mail["To"] = [Address(one.name, addr_spec=one.email) for one in recipients]
    mail["Subject"] = subject
    digest = hashlib.sha256("\n".join([*(one.email for one in recipients), subject, text, page]).encode()).hexdigest()
    mail["Message-ID"] = f"<{digest[:32]}@nadir>"
    mail["X-Unsent"] = "1"
    mail.set_content(text)
    if page:
        mail.add_attachment(page, subtype="html", filename=f"{name}.html")
        mail.set_boundary(f"=={digest[:32]}==")
    (folder / OUTBOX).mkdir(exist_ok=True)
    path = folder / OUTBOX / f"{name}.eml"
    path.write_bytes(mail.as_bytes())
    return f"{OUTBOX}/{path.name}"
