"""`python -m petl_modules.benchmark`, which is `petl benchmark`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("benchmark")
