"""Values -> text as people read it. One rule for every page."""

import math
from typing import Any

THIN_SPACE = "\u202f"


def figure(value: Any, missing: str = "not computed") -> str:
    """Thin spaces between thousands, four significant digits; units are added elsewhere. `missing` stands for None."""
    if value is None:
        return missing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", THIN_SPACE)
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, list | tuple):
        return ", ".join(figure(inner) for inner in value)
    return str(value)


def _real(value: float) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "not a number"
    if 1e4 <= abs(value) < 1e9:
        return f"{value:,.0f}".replace(",", THIN_SPACE)
    text = f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.3e}"
    return text.replace("-", "−")


def percent(share: float | None, missing: str = "not computed") -> str:
    """A share of 0 to 1 in per cent: 0.0758 -> '7.58 %'."""
    return missing if share is None else f"{_real(float(f'{100 * share:.3g}'))}{THIN_SPACE}%"


def at_most(share: float | None, missing: str = "no bound") -> str:
    """An upper bound on a share, said as one. It is rounded up: a bound must not be understated."""
    if share is None:
        return missing
    step = 0.01 if share < 0.1 else 0.1
    return f"at most {math.ceil(round(100 * share / step, 6)) * step:.3g}{THIN_SPACE}%"


def octets(value: int) -> str:
    """An amount of octets with its prefix: 1 234 567 -> '1.23 MB'."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= scale:
            return f"{value / scale:.3g}{THIN_SPACE}{unit}"
    return f"{value}{THIN_SPACE}octets"


def fixed(value: float | None, digits: int, missing: str = "–") -> str:
    """So many digits after the point; `missing` for None and NaN."""
    return missing if value is None or value != value else f"{value:.{digits}f}"


def signed(value: float | None, digits: int, missing: str = "–") -> str:
    """`fixed` with its sign."""
    return missing if value is None or value != value else f"{value:+.{digits}f}".replace("-", "−")
