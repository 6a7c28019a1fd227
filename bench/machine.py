"""The machine of a run, and the versions of the packages that were measured."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.process import N_THREADS

PACKAGES = ("torch", "transformers", "transformer-lens", "bertviz", "locust", "websockets", "orjson", "numpy")


def describe() -> dict[str, object]:
    """The machine, its load before the measurements, and the versions of the packages."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "n_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "n_threads": N_THREADS,
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except FileNotFoundError:
        match = None
    return match[1] if match else platform.processor()
