"""The one place where OpenVINO is imported, without what phones home."""

from __future__ import annotations

import functools
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["openvino_core", "openvino_library"]

# The model converter is not used here, and the telemetry package that comes with it sends use statistics unless the
# user has opted out. Neither is imported; without them `import openvino` is also three times as fast.
_NOT_IMPORTED = ("openvino.tools.ovc", "openvino_telemetry")


@functools.cache
def openvino_library() -> Any:
    """The module `openvino`; a process that had imported it before keeps what it has."""
    blocked = [name for name in _NOT_IMPORTED if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]  # makes importing it an ImportError, which openvino expects
    try:
        return importlib.import_module("openvino")
    finally:
        for name in blocked:
            sys.modules.pop(name, None)


@functools.cache
def openvino_core() -> Any:
    """The runtime, one a process.

    Its plugin gives the thread that loads it a stack of its own for signals, which is too small for two at once where
    the processor has AMX: so it is not the main thread, which gets them, that loads it.
    """
    with ThreadPoolExecutor(1) as loader:
        core = loader.submit(openvino_library().Core).result()
        loader.submit(core.get_property, "CPU", "OPTIMIZATION_CAPABILITIES").result()
    return core
