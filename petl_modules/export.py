"""`python -m petl_modules.export`, which is `petl export`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("export")
