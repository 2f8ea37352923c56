"""Exit statuses, those of sysexits.h under the names used here, and the signals that an instance obeys."""

import errno
import os
import signal

OK = os.EX_OK
FAILURE = 1  # a plain "no" of a verb that asks something
USAGE = os.EX_USAGE  # 64: the command line was wrong
DATA = os.EX_DATAERR  # 65: the input was wrong
NO_INPUT = os.EX_NOINPUT  # 66: a file cannot be read
NO_HOST = os.EX_NOHOST  # 68: a host is not known
UNAVAILABLE = os.EX_UNAVAILABLE  # 69: a service that is needed is not there
SOFTWARE = os.EX_SOFTWARE  # 70: a bug
OS_ERROR = os.EX_OSERR  # 71: the system refused something
CANNOT_CREATE = os.EX_CANTCREAT  # 73: a file cannot be made
IO_ERROR = os.EX_IOERR  # 74: reading or writing failed
TEMPORARY = os.EX_TEMPFAIL  # 75: may work later
PROTOCOL = os.EX_PROTOCOL  # 76: the peer left the protocol
NO_PERMISSION = os.EX_NOPERM  # 77: not allowed
CONFIG = os.EX_CONFIG  # 78: the configuration is wrong
INTERRUPTED = 130  # as shells report Ctrl-C

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # what an instance obeys


def of_os_error(error: OSError) -> int:
    """Return the status for what the system refused."""
    return NO_PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else OS_ERROR


def explain(error: OSError) -> str:
    """Return *error* as a sentence for the operator: which file, and why."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
