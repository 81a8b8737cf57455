"""Print the CPU seconds that commands take to start, beside `import torch`.

    python tests/cpu_seconds.py [REPEATS]

The least of some runs each, in turns: nothing else should run on the machine.
"""

import resource
import subprocess
import sys

from conftest import ROOT

DESCRIBE = ["describe", str(ROOT / "recipes/ESC50/hparams/adapter.yaml")]
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "transformers' AST": ["-c", "from transformers import ASTModel"],  # describe's
    "petl --help": ["-m", "petl_modules", "--help"],
    "petl describe": ["-m", "petl_modules", *DESCRIBE, "--pretrained=False"],
    "petl predict --help": ["-m", "petl_modules", "predict", "--help"],
    "petl report --help": ["-m", "petl_modules", "report", "--help"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """User and system seconds of one Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    least = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            least[name] = min(least[name], cpu_seconds(arguments))
    for name, seconds in least.items():
        print(f"{name:20} {seconds:6.2f} s  {seconds / least['import torch']:5.2f}")


if __name__ == "__main__":
    main()
