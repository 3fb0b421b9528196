"""What every benchmark does with its figures: say on which machine they were taken, print them, keep them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "semsearch",
    "torch",
    "sentence-transformers",
    "openvino",
    "txtai",
    "faiss-cpu",
    "faiss-gpu",
    "tantivy",
    "numpy",
)


def machine() -> dict[str, object]:
    """Processor, cores, system and versions."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
        n_cores = sum(line.startswith("processor") for line in lines)
    else:
        n_cores = 0
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"cpu": cpu, "cores": n_cores, "python": platform.python_version(), "versions": versions}


def write(name: str, rows: list[dict[str, object]], **facts: object) -> None:
    """Print rows as a table and keep them, with facts about all of them, as `results/<name>.json`."""
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['versions']}, {facts}")
    columns = [c for c, value in rows[0].items() if not isinstance(value, dict)]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v := row.get(c), float) else str(v) for c in columns) + " |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": here, **facts, "rows": rows}, indent=1) + "\n")
