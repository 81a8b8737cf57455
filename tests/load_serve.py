"""Many requests at once, and every answer is its own.

`python tests/load_serve.py --requests=200 --at_once=20` starts a server of three
adapters on loopback, sends recordings one at a time and then many at once, compares
every answer with that of the adapter alone, and prints the ratio of the two times. The
exit status is 1 if an answer is wrong. A smaller load is a test of the suite.
"""

import argparse
import io
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import soundfile
import torch
import uvicorn
from test_inference import MIXING, saved
from tiny import tiny_checkpoint

from petl_modules.use.inference import load_adapter
from petl_modules.use.serve import make_app

NAMES = ("keywords", "emotion", "speaker")
RATE = 16000
TOLERANCE = 1e-4  # of probabilities


def recordings(count):
    """Clips of many lengths, as bytes of WAV files, and their samples."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for number in range(count):
        clip = torch.randn(4000 + 613 * (number % 17), generator=generator) * 0.1
        stream = io.BytesIO()
        soundfile.write(stream, clip.numpy(), RATE, format="WAV", subtype="FLOAT")
        clips.append((stream.getvalue(), clip))
    return clips


def load(root, requests, at_once):
    """Send requests one at a time and many at once.

    Returns
    -------
    wrong : int
        Answers that are not the adapter's own.
    alone, together : float
        Seconds of all requests, one at a time and `at_once`.
    sizes : list of int
        Of the batches that were computed.
    """
    source = tiny_checkpoint("wav2vec2", root / "source")
    folders = {name: saved(source, root / name, *MIXING[name]) for name in NAMES}
    adapters = load_adapter(folders[NAMES[0]], NAMES[0])
    for name in NAMES[1:]:
        adapters.add(folders[name], name)
    clips = recordings(requests)
    names = [NAMES[i % len(NAMES)] for i in range(requests)]
    expected = [
        adapters.classify_batch(clip[None], None, [name])[0]
        for (_, clip), name in zip(clips, names, strict=True)
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = make_app(adapters)
    settings = uvicorn.Config(app, port=port, log_level="error")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    wrong = 0
    seconds = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:

        def ask(number):
            files = {"file": (f"{number}.wav", clips[number][0])}
            answer = client.post(f"/answer?adapter={names[number]}", files=files)
            found = answer.json()
            labels = adapters.labels_of(names[number])
            row = torch.tensor([found["probabilities"][label] for label in labels])
            own = found["file"] == f"{number}.wav" and found["adapter"] == names[number]
            return own and bool((row - expected[number]).abs().max() < TOLERANCE)

        for workers in (1, at_once):
            start = time.perf_counter()
            with ThreadPoolExecutor(workers) as threads:
                wrong += sum(not right for right in threads.map(ask, range(requests)))
            seconds.append(time.perf_counter() - start)
    server.should_exit = True
    thread.join()
    return wrong, *seconds, app.state.batches.sizes


def main():
    """Load, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at_once", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    wrong, alone, together, sizes = load(root, options.requests, options.at_once)
    print(
        f"{options.requests} requests: {alone:.2f} s one at a time, {together:.2f} s "
        f"with {options.at_once} at once (ratio {alone / together:.2f}, batches of up "
        f"to {max(sizes)}), {wrong} wrong answers."
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
