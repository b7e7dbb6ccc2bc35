"""The folder of a run, which nothing is lost from: a new one, one to go on with, one that is finished.

A run begins with settings.json, trains with its checkpoints in checkpoint/, writes its results, and
removes checkpoint/ last of all. So a folder with results and no checkpoint is a finished one, whatever
ended the run before; any other can go on.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from pathlib import Path

from jaxreg.cli.settings import Settings
from jaxreg.storage.atomic import remove_directory

__all__ = ["RunFolder"]


_HOLDS = (
    "already holds another run, which is left as it is. Choose a new folder, leave --out away for a free "
    "one in runs/, or go on with a run that was cut off by --resume."
)


def _made(path: Path) -> bool:
    """Whether a folder was made just now, and not by another process."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


class RunFolder:
    """A folder of a run, and what it tells of how far the run has come.

    >>> import tempfile
    >>> folder = RunFolder.new(tempfile.mkdtemp(), Settings(steps=7))
    >>> folder.settings().steps, folder.finished, folder.step
    (7, False, None)
    >>> folder.release(), folder.path.exists()
    (True, False)
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / "checkpoint"

    @classmethod
    def new(cls, out: str | None, settings: Settings) -> RunFolder:
        """A new folder with settings.json in it and nothing else.

        Without `out` it is the first free one of runs/DATA, runs/DATA-2, …

        Raises:
          ValueError: `out` already holds files, which are left as they are, or is no path. OSError: it
            cannot be made or written.
        """
        if out is None:
            name = Path(settings.data).stem
            names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
            path = next(Path("runs") / n for n in names if _made(Path("runs") / n))
        elif not out.strip():
            raise ValueError("--out: got an empty path. Give a folder, or leave --out away.")
        else:
            path = Path(out).expanduser()
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise ValueError(f"--out: {out!r} {_HOLDS}")
            path.mkdir(parents=True, exist_ok=True)
        try:
            with open(path / "settings.json", "x", encoding="utf-8") as file:  # of two, one has it
                file.write(settings.to_json())
        except FileExistsError as error:
            raise ValueError(f"--out: {str(path)!r} {_HOLDS}") from error
        return cls(path)

    @classmethod
    def existing(cls, directory: str, owner: str) -> RunFolder:
        """The folder of an earlier run, which may still be at work.

        Raises:
          ValueError: it is none.
        """
        path = Path(directory).expanduser()
        if not (path / "settings.json").is_file():
            raise ValueError(
                f"{owner}: {directory!r} is no folder of a run: it has no settings.json. Give the "
                "folder that the run named, such as runs/digits."
            )
        return cls(path)

    def clean(self) -> None:
        """Remove what a kill left half written."""
        for left in [*self.path.glob(".*.tmp"), *self.path.glob(".*.old")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def settings(self) -> Settings:
        """What the run was asked to do."""
        return Settings.from_json(self.path / "settings.json")

    @property
    def swept(self) -> bool:
        """Whether the results of the sweep are there, and at most the refits are not."""
        return (self.path / "result.npz").exists()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.swept and not self.checkpoint.exists()

    @property
    def step(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        files = self.checkpoint.glob("step-*.npz")
        names = (re.fullmatch(r"step-(\d+)\.(\d+)\.npz", file.name) for file in files)
        saves = [(int(name[2]), int(name[1])) for name in names if name]
        return max(saves)[1] if saves else None

    def finish(self) -> None:
        """Let the checkpoint go: the results are there."""
        if self.checkpoint.exists():
            remove_directory(self.checkpoint)

    def release(self) -> bool:
        """Give the folder back if nothing was trained in it; whether it was."""
        kept = {p.name for p in self.path.iterdir()} - {"settings.json", "checkpoint"}
        if kept or self.step is not None:
            return False
        shutil.rmtree(self.path)
        return True

    def how_far(self, steps: int) -> str:
        """How far a run of so many steps was when it ended, and what is kept of it, in words."""
        if self.swept:
            return f"while refitting; the finished sweep is kept in {self.path}"
        if self.step is None:
            return f"before a checkpoint was written; {self.path} has the settings"
        return f"at step {self.step} of {steps}, which is kept in {self.path}"

    def command(self) -> str:
        """What to type to go on."""
        return f"jaxreg sweep --resume {shlex.quote(str(self.path))}"
