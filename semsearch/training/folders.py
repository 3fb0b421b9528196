"""Where a run keeps its work and how its model gets to its place: whole, with its card, or not at all.

Beside the folder OUTPUT that was asked for, `OUTPUT.training` holds checkpoints, examples and the log while a run goes
on, and `OUTPUT.rejected` a model that did not win.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput, MissingExtra
from semsearch.store.files import sync_folder
from semsearch.training.examples import Example

__all__ = ["Workspace"]

_STATE, _EXAMPLES, _LOG = "run.json", "examples.jsonl", "training-log.jsonl"


class Workspace:
    """The folders of one training run."""

    def __init__(self, output: Path) -> None:
        self.output = Path(os.path.abspath(output.expanduser()))  # noqa: PTH100 - links stay as they are named
        self.work = self.output.with_name(f"{self.output.name}.training")
        self.rejected = self.output.with_name(f"{self.output.name}.rejected")
        self.checkpoints = self.work / "checkpoints"
        self.candidate = self.work / "model"
        self.log = self.work / _LOG

    def begin(self, state: Mapping[str, Any], *, resume: bool) -> bool:
        """Make the work folder, or take up what is in it; tells whether there is work to take up.

        Args:
            state: everything that decides the result; a run is taken up only with the same.
            resume: whether to take up an earlier run.

        Raises:
            InvalidInput: OUTPUT is taken, an earlier run is in the way, or is not this one.
        """
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise InvalidInput(f"{self.output} exists already; name another folder with --output, or remove it")
        kept = self.work / _STATE
        if not resume:
            if (self.work / _EXAMPLES).exists() or self.checkpoints.exists():
                raise InvalidInput(
                    f"{self.work} holds a run that was cut off. Go on with it: --resume. Or remove that folder"
                )
            self.work.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
            return False
        if not kept.is_file():
            raise InvalidInput(f"{self.work} holds no run to go on with; leave out --resume")
        before = json.loads(kept.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(state))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            was = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
            raise InvalidInput(f"the run in {self.work} cannot be taken up: {was}. Use what it was started with")
        return True

    def checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        found = [
            path
            for path in self.checkpoints.glob("checkpoint-*")
            if path.name.rpartition("-")[2].isdigit() and (path / "trainer_state.json").is_file()
        ]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def keep_examples(self, examples: Sequence[Example]) -> None:
        """Keep the rows, so that a resumed run has the same."""
        temporary = self.work / f"{_EXAMPLES}.tmp"
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(example.as_dict()) + "\n" for example in examples)
        temporary.replace(self.work / _EXAMPLES)

    def kept_examples(self) -> list[Example] | None:
        """The rows of the run that is taken up, or None."""
        path = self.work / _EXAMPLES
        if not path.is_file():
            return None
        return [Example(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def note(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The log so far; a line cut off in the middle is left out."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.is_file() else ():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def forget_after(self, step: int) -> None:
        """Drop what the log says of steps that will be taken again."""
        kept = [entry for entry in self.entries() if entry.get("step", 0) <= step]
        self.log.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")

    def finish(self, *, won: bool) -> Path:
        """Move the candidate, with the log beside its weights, to OUTPUT or to `.rejected`; gives the place.

        The last step is one rename, so neither place ever shows half a model.
        """
        shutil.copyfile(self.log, self.candidate / _LOG)
        target = self.output if won else self.rejected
        if won and target.is_dir():
            target.rmdir()  # empty: `begin` saw to that
        elif target.exists():
            shutil.rmtree(target)
        _make_durable(self.candidate)
        self.candidate.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(self.work, ignore_errors=True)
        return target


def draw_plot(entries: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """A PNG of the loss, and of the learning rate, over the steps.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train") from error
    points = [(entry["step"], entry["loss"], entry["learning_rate"]) for entry in entries if "loss" in entry]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([p[0] for p in points], [p[1] for p in points], color="tab:blue", label="loss")
    axes.set(xlabel="step", ylabel="loss", title=title)
    rates = axes.twinx()
    rates.plot([p[0] for p in points], [p[2] for p in points], color="tab:gray", linestyle=":", label="learning rate")
    rates.set_ylabel("learning rate")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _make_durable(folder: Path) -> None:
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
