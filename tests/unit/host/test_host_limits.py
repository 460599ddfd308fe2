import resource
import subprocess
import sys


def test_open_files_are_raised_to_what_is_allowed():
    script = (
        "import resource; from wherry.host.limits import raise_open_files;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); raise_open_files();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(200, 200)\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) != (200, 200)
