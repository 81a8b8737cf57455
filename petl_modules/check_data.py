"""`python -m petl_modules.check_data`, which is `petl data check`."""

import sys

from petl_modules.commands import run

if __name__ == "__main__":
    sys.argv.insert(1, "check")
    run("data")
