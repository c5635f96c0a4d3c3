"""A policy checks itself: what was found and what was wanted, for every field at both ends of its range."""

import pytest

from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Policy, Region


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("step_dn", (1.0, 8192.0), (0.99, 8192.1, float("nan"))),
        ("packet_octets", (64, 65542), (63, 65543)),
        ("apid", (0, 2043), (-1, 2044)),
    ],
)
def test_ranges_of_a_policy(field, inside, outside) -> None:
    for value in inside:
        assert getattr(Policy(**{field: value}), field) == value
    for value in outside:
        with pytest.raises(InputError, match=f"{field} is {value}, wanted"):
            Policy(**{field: value})


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("withhold_above_percent", (0.0, 100.0), (-0.1, 100.1, float("nan"))),
        ("reduce_above_percent", (None, 0.0, 88.0), (-1.0, 88.1)),  # the gate withholds above 88
        ("reduced_layers", (1, 9), (0,)),
        ("thin_counts", (0.0, 1.0), (-0.1, 1.1)),
        ("audit_count", (0, 65535), (-1, 65536)),
    ],
)
def test_ranges_of_a_gate(field, inside, outside) -> None:
    for value in inside:
        assert getattr(Gate(**{field: value}), field) == value
    for value in outside:
        with pytest.raises(InputError, match=rf"gate\.{field} is {value}, wanted"):
            Gate(**{field: value})


@pytest.mark.parametrize("box", [(5, 0, 5, 9), (0, 9, 5, 9), (-1, 0, 5, 9), (0, -1, 5, 9), (6, 0, 5, 9)])
def test_boxes_of_pixels_that_are_empty_are_refused(box) -> None:
    with pytest.raises(InputError, match=r"^Region.* is empty"):
        Region(*box)


@pytest.mark.parametrize("box", [(10, 0, 10, 1), (0, 1, 1, 1), (-181, 0, 0, 1), (0, -91, 1, 0), (0, 0, 361, 1)])
def test_boxes_on_the_ground_that_are_none_are_refused(box) -> None:
    with pytest.raises(InputError, match=r"^LonLatRegion.* is no box"):
        LonLatRegion(*box)


def test_a_policy_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(AttributeError):
        Policy().step_dn = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_is_positive(budget) -> None:
    with pytest.raises(InputError, match=f"budget_octets is {budget}, wanted"):
        Policy(budget_octets=budget)
