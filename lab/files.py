"""The project's folder, and writing files so that an interruption or a full disk never leaves half of one."""

import contextlib
import errno
import glob
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the project's folder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
STALE_SECONDS = 3600  # a temporary file this old was left behind by a killed process


def write_atomically(path, content):
    """Write bytes or text to `path` in one step: readers see the old file or the new one, never part of one.

    Raises: OSError naming the file and the remedy, if the disk is full or the folder cannot be written;
        the previous content of `path` stays.
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")  # file names may hold bytes that no locale reads
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            _sweep_up(path, temporary)  # before the content is written: it may need the space
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        reason = "A file stands where a folder should be" if error.errno in NO_FOLDER else error.strerror
        remedy = "Free some space, or choose" if error.errno in FULL else "Choose"
        raise OSError(
            error.errno,
            f"cannot write {len(content):,} bytes to {path}: {reason}. {remedy} another run_dir, then run again: "
            f"finished epochs are kept and training resumes after the last one",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)  # there only if something stopped us before the replacement


def _sweep_up(path, temporary):
    """Remove what was left behind long before `temporary` was made, by the one clock that stamps them both."""
    now = temporary.stat().st_mtime
    with contextlib.suppress(FileNotFoundError):  # somebody else did
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if leftover.stat().st_mtime < now - STALE_SECONDS:
                leftover.unlink()


def require_writable(folder):
    """Raise now what `write_atomically` would raise at the end of the first epoch, if nothing can be written there."""
    probe = Path(folder) / ".probe"
    write_atomically(probe, b"")
    probe.unlink(missing_ok=True)
