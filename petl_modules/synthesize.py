"""`python -m petl_modules.synthesize`, which is `petl synthesize`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("synthesize")
