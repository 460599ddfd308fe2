"""A program in memory that nobody can change.

A contained process can reach the program that set it up by way of ``/proc/PID/exe``, and could
write to it (CVE-2019-5736). So crun first binds itself to a new file in ``/tmp``, makes that
read-only and executes it: each command loads it twice, changes the mounts of the host twice, and
leaves the file behind when it is killed meanwhile. It does without where it finds itself in a
sealed memory file (memfd_create(2), fcntl(2) F_ADD_SEALS) already.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

_MFD_EXEC = 0x10  # linux/memfd.h; Linux 6.3 asks for it, older ones do not know it
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SealedProgram:
    """A copy of ``program`` as it is now, to be executed as ``path`` while this is open.

    ``path`` is a link of the same name in ``directory``, so that ps and error messages show it.
    Where the machine lets nobody execute memory (``vm.memfd_noexec``) it is ``program`` itself.

    Raises:
        OSError: the program cannot be read, or the link not be made.
    """

    def __init__(self, program: Path, directory: Path) -> None:
        self.path = program
        self._descriptor = -1
        try:
            self._descriptor = _sealed_copy(program)
        except PermissionError:
            return
        link = directory / program.name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/proc/{os.getpid()}/fd/{self._descriptor}")
        if os.access(link, os.X_OK):
            self.path = link

    def close(self) -> None:
        """Give the memory back; ``path`` leads nowhere from now on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sealed_copy(program: Path) -> int:
    descriptor = _executable_memory(program.name)
    try:
        with program.open("rb") as source, open(descriptor, "wb", closefd=False) as copy:
            shutil.copyfileobj(source, copy)
        os.fchmod(descriptor, 0o500)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _executable_memory(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)
