"""``python -m wherry.kube.apiserver``: the API server alone, on its store."""

import sys

from wherry.host import bytecode

if __name__ == "__main__":
    bytecode.keep()
    from wherry.kube.apiserver.command import main

    sys.exit(main())
