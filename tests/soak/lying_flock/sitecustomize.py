"""On PYTHONPATH it makes every lock a lie, as some network file systems do: all who ask are told that they have it."""

import fcntl

_LOCKING = (fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW)
_tell_truly = fcntl.fcntl


def _lie(descriptor, command, argument=0):
    return argument if command in _LOCKING else _tell_truly(descriptor, command, argument)


fcntl.flock = lambda *_: None
fcntl.fcntl = _lie
