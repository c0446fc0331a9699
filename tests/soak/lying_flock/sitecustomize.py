"""On PYTHONPATH it makes every lock a lie, as some network file systems do: all who ask are told that they have it."""

import fcntl

fcntl.flock = lambda *_: None
