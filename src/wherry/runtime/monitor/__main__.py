"""The monitor's program: ``python -I -S …/runtime/monitor/__main__.py DESCRIPTOR EXITS``.

``DESCRIPTOR`` is the number of a listening socket of ours that it inherits, ``EXITS`` the directory
for exit files. It is started by path because an interpreter without site-packages does not know
where we are installed.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 4)[0])

from wherry.runtime.monitor.process import main

main(int(sys.argv[1]), sys.argv[2])
