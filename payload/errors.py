"""The errors of the flight side, and the one rule for their text: what was found, what was wanted, how to mend it."""


class InputError(ValueError):
    """Something handed to Nadir cannot be used. The text is one line a user can act on; every CLI exits 2 on it."""


class BundleError(InputError):
    """A bundle that is missing, incomplete, tampered with, or of another format."""


class SignatureError(BundleError):
    """A bundle that nobody trusted has signed, or that was changed after it was signed."""


class PacketError(InputError):
    """A value that does not fit its field in a packet: misuse by the sender, never damage on the link."""


class StreamError(Exception):
    """Received octets that do not decode: damage, which is data. The ground lists the tile as refused, with it."""
