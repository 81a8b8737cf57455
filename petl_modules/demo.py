"""`python -m petl_modules.demo`, which is `petl demo`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("demo")
