"""`python -m petl_modules.report`, which is `petl report`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("report")
