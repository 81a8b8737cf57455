"""`python -m petl_modules.speed`, which is `petl speed`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("speed")
