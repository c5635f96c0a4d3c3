"""Training, written once: schedule, running average, checkpoints, and what a person sees of it."""

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.training import Average, Progress, Schedule, averaged_weights, fit, load_weights, resume, save_weights


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Half a minute a look."""

    def __init__(self, pace_s: float = 30.0) -> None:
        self.now, self.pace_s = 0.0, pace_s

    def __call__(self) -> float:
        self.now += self.pace_s
        return self.now


def test_the_learning_rate_rises_then_falls_to_its_floor() -> None:
    schedule = Schedule(steps=1000, rate=2.0, warm_up=100, floor=0.1)
    assert schedule.at(0) == pytest.approx(2.0 / 100)
    assert schedule.at(500) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert schedule.at(1000) == pytest.approx(0.2)
    assert Schedule(10, 1.0, warm_up=0, floor=0.0, shape="linear").at(5) == pytest.approx(0.5)


def line_through_points(steps: int, path: Path | None = None, progress: Progress | None = None) -> nn.Linear:
    """y = 3 x from four points, by SGD."""
    torch.manual_seed(0)
    network, x = nn.Linear(1, 1, bias=False), torch.tensor([[-1.0], [0.5], [1.0], [2.0]])

    def loss_of(step_no: int) -> Tensor:
        return ((network(x) - 3 * x) ** 2).mean()

    fit(
        network, torch.optim.SGD(network.parameters()), Schedule(steps, 0.1, warm_up=1), loss_of, path,
        Average(network, 0.9, 1), lambda: {"weight": float(network.weight.detach())}, progress=progress,
    )  # fmt: skip
    return network


def test_fit_learns_and_leaves_the_running_average_in_network_file_and_log(tmp_path: Path) -> None:
    network = line_through_points(200, tmp_path / "line.safetensors")
    assert float(network.weight.detach()) == pytest.approx(3.0, abs=1e-3)
    assert torch.equal(averaged_weights(tmp_path / "line.safetensors")["weight"], network.weight.detach())
    header, row = (tmp_path / "line.csv").read_text(encoding="utf-8").splitlines()
    assert header == "step,loss,weight" and float(row.split(",")[2]) == pytest.approx(float(network.weight.detach()))


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "line.safetensors"
    weight = torch.tensor([[2.5]])
    save_weights(path, {"live.weight": weight, "mean.weight": torch.tensor([[2.0]])}, 3)
    network = nn.Linear(1, 1, bias=False)
    average = Average(network)
    assert resume(path, network, average) == 3
    assert torch.equal(network.weight.detach(), weight) and float(average.mean["weight"]) == 2.0


def test_a_checkpoint_of_before_is_still_read(tmp_path: Path) -> None:
    """The cloud network's files counted their steps under another name."""
    from safetensors.torch import save_file

    save_file({"mean.weight": torch.ones(1), "step": torch.tensor(7)}, tmp_path / "old.safetensors")
    assert load_weights(tmp_path / "old.safetensors")[1] == 7


def test_a_terminal_shows_step_loss_speed_and_time_left_on_one_line() -> None:
    screen = Terminal()
    progress = Progress("decoder", 100, screen, Clock(2.0))
    progress.start(0)  # at 2 s
    progress.step(10, 0.25)  # at 4 s: 10 steps in 2 s
    assert "\rdecoder: step 10/100, loss 0.2500, 5 steps/s, 18 s left" in screen.getvalue()
    assert screen.getvalue().count("\n") == 1  # of the opening line


def test_a_log_file_gets_whole_lines_now_and_then() -> None:
    piped = io.StringIO()
    progress = Progress("decoder", 100, piped, Clock(10.0))
    progress.start(40)
    for step_no in range(41, 101):
        progress.step(step_no, 1.0)
    lines = piped.getvalue().splitlines()
    assert lines[0] == "decoder: 100 steps; 40 of them are done" and "\r" not in piped.getvalue()
    assert lines[1].startswith("decoder: step 41/100, loss 1.0000, 0.1 steps/s, 9 min 50 s left")
    assert lines[-1].startswith("decoder: step 100/100") and len(lines) == 1 + 20 + 1
