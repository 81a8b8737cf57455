"""`python -m petl_modules.peft_format`, which is `petl peft`; `to_peft` and `from_peft`
stood here before `petl_modules.use`, and what imports them goes on."""

from petl_modules.commands import run
from petl_modules.use.peft_format import from_peft, to_peft

__all__ = ["from_peft", "to_peft"]

if __name__ == "__main__":
    run("peft")
