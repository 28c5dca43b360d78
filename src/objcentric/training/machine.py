"""The machine that a run is on: what it is, what it caches, and when it wants its processor back."""

import datetime
import os
import platform
import re
import resource
import shlex
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from objcentric.data import cache
from objcentric.errors import UserError

PREEMPTED = 75  # exit status that asks a cluster to queue the run again
_NOTICE = b"stopping: steps under way are finished and saved first, which may take a while; again stops at once\n"
_preempted: ContextVar[threading.Event | None] = ContextVar("preempted", default=None)


def describe() -> str:
    """One line: cores, processor, devices, jax."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.devices()
    return f"{cores} cores of {_processor()}, {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"


def divide_cpu(num_devices: int) -> None:
    """Makes the CPU that many devices, unless it is 0 or XLA_FLAGS says otherwise; before anything is computed."""
    if num_devices < 0:
        raise UserError(f"train.cpu_devices={num_devices}: use 0, to leave the CPU whole, or more")
    if num_devices and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_devices)


def peak_memory() -> dict[str, float]:
    """Largest memory so far, MB: of this process and, where it is known, of its first device."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_host_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["peak_device_mb"] = round(stats["peak_bytes_in_use"] / 1e6, 1)
    return peak


def provenance() -> dict[str, Any]:
    """What tells later how a result came about: memory, machine, date and command."""
    return {
        **peak_memory(),
        "machine": describe(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *_without_mode(sys.argv)]),
    }


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache's folder xla, unless jax was told of a place already."""
    if jax.config.jax_compilation_cache_dir:
        return
    # jax does not tell CPUs apart, and homes are shared among machines: a program may use what another CPU lacks.
    folder = cache.root() / "xla" / f"{zlib.crc32(_processor().encode()):08x}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


@contextmanager
def preemption() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets, instead of ending the process; outside the main thread nothing sets it.

    It says so at once; a second one ends the process.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    token = _preempted.set(event)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def notice(*_: object) -> None:
        restore()
        event.set()
        with suppress(OSError):  # a terminal that is gone
            os.write(2, _NOTICE)  # in place of print, whose buffer may be in use

    for number in before:
        signal.signal(number, notice)
    try:
        yield event
    finally:
        restore()
        _preempted.reset(token)


def leave_if_preempted(said: str = "stopped") -> None:
    """Ends the process with status `PREEMPTED` once the event of `preemption` is set; outside of it, never."""
    event = _preempted.get()
    if event and event.is_set():
        print(f"{said}; the same command goes on", file=sys.stderr)
        raise SystemExit(PREEMPTED)


class Clock:
    """Seconds of a run over all its resumptions: ``wall`` since its start, ``train`` without what was `paused`."""

    def __init__(self, wall: float = 0.0, train: float = 0.0):
        self._start = time.perf_counter()
        self._wall, self._train = wall, train
        self._paused = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    @property
    def wall(self) -> float:
        return self._wall + time.perf_counter() - self._start

    @property
    def train(self) -> float:
        return self._train + time.perf_counter() - self._start - self._paused


class Progress:
    """A progress bar with the latest figures; where there is no terminal, a line at each validation."""

    def __init__(self, step: int, num_steps: int):
        self._figures: dict[str, float] = {}
        self._start: tuple[float, int] | None = None
        self._lines = not sys.stderr.isatty()
        self._bar = tqdm(
            total=num_steps, initial=step, desc="compiling", unit="step", disable=self._lines, dynamic_ncols=True
        )

    def show(self, step: int, figures: dict[str, float], *, line: bool = False) -> None:
        self._figures |= figures
        self._start = self._start or (time.perf_counter(), step)
        text = ", ".join(f"{name} {value:.4g}" for name, value in self._figures.items())
        self._bar.set_description_str("training", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        if line and self._lines:
            seconds, steps = time.perf_counter() - self._start[0], step - self._start[1]
            left = tqdm.format_interval(seconds / max(steps, 1) * (self._bar.total - step))
            print(f"step {step}/{self._bar.total}: {text}, {left} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _without_mode(arguments: list[str]) -> list[str]:
    apart = {i + 1 for i, argument in enumerate(arguments) if argument in ("--mode", "-mode")}
    return [a for i, a in enumerate(arguments) if i not in apart and not re.match("--?mode(=|$)", a)]
