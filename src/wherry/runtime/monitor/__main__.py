"""The monitor's program: ``python -I -S …/runtime/monitor/__main__.py DIRECTORY EXITS SOCKET``.

``DIRECTORY`` is where the instance's containers are, ``EXITS`` where their exit files go, and
``SOCKET`` the number of a listening socket that it inherits. It is started by path because an
interpreter without site-packages does not know where we are installed.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])

from wherry.runtime.monitor.process import main

main(*sys.argv[1:])
