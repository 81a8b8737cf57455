"""Trained adapters at work: labels or text for recordings, in Python.

Several adapters share one frozen backbone: they take turns, or serve one batch in
which every clip names its own. Clips of about one length run together.
"""

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from petl_modules.core.masking import sample_counts, valid
from petl_modules.core.transfer import to_device
from petl_modules.core.turns import Turns
from petl_modules.data import read_clip
from petl_modules.data.units import joined
from petl_modules.errors import UserError, known_device
from petl_modules.tasks.ctc import CTC, heard
from petl_modules.tasks.heads import CTCHead, OwnHead
from petl_modules.tts.head import VoiceHead
from petl_modules.use.adapter_file import load_its_backbone, read_adapter
from petl_modules.use.mixed import MixedModel, can_mix

ALIKE = 0.75  # least length of a clip in a pass, relative to the longest
CPU_SECONDS = 16  # of sound and padding in a pass on a CPU


def load_adapter(folder, name=None, source=None, device="cpu"):
    """A trained adapter on its backbone, ready for recordings; more can be added.

    Arguments
    ---------
    folder : str or Path
        Of a run, with adapter.safetensors and adapter.json.
    name : str or None
        What to call it; None for the folder's path.
    source : str or None
        Where the backbone is now, if not where the adapter says.
    device : str

    Returns
    -------
    Adapters

    Raises
    ------
    UserError
        For an adapter that is damaged, or of another backbone, or a device that is not
        here.

    Example
    -------
    >>> adapters = load_adapter("results/keywords", "keywords")  # doctest: +SKIP
    >>> adapters.classify_file("yes.wav")["label"]  # doctest: +SKIP
    'yes'
    >>> adapters.add("results/emotion", "emotion")  # doctest: +SKIP
    >>> adapters.use("emotion")  # doctest: +SKIP
    >>> adapters.classify_file("yes.wav")["label"]  # doctest: +SKIP
    'happy'
    """
    device = known_device(device)
    adapters = Adapters(load_its_backbone(folder, source), device)
    adapters.add(folder, name)
    return adapters


class Adapters:
    """Trained adapters on one frozen backbone, for clips of any length and rate.

    An adapter costs its own tensors only, and switching nothing
    (`petl_modules.core.turns.Turns`): answers are bit-equal to those of a fresh load.

    Arguments
    ---------
    backbone : Backbone
        With its pretrained weights.
    device : str

    Attributes
    ----------
    in_use : str or None
        The name of the adapter that answers where none is named.
    """

    def __init__(self, backbone, device="cpu"):
        self.device = torch.device(device)
        self.backbone = backbone.to(self.device)
        self.in_use = None
        self._loaded = {}
        self._mixed = None
        self._turns = Turns(self.backbone)

    @property
    def names(self):
        """The adapters' names, in the order in which they were added."""
        return list(self._loaded)

    @property
    def labels(self):
        """The classes or symbols of the adapter in use."""
        return self._loaded[self.in_use].labels

    @property
    def max_duration(self):
        """Seconds of a clip that the adapter in use reads, None for all."""
        return self._loaded[self.in_use].max_duration

    def gives(self, name):
        """What an adapter gives: label or text."""
        return self._named(name).gives

    def add(self, folder, name=None):
        """Load one more adapter; the first that is added is put to use.

        Arguments
        ---------
        folder : str or Path
        name : str or None
            None for the folder's path.

        Raises
        ------
        UserError
            For a damaged adapter, one of another backbone, one of a synthesiser, or a
            name that is taken.
        """
        name = str(folder) if name is None else name
        if name in self._loaded:
            raise UserError(f"There is an adapter {name} already: give another name.")
        self._turns.give(None, {})
        adapter = read_adapter(folder, self.backbone)
        if isinstance(adapter.head, VoiceHead):
            raise UserError(
                f"The adapter {folder} speaks, and has no answer to recordings: use "
                "python -m petl_modules.synthesize."
            )
        self._loaded[name] = Loaded(name, adapter, self.device)
        self.in_use = self.in_use or name
        if self._mixed is not None:
            self.backbone.forget(self._mixed)
            self._mixed = None

    def use(self, name):
        """Let an adapter answer from now on.

        Raises
        ------
        UserError
            If there is none of that name.
        """
        self.in_use = self._named(name).name

    def classify_file(self, path):
        """The answer for one file: file, label, probability, probabilities."""
        self._refuse_unless("label")
        return self._answer_file(path)

    def classify_batch(self, wavs, wav_lens=None, adapters=None):
        """Class probabilities of clips.

        Arguments
        ---------
        wavs : torch.Tensor
            `(batch, samples)` at the backbone's rate, zero-padded on the right.
        wav_lens : torch.Tensor or None
            Relative lengths `(batch,)`; None when nothing is padded.
        adapters : list of str or None
            Each clip's adapter; None for the one in use.

        Returns
        -------
        torch.Tensor or list of torch.Tensor
            `(batch, classes)`; with `adapters` a list of `(classes,)`.
        """
        self._refuse_unless("label", adapters)
        rows = self._outputs(wavs, wav_lens, adapters)
        return torch.stack(rows) if adapters is None else rows

    def transcribe_file(self, path):
        """What is said in one file: words, or symbols parted by spaces."""
        self._refuse_unless("text")
        return self._answer_file(path)["text"]

    def transcribe_batch(self, wavs, wav_lens=None):
        """A list of texts; arguments are those of `classify_batch`."""
        self._refuse_unless("text")
        return self._outputs(wavs, wav_lens)

    def answer_files(self, paths, adapters=None, batch_size=16, progress=False):
        """Answers for files, in their order.

        Arguments
        ---------
        paths : list of str or Path
        adapters : list of str or None
            Each file's adapter; None for the one in use.
        batch_size : int
        progress : bool
            Whether to show a bar.

        Returns
        -------
        list of dict
            As of `classify_file`, or file and text; file and error for what cannot be
            read.
        """
        names = self._names(adapters, len(paths))
        answers = []
        bar = tqdm(total=len(paths), desc="clips", leave=False, disable=not progress)
        for start in range(0, len(paths), batch_size):
            part = slice(start, start + batch_size)
            answers += self._answer_batch(paths[part], names[part])
            bar.update(len(answers) - bar.n)
        bar.close()
        return answers

    # Helpers

    def _answer_file(self, path):
        (output,) = self._outputs(self._read(path, self.in_use).unsqueeze(0))
        return self._loaded[self.in_use].answer(path, output)

    def _read(self, path, name):
        """A clip that an adapter can hear, `(samples,)`."""
        rate, most = self.backbone.sample_rate, self.backbone.capacity()
        clip = read_clip(path, rate)
        if self._loaded[name].max_duration is None and most and len(clip) > most:
            raise UserError(
                f"The clip {path} is {len(clip) / rate:.1f} s long, more than the "
                f"{most / rate:.0f} s that {self.backbone.source} hears at once: cut "
                "it into parts."
            )
        return clip

    def _answer_batch(self, paths, names):
        """Answers for files that are read and computed together."""
        answers, clips = [], []
        for path, name in zip(paths, names, strict=True):
            try:
                clips.append(self._read(path, name))
                answers.append(None)
            except UserError as error:
                answers.append({"file": str(path), "error": str(error)})
        places = [i for i, answer in enumerate(answers) if answer is None]
        heard = self._answer_clips(
            clips, [paths[i] for i in places], [names[i] for i in places]
        )
        for place, answer in zip(places, heard, strict=True):
            answers[place] = answer
        return answers

    def _answer_clips(self, clips, paths, names):
        """Answers for clips; one by one if the backbone refuses one of them."""
        if not clips:
            return []
        wavs = pad_sequence(clips, batch_first=True)
        counts = torch.tensor([len(clip) for clip in clips])
        try:
            outputs = self._outputs(wavs, counts / wavs.shape[1], names)
        except UserError as error:
            if len(clips) == 1:
                return [{"file": str(paths[0]), "error": f"{paths[0]}: {error}"}]
            alone = zip(clips, paths, names, strict=True)
            return [self._answer_clips(*([part] for part in one))[0] for one in alone]
        return [
            self._loaded[name].answer(path, output)
            for path, name, output in zip(paths, names, outputs, strict=True)
        ]

    @torch.no_grad()
    def _outputs(self, wavs, wav_lens=None, adapters=None):
        """Probabilities or text of every clip: all adapters that mix together, each of
        the others by itself."""
        names = self._names(adapters, len(wavs))
        wavs = wavs.to(self.device)
        counts = self._cut(sample_counts(wavs, wav_lens).cpu(), names)
        mixing = [name for name in set(names) if self._loaded[name].mixes]
        others = [[name] for name in set(names).difference(mixing)]
        outputs = [None] * len(names)
        for together in filter(None, [mixing, *others]):
            theirs = [i for i, name in enumerate(names) if name in together]
            for rows in self._passes(theirs, counts.tolist()):
                heard_by = [names[i] for i in rows]
                tokens = self._tokens(wavs[rows], counts[rows], heard_by)
                for name in set(heard_by):
                    own = [j for j, other in enumerate(heard_by) if other == name]
                    found = self._loaded[name].outputs(tokens.rows(own))
                    for j, output in zip(own, found, strict=True):
                        outputs[rows[j]] = output
        return outputs

    def _passes(self, rows, counts):
        """Clips parted into passes of about one length, for padding costs what sound
        does; on a CPU into short passes, for fresh memory is slow to get there."""
        if self.backbone.has_head:  # it pads every clip to one length
            yield rows
            return
        most = CPU_SECONDS * self.backbone.sample_rate
        rows = sorted(rows, key=lambda row: -counts[row])
        while rows:
            longest = counts[rows[0]]
            size = sum(counts[row] >= ALIKE * longest for row in rows)
            if self.device.type == "cpu":
                size = min(size, max(1, most // longest))
            yield rows[:size]
            rows = rows[size:]

    def _cut(self, counts, names):
        """Samples of each clip that are used, as in training."""
        seconds = [self._loaded[name].max_duration for name in names]
        rate = self.backbone.sample_rate
        longest = [
            count if most is None else round(most * rate)
            for count, most in zip(counts.tolist(), seconds, strict=True)
        ]
        return counts.minimum(counts.new_tensor(longest))

    def _tokens(self, wavs, counts, names):
        """The backbone's tokens of clips, each through its own adapter."""
        samples = int(counts.max())
        wavs = wavs[:, :samples] * valid(to_device(counts, wavs.device), samples)
        layers = any(self._loaded[name].head.weighted_sum for name in names)
        if len(set(names)) == 1:
            adapter = self._loaded[names[0]]
            self._turns.give(adapter.model, adapter.tensors)
        else:
            self._serve_mixed(names)
        return self.backbone(wavs, counts / samples, all_layers=layers)

    def _serve_mixed(self, names):
        """Let the backbone compute for several adapters that mix."""
        mixing = {name: a for name, a in self._loaded.items() if a.mixes}
        if self._mixed is None:
            self._turns.give(None, {})
            self._mixed = MixedModel(
                self.backbone,
                [adapter.model for adapter in mixing.values()],
                [adapter.tensors for adapter in mixing.values()],
            )
        places = list(mixing)
        clips = [places.index(name) for name in names]
        self._mixed.clips = torch.tensor(clips, device=self.device)
        self._turns.give(self._mixed, self._mixed.tensors)

    def _names(self, adapters, count):
        """The name of every clip's adapter."""
        if adapters is None:
            return [self.in_use] * count
        if len(adapters) != count:
            raise UserError(
                f"{count} clips need {count} names of adapters, not {len(adapters)}."
            )
        return [self._named(name).name for name in adapters]

    def _named(self, name):
        if name not in self._loaded:
            raise UserError(
                f"There is no adapter {name}: choose among {', '.join(self.names)}."
            )
        return self._loaded[name]

    def _refuse_unless(self, gives, adapters=None):
        for name in set(self._names(adapters, len(adapters or [0]))):
            if self._loaded[name].gives != gives:
                call = "transcribe" if gives == "label" else "classify"
                raise UserError(f"The adapter {name} gives no {gives}: {call} instead.")


class Loaded:
    """One adapter on a backbone that it shares.

    Arguments
    ---------
    name : str
    adapter : petl_modules.use.adapter_file.Adapter
        The backbone holds its tensors.
    device : torch.device
    """

    def __init__(self, name, adapter, device):
        self.name, self.labels = name, adapter.info["labels"]
        self.model, self.head = adapter.model, adapter.head.to(device)
        self.model.petl.to(device)
        self.tensors = self.model.backbone_tensors()
        self.writes = isinstance(self.head, OwnHead)
        self.mixes = can_mix(self.model) and not self.writes
        text = self.writes or isinstance(self.head, CTCHead)
        self.gives = "text" if text else "label"
        # phones stand alone, characters and pieces of words are put together
        self.joined = " ".join if adapter.info.get("task") == CTC.name else joined
        # a text is that of the whole clip, which is never cut
        self.max_duration = adapter.max_duration if self.gives == "label" else None

    def outputs(self, tokens):
        """What the head says of each clip: probabilities `(classes,)`, or text."""
        if self.writes:
            sound, _ = tokens.in_time()
            return self.model.backbone.write(sound, **self.head.settings)
        if self.gives == "text":
            return list(map(self.joined, heard(*self.head(tokens), self.labels)))
        return list(self.head(tokens).float().softmax(-1).cpu())

    def answer(self, path, output):
        """What is told of one file."""
        if self.gives == "text":
            return {"file": str(path), "text": output}
        values = [round(float(p), 6) for p in output]
        best = int(output.argmax())
        return {
            "file": str(path),
            "label": self.labels[best],
            "probability": values[best],
            "probabilities": dict(zip(self.labels, values, strict=True)),
        }
