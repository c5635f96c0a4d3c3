"""Training, written once: learning rate, running average, checkpoints, log and progress of any network here.

`fit` takes the steps of one network; the recipe of a network gives it the loss of a step and, if it likes, figures on
held-out data. A run that was cut off goes on from its newest checkpoint.
"""

import csv
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SAVE_EVERY_S = 300.0
#: How often a step is told of: on a terminal, and in a log file.
TERMINAL_EVERY_S, PIPE_EVERY_S = 0.5, 30.0
LIVE, MEAN = "live.", "mean."


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps: a linear rise over `warm_up` steps, then a fall to `floor` x `rate`."""

    steps: int
    rate: float
    warm_up: int = 100
    floor: float = 0.01
    shape: Literal["cosine", "linear"] = "cosine"

    def at(self, step_no: int) -> float:
        share = step_no / self.steps
        fall = 0.5 * (1 + math.cos(math.pi * share)) if self.shape == "cosine" else 1 - share
        return self.rate * min(1.0, (step_no + 1) / max(1, self.warm_up)) * (self.floor + (1 - self.floor) * fall)


class Average:
    """The running mean of a network's weights: over few steps at first, over about 1 / (1 - `limit`) later on."""

    def __init__(self, module: nn.Module, limit: float = 0.999, young: int = 10) -> None:
        self.module, self.limit, self.young = module, limit, young
        self.mean = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def follow(self, step_no: int) -> None:
        """Takes in the weights after `step_no` steps; counters and other integers are taken as they are."""
        keep = min(self.limit, step_no / (step_no + self.young))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 1.0 - keep)
            else:
                self.mean[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the averaged weights, for as long as it is looked at."""
        live = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.mean)
        yield
        self.module.load_state_dict(live)


def save_weights(path: Path, tensors: Mapping[str, Tensor], step_no: int) -> None:
    """A checkpoint, moved into place when it is whole."""
    partial = path.with_suffix(".partial")
    kept = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(kept | {"step_no": torch.tensor(step_no)}, partial)
    partial.replace(path)


def load_weights(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors of a checkpoint and the number of steps behind them ("step" in older ones)."""
    tensors = load_file(path)
    step_no = int(tensors.pop("step_no") if "step_no" in tensors else tensors.pop("step"))
    return tensors, step_no


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """The running mean out of a checkpoint that holds one."""
    tensors, _ = load_weights(path)
    return {k.removeprefix(MEAN): v for k, v in tensors.items() if k.startswith(MEAN)}


def resume(path: Path, module: nn.Module, average: Average | None = None) -> int:
    """Loads the newest weights from `path`; gives the number of steps behind them, 0 where there is no such file."""
    if not path.exists():
        return 0
    tensors, step_no = load_weights(path)
    if average is None:
        module.load_state_dict(tensors)
        return step_no
    for name, value in average.mean.items():
        value.copy_(tensors[MEAN + name])
    live = {k.removeprefix(LIVE): v for k, v in tensors.items() if k.startswith(LIVE)}
    module.load_state_dict(live or average.mean)  # a compact checkpoint holds the average alone
    return step_no


def save(path: Path, module: nn.Module, average: Average | None, step_no: int, finished: bool) -> None:
    """With an average, the weights to go on from are left out once training has ended."""
    if average is None:
        save_weights(path, module.state_dict(), step_no)
        return
    live = {} if finished else {LIVE + k: v for k, v in module.state_dict().items()}
    save_weights(path, live | {MEAN + k: v for k, v in average.mean.items()}, step_no)


def log(path: Path, row: Mapping[str, float]) -> None:
    """Adds a row to a CSV file, its header first if the file is new."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as sheet:
        writer = csv.DictWriter(sheet, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


@dataclass(eq=False)
class Progress:
    """Step, loss, steps a second and time left: one line that is written over on a terminal, now and then elsewhere."""

    name: str
    steps: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._told = -math.inf

    def start(self, step_no: int) -> None:
        """Training goes on from here: speed is counted from this step."""
        self._first = step_no, self.clock()
        done = f"; {step_no} of them are done" if step_no else ""
        self.stream.write(f"{self.name}: {self.steps} steps{done}\n")
        self.stream.flush()

    def step(self, step_no: int, loss: float) -> None:
        now, terminal = self.clock(), self.stream.isatty()
        if now - self._told < (TERMINAL_EVERY_S if terminal else PIPE_EVERY_S) and step_no < self.steps:
            return
        self._told = now
        line = f"{self.name}: step {step_no}/{self.steps}, loss {loss:.4f}{self._speed(step_no, now)}"
        ending = ("\n" if step_no == self.steps else "") if terminal else "\n"
        self.stream.write((f"\r{line:<78}" if terminal else line) + ending)
        self.stream.flush()

    def _speed(self, step_no: int, now: float) -> str:
        first, since = self._first or (0, now)
        if now <= since or step_no <= first:
            return ""
        rate = (step_no - first) / (now - since)
        return f", {rate:.3g} steps/s, {duration((self.steps - step_no) / rate)} left"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


@dataclass(frozen=True, eq=False)
class Shares:
    """A step's loss as the mean of `count`, each computed by a thread of its own from `loss_of(step_no, share)`.

    Threads that meet once a step, not in every operator, lose little where others keep the processor busy. Torch is
    then best left one thread an operator."""

    loss_of: Callable[[int, int], Tensor]
    count: int

    def backward(self, module: nn.Module, step_no: int) -> Tensor:
        """Gradients of the parameters of `module`; gives the loss."""
        parameters = [p for p in module.parameters() if p.requires_grad]

        def share(number: int) -> tuple[Tensor, ...]:
            loss = self.loss_of(step_no, number) / self.count
            return loss.detach(), *torch.autograd.grad(loss, parameters)

        with ThreadPoolExecutor(self.count) as threads:
            shares = list(threads.map(share, range(self.count)))
        for parameter, *gradients in zip(parameters, *(share[1:] for share in shares), strict=True):
            parameter.grad = torch.stack(gradients).sum(0)
        return torch.stack([share[0] for share in shares]).sum()


def fit(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    loss_of: Callable[[int], Tensor] | Shares,
    path: Path | None = None,
    average: Average | None = None,
    validate: Callable[[], dict[str, float]] = dict,
    clip: float = 1.0,
    progress: Progress | None = None,
) -> None:
    """Trains `module` in place; with an `average`, its averaged weights are what is left in it.

    `loss_of(step_no)` gives a step's loss and draws its random numbers from that number alone. `path`: the checkpoint
    (safetensors) to go on from and to write; a log of the same name (.csv) stands beside it. A parameter group of the
    optimiser with a "gain" learns that much faster.
    """
    first = resume(path, module, average) if path else 0
    if progress:
        progress.start(first)
    saved = time.monotonic()
    for step_no in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step_no) * group.get("gain", 1.0)
        optimiser.zero_grad()
        if isinstance(loss_of, Shares):
            loss = loss_of.backward(module, step_no)
        else:
            loss = loss_of(step_no)
            loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimiser.step()
        finished = step_no + 1 == schedule.steps
        if average:
            average.follow(step_no + 1)
        if progress:
            progress.step(step_no + 1, float(loss.detach()))
        if path and (finished or time.monotonic() - saved > SAVE_EVERY_S):
            save(path, module, average, step_no + 1, finished)
            row = {"step": step_no + 1, "loss": round(float(loss.detach()), 4)}
            log(path.with_suffix(".csv"), row | _figures(validate, average))
            saved = time.monotonic()
    if average:
        module.load_state_dict(average.mean)


def _figures(validate: Callable[[], dict[str, float]], average: Average | None) -> dict[str, float]:
    if average is None:
        return validate()
    with average.in_place():
        return validate()


def mixed_precision(enabled: bool = True) -> torch.autocast:
    """bfloat16 where the processor has units for it; elsewhere it would be emulated, many times slower."""
    pays = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled and pays)
