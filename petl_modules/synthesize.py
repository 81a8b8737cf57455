"""`python -m petl_modules.synthesize`: see `petl_modules.tts.synthesize`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.tts.synthesize")
