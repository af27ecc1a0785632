"""The one error a user ever sees: a clear line and exit status 2."""

from __future__ import annotations

import errno


class UserError(Exception):
    """Something the user can mend. The message is one line: what, where, what to do."""


def explain_os_error(error: OSError) -> str:
    """One plain line for an operating-system error, with the path it struck."""
    where = error.filename if error.filename is not None else "the output"
    if isinstance(where, bytes):
        where = where.decode(errors="replace")
    kinds = {
        errno.ENOSPC: f"{where}: no space left on the disk; free some room and run it again",
        errno.EDQUOT: f"{where}: the disk quota is used up; free some room and run it again",
        errno.EACCES: f"{where}: permission denied; choose a place you may read or write",
        errno.EPERM: f"{where}: permission denied; choose a place you may read or write",
        errno.EROFS: f"{where}: the file system is read-only; choose another place",
        errno.ENOENT: f"{where}: no such file or folder",
        errno.ENOTDIR: f"{where}: a part of this path is a file, not a folder",
        errno.EISDIR: f"{where}: is a folder, a file is needed",
        errno.EEXIST: f"{where}: already exists",
        errno.ENAMETOOLONG: f"{str(where)[:80]}...: the name is too long",
        errno.EMFILE: "too many open files; raise the limit (ulimit -n) or use fewer workers",
    }
    known = kinds.get(error.errno) if error.errno is not None else None
    return known if known is not None else f"{where}: {error.strerror or error}"
