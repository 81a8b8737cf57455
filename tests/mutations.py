"""Break the code in one line at a time, and see whether its tests notice.

`python tests/mutations.py [NAME ...] [--log=FILE]`, by hand: prints which mutation was
caught, and ends with how many were. With a log, those that it has are not tried again,
so that a run that was stopped goes on. A mutation is made in a copy; the working tree
stays as it is.
"""

import argparse
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
        "train/stopwatch.py",
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
        "if self.scaler.get_scale() >= scale:",
        "if True:",
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
        "test_knobs.py -k own_defaults",
    ),
    "lora scaled by the rate": (
        "methods/lora.py",
        "self.scale = (rank if alpha is None else alpha) / divisor",
        "self.scale = (rank if alpha is None else alpha) / 128",
        "test_methods.py -k lora",
    ),
    "both projections start at zero": (
        "methods/lora.py",
        "nn.init.zeros_(self.b.weight)",
        "nn.init.zeros_(self.b.weight), nn.init.zeros_(self.a.weight)",
        "test_invariants.py -k learns-and-wavlm-and-lora",
    ),
    "frozen modules in train mode": (
        "core/adapted.py",
        "self.backbone.eval()",
        "pass",
        "test_invariants.py -k pinned-and-wavlm-and-bottleneck",
    ),
    "padding in the convolution": (
        "methods/adapters.py",
        "x = input if mask is None else input * mask.unsqueeze(-1)",
        "x = input",
        "test_invariants.py -k padding_does_not_count-and-wavlm-and-convpass",
    ),
    # core
    "padding in the mean": (
        "core/masking.py",
        "weights = mask.unsqueeze(-1).to(x.dtype)",
        "weights = torch.ones_like(x[..., :1])",
        "test_invariants.py -k padding_does_not_count-and-wavlm-and-bottleneck",
    ),
    "the last place is padding": (
        "core/masking.py",
        "device=counts.device) < counts.unsqueeze(1)",
        "device=counts.device) < counts.unsqueeze(1) - 1",
        "test_invariants.py -k padding_does_not_count-and-wavlm-and-bottleneck",
    ),
    "everybody's functions act": (
        "core/access_points.py",
        "if owner is self.hooks.turn:",
        "if True:",
        "test_inference.py -k turns",
    ),
    "a half step's gain is forgotten": (
        "core/access_points.py",
        "out + function(z, out, mask) / gain)",
        "out + function(z, out, mask))",
        "test_adapt.py -k half_step",
    ),
    "bands with their padding": (
        "core/tokens.py",
        "counts = counts // self.bands",
        "counts = counts.new_full(counts.shape, hidden.shape[1] // self.bands)",
        "test_ctc.py -k bands",
    ),
    "full forgets the backbone's statistics": (
        "core/adapted.py",
        "**{n: b.data for n, b in self.statistics().items()},",
        "",
        "test_adapter_file.py -k statistics",
    ),
    "training writes into the pretrained tensors": (
        "core/adapted.py",
        "parameter.data = parameter.data.clone()",
        "pass",
        "test_inference.py -k turns",
    ),
    "features without the norm's bias": (
        "core/adapted.py",
        "last = last + norm.bias",
        "pass",
        "test_invariants.py -k cached_features-and-wav2vec2",
    ),
    # methods
    "beside a block is after it": (
        "methods/adapters.py",
        "place.add(lambda z, out, mask: module(z, mask))",
        "place.add(lambda z, out, mask: module(out, mask))",
        "test_methods.py -k placements",
    ),
    "batch statistics count padding": (
        "methods/adapters.py",
        "wide.new_ones(x.shape[:2]) if mask is None else mask.float()",
        "wide.new_ones(x.shape[:2])",
        "test_methods.py -k batch",
    ),
    "the running variance is biased": (
        "methods/adapters.py",
        "unbiased = var * count / (count - 1).clamp(min=1)",
        "unbiased = var",
        "test_methods.py -k batch_norm",
    ),
    "gates leave biases alone": (
        "methods/mixtures.py",
        "gates.to(gated.dtype)], -1)",
        "torch.ones_like(gates)], -1)",
        "test_methods.py -k dense_moa",
    ),
    "slots read padding": (
        "methods/mixtures.py",
        'logits = logits.masked_fill(~mask.unsqueeze(-1), float("-inf"))',
        "pass",
        "test_methods.py -k soft_moa",
    ),
    "prompts pile up": (
        "methods/prompts.py",
        "tokens.special, tokens.special + tokens.prompts",
        "tokens.special, tokens.special",
        "test_methods.py -k prompts_are_tokens",
    ),
    # train
    "a short group of batches is divided by a whole one": (
        "train/brain.py",
        "group = min(factor, self.num_batches - first)",
        "group = factor",
        "test_training.py -k group",
    ),
    "gradients are not clipped": (
        "train/brain.py",
        "if self.max_grad_norm and self.max_grad_norm > 0:",
        "if False:",
        "test_training.py -k clipped",
    ),
    "the worst epoch is kept": (
        "train/brain.py",
        'min_keys=["error"],',
        'max_keys=["error"],',
        "test_training.py -k best_and_the_last",
    ),
    "the rate is held for ever": (
        "train/schedules.py",
        "if step < fall:",
        "if step < steps:",
        "test_schedules.py -k hold",
    ),
    # data
    "shots without the seed": (
        "data/splits.py",
        'f"{seed} {label}")',
        'f"{label}")',
        "test_splits.py -k few_shot",
    ),
    "a split parts groups": (
        "data/splits.py",
        'str(entries[key].get("group", key))',
        "str(key)",
        "test_splits.py -k group",
    ),
    "held-out clips may train": (
        "data/manifests.py",
        'if file_of(entry["wav"]) in heard]:',
        "if False]:",
        "test_clips.py -k held_out",
    ),
    "one channel is the sound": (
        "data/reading.py",
        'yield block[0] if channel == "first" else block.mean(0), rate',
        "yield block[0], rate",
        "test_data.py -k stereo",
    ),
    "a changed clip is the same clip": (
        "files.py",
        "rows.append([path, stat.st_size, stat.st_mtime])",
        "rows.append([path, stat.st_size, 0])",
        "test_clip_cache.py -k changed",
    ),
    # use
    "tensors may hold no numbers": (
        "use/adapter_tensors.py",
        "if not bool(tensor.isfinite().all()):",
        "if False:",
        "test_adapter_file.py -k no_numbers",
    ),
    "a checksum is not compared": (
        "use/adapter_checks.py",
        "!= settings.checksum:",
        "is None:",
        "test_adapter_file.py -k one_whole",
    ),
}


def main() -> int:
    """Try the mutations that are named, or all; returns how many were not caught."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=list(MUTATIONS))
    parser.add_argument("--log", type=Path, help="file of what was found before")
    options = parser.parse_args()
    lines = []
    if options.log is not None and options.log.exists():
        lines = options.log.read_text(encoding="utf-8").splitlines()
    known = {line[8:]: line.startswith("caught") for line in lines}
    for name in (name for name in options.names if name not in known):
        known[name] = caught(name)
        line = f"{'caught' if known[name] else 'MISSED':7} {name}"
        print(line, flush=True)
        if options.log is not None:
            with open(options.log, "a", encoding="utf-8") as log:
                log.write(line + "\n")
    missed = [name for name in options.names if not known[name]]
    print(f"{len(options.names) - len(missed)} of {len(options.names)} were caught.")
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
        # -k a-and-b: the tests whose names have both
        chosen = rest[0].replace("-and-", " and ").split(maxsplit=1) if rest else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{file}", *chosen],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
            capture_output=True,
        )
    if done.returncode not in (0, 1):  # no test was chosen, for one
        sys.exit(f"{name}: {done.stdout.decode()[-2000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(min(main(), 1))
