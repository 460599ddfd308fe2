"""How a container ended: the file that says so, and how to learn it of a process of others."""

import contextlib
import fcntl
import os
import struct

# <linux/pidfd.h>: struct pidfd_info in its first version, and the bit that asks for (and says that
# there is) an exit status. Linux 6.15; the status of a process that has been reaped.
_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=Q52xi")

UNKNOWN = 255
"""The exit code of a process of which only the end is known."""


def write(directory: str, id: str, code: int, finished_at: int) -> None:
    """Leave the exit file of container ``id``: there whole or not at all.

    Raises:
        OSError: as where the disk is full.
    """
    temporary = f"{directory}/.{id}"
    try:
        with open(temporary, "w") as file:  # noqa: PTH123  pathlib would cost the monitor a megabyte
            file.write(f"{code} {finished_at}\n")
        os.rename(temporary, f"{directory}/{id}")  # noqa: PTH104
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def read(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Exit code, and the end in nanoseconds since the epoch; None without a file.

    None, too, for one that a crash of the machine has left empty: it is not synced to the disk.
    """
    try:
        with open(path) as file:  # noqa: PTH123
            code, finished_at = map(int, file.read().split())
            return code, finished_at
    except (FileNotFoundError, ValueError):
        return None


def code_of(status: int) -> int:
    """A shell's number for a wait status: the exit code, or 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def code_behind(pidfd: int) -> int:
    """The exit code of a process that has ended and that is no child of ours.

    The kernel tells it of one that has been reaped (by whoever adopted it), from Linux 6.15 on; of
    one that has not, its status is in /proc/<pid>/stat (proc_pid_stat(5), field 52).
    """
    for look in (_from_kernel, _from_zombie, _from_kernel):
        status = look(pidfd)
        if status is not None:
            return code_of(status)
    return UNKNOWN


def _from_kernel(pidfd: int) -> int | None:
    asked = bytearray(_INFO.pack(_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, asked)
    except OSError:
        return None
    mask, status = _INFO.unpack(asked)
    return status if mask & _INFO_EXIT else None


def _from_zombie(pidfd: int) -> int | None:
    pid = pid_behind(pidfd)
    try:
        # (What a process calls itself need be no text.)
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    # While the pidfd still shows its number, that was nobody else's.
    return int(fields[49]) if fields[0] == "Z" and pid_behind(pidfd) == pid else None


def pid_behind(pidfd: int) -> int:
    """The number of a pidfd's process, -1 where that has been reaped (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1
