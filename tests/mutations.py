"""Break the code in one line at a time, and see whether its tests notice.

`python tests/mutations.py [NAME ...]`, by hand: prints which mutation was caught, and
ends with how many were. A mutation is made in a copy; the working tree stays as it is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# name: (file in petl_modules/, what stands there, what is put in its place, tests)
MUTATIONS = {
    "batch seed without step": (
        "train/brain.py",
        "* 1_000_003 + self.step",
        "* 1_000_003",
        "test_training.py -k random_state",
    ),
    "batch seed without run seed": (
        "train/brain.py",
        "(self.hparams.seed * 7_919 + place)",
        "(place)",
        "test_training.py -k random_state",
    ),
    "stopwatch forgets": (
        "train/brain.py",
        "self.before = float(stream.read())",
        "self.before = 0.0",
        "test_training.py -k stopwatch",
    ),
    "loss by batches": (
        "train/brain.py",
        "* self.weight / self.seen",
        "/ self.seen",
        "test_training.py -k loss_of",
    ),
    "schedule steps without a step": (
        "train/brain.py",
        "if self.scaler.get_scale() < scale:",
        "if False:",
        "test_training.py -k fp16",
    ),
    "probe trains at the method's rate": (
        "train/head_start.py",
        'lr=config["head_start_lr"],',
        "",
        "test_training.py -k head_start",
    ),
    "cache key without normalize_layers": (
        "data/feature_cache.py",
        '"normalize_layers": head.normalize_layers,',
        "",
        "test_training.py -k features",
    ),
    "cache key without the cut": (
        "data/feature_cache.py",
        "digest([listing([wav]), max_duration])",
        "digest([listing([wav])])",
        "test_training.py -k features",
    ),
    "decay of spared parameters": (
        "core/adapted.py",
        "return parameter.ndim > 1 and inner not in spared",
        "return parameter.ndim > 1",
        "test_training.py -k decay",
    ),
    "patience is not saved": (
        "train/checkpoints.py",
        '("current", "best_limit", "best_score", "should_stop")',
        '("current",)',
        "test_resume.py -k patience",
    ),
    "bits are not checked": (
        "train/checkpoints.py",
        "return content if fine else None",
        "return content",
        "test_resume.py -k flipped",
    ),
    "weights may change": (
        "train/checkpoints.py",
        'if theirs["backbone"] != self.backbone:',
        "if False:",
        "test_resume.py -k another",
    ),
    "idle processes count": (
        "methods/adapters.py",
        "weights if self.takes_part else torch.zeros_like(weights)",
        "weights",
        "test_training.py -k idle",
    ),
    "any tag is read": (
        "train/yaml_files.py",
        "if not found or found[2] not in ALLOWED[found[1]]:",
        "if False:",
        "test_config.py -k code",
    ),
    "ranges are not looked at": (
        "kinds.py",
        "return all(limit.holds(value) for limit in limits), value",
        "return True, value",
        "test_knobs.py -k refuses",
    ),
    "a method's defaults are lost": (
        "methods/table.py",
        "knobs[key] = replace(knobs[key], default=value)",
        "pass",
        "test_methods.py",
    ),
    "lora scaled by the rate": (
        "methods/lora.py",
        "(rank if alpha is None else alpha) / rank",
        "(rank if alpha is None else alpha) / 128",
        "test_methods.py",
    ),
    "both projections start at zero": (
        "methods/lora.py",
        "nn.init.zeros_(self.b.weight)",
        "nn.init.zeros_(self.b.weight), nn.init.zeros_(self.a.weight)",
        "test_invariants.py -k lora",
    ),
    "frozen modules in train mode": (
        "core/adapted.py",
        "self.backbone.eval()",
        "pass",
        "test_invariants.py -k bottleneck",
    ),
    "padding in the convolution": (
        "methods/adapters.py",
        "x = x * mask.unsqueeze(-1)",
        "pass",
        "test_methods.py",
    ),
}


def main() -> int:
    """Try the mutations that are named, or all; returns how many were not caught."""
    names = sys.argv[1:] or list(MUTATIONS)
    missed = [name for name in names if not caught(name)]
    print(f"{len(names) - len(missed)} of {len(names)} were caught.")
    return len(missed)


def caught(name: str) -> bool:
    """Whether the tests fail with a mutation."""
    path, old, new, tests = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", "results", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        broken = copy / "petl_modules" / path
        text = broken.read_text(encoding="utf-8")
        if text.count(old) != 1:
            sys.exit(f"{name}: {old!r} stands {text.count(old)} times in {path}.")
        broken.write_text(text.replace(old, new), encoding="utf-8")
        file, *rest = tests.split(maxsplit=1)
        chosen = rest[0].split() if rest else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{file}", *chosen],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
            capture_output=True,
        )
    found = done.returncode == 1
    print(f"{'caught' if found else 'MISSED':7} {name}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(min(main(), 1))
