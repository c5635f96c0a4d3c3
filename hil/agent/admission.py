"""Who may open a session: anybody, or whoever shows the shared key. And what a refused request is told."""

from dataclasses import dataclass
from typing import Any

from hil.line.key import fresh_nonce, prove, proves
from hil.line.protocol import pack_body


class RefusedError(Exception):
    """A request this agent does not carry out. `reason`: session, busy, refused or failed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def error_body(reason: str, text: str) -> bytes:
    """Body of an ERROR: one line."""
    return pack_body({"reason": reason, "error": " ".join(text.split())[:500]})


@dataclass
class Caller:
    """Somebody at the other end of a line, and the challenge he has been given; a challenge is good for one answer."""

    challenge: str = ""


class Admission:
    """Answers HELLO. Without a key everybody is admitted."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def hello(self, caller: Caller, fields: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """(admitted, fields of the reply). RefusedError where the proof is not that of the key."""
        if self._key is None:
            return True, {}
        challenge, caller.challenge = caller.challenge, ""
        if "proof" not in fields or not challenge:
            caller.challenge = fresh_nonce()
            return False, {"challenge": caller.challenge}
        nonce = str(fields.get("nonce"))
        if not proves(self._key, "host", challenge, nonce, fields["proof"]):
            raise RefusedError("refused", "this host holds another key than the agent; give both the same key file")
        return True, {"proof": prove(self._key, "agent", challenge, nonce)}
