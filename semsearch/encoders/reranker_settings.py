"""What training found out about a reranker, in a file beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from semsearch.errors import ModelError

__all__ = ["RerankerSettings", "read_settings", "write_settings"]

SETTINGS_FILE = "semsearch.json"
FIRST_STAGE_WEIGHT = 0.2  # of a cross-encoder that says nothing: mostly its own order


@dataclass(frozen=True, slots=True)
class RerankerSettings:
    """How a reranker's scores are made and used.

    Attributes:
        first_stage_weight: share of the first stage in what hits are ranked by, in [0, 1].
        late_interaction: whether the folder holds a bi-encoder whose vectors of tokens are compared, instead of a
            cross-encoder.
    """

    first_stage_weight: float = FIRST_STAGE_WEIGHT
    late_interaction: bool = False


def read_settings(folder: Path) -> RerankerSettings:
    """What is stated in a model's folder, or what holds where nothing is.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return RerankerSettings()
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        found = RerankerSettings(float(stated["first_stage_weight"]), bool(stated.get("late_interaction", False)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} does not state a first_stage_weight: {error!r}. Mend or delete it") from error
    if not 0.0 <= found.first_stage_weight <= 1.0:
        raise ModelError(f"{path}: first_stage_weight is {found.first_stage_weight}; it must lie in [0, 1]")
    return found


def write_settings(folder: Path, settings: RerankerSettings) -> None:
    """State them in a model's folder."""
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2), encoding="utf-8")
