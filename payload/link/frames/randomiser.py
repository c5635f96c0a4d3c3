"""The pseudo-randomiser of CCSDS 131.0-B, section 10: coded frames xor a sequence of 255 octets, which undoes itself.

The sequence is that of x^8 + x^7 + x^5 + x^3 + 1 from all ones, begun anew with every frame: it brings the bit
transitions that a receiver's clock needs, whatever the data. (131.0-B-5 adds one of 17 bits, not used here.)
"""

import numpy as np
from numpy.typing import NDArray


def _sequence() -> bytes:
    bits, state = [], [1] * 8  # state[0] is sent next
    for _ in range(8 * 255):
        bits.append(state[0])
        state = [*state[1:], state[0] ^ state[3] ^ state[5] ^ state[7]]
    return np.packbits(bits).tobytes()


SEQUENCE = _sequence()  # begins with ff 48 0e c0 9a 0d 70 bc


def randomise(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blocks [n, octets] xor the sequence, each from its start; the same again gives the blocks back."""
    octets = blocks.shape[1]
    sequence = np.frombuffer((SEQUENCE * (octets // len(SEQUENCE) + 1))[:octets], np.uint8)
    return blocks ^ sequence
