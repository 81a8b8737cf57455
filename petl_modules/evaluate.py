"""`python -m petl_modules.evaluate`, which is `petl evaluate`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("evaluate")
