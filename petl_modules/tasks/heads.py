"""Heads: from hidden states to what a task predicts."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petl_modules.core.masking import masked_mean, valid
from petl_modules.core.tokens import Tokens
from petl_modules.core.transfer import to_device
from petl_modules.data.manifests import PARTS
from petl_modules.errors import UserError, one_of
from petl_modules.kinds import PositiveInt, Probability, Size
from petl_modules.tasks.head import Head

POOLINGS = ("all", "cls", "prompts", "speech", "prompts+speech")
Pooling = Literal["all", "cls", "prompts", "speech", "prompts+speech"]
SpeechTask = Literal["transcribe", "translate"]
COSINE_SCALE = 30.0  # of cosines as logits, SpeechBrain's of its speaker recipes


class ClassificationHead(Head):
    """Mean over tokens, weighted sum of layers and projector if asked for, Linear.

    Where every step of time has its say (`layer_adapters`, `attentive`) it reads the
    sound's tokens by time, and pools them before the Linear.

    Arguments
    ---------
    hidden_size : int
        Size of the tokens.
    num_classes : int
    pooling : str
        Which valid tokens are averaged: all, cls (that one alone), prompts, speech
        (all but special tokens and prompts), prompts+speech.
    weighted_sum : bool
        Whether a softmax-weighted sum of all layers' outputs is learned (as SUPERB
        does), instead of reading the last.
    num_layers : int or None
        Transformer layers of the backbone, for `weighted_sum`.
    projector_size : int or None
        Size of a linear projection before the classifier, as in SURE; null for none.
    normalize_layers : bool
        Whether every token of the layers below the last is standardised before
        weighted_sum, which SUPERB does not.
    layer_adapters : int or None
        Width of an adapter of each layer's own, LayerNorm(GELU(Linear)), whose outputs
        are summed by learned weights in the place of the layers themselves, such as
        512 (ELP's L-adapters, arXiv 2407.21066); null for none.
    attentive : bool
        Whether time is pooled by learned attention, to a mean and a standard deviation
        (arXiv 1803.10963), in the place of pooling's plain mean.
    """

    def __init__(
        self,
        hidden_size: int,
        num_classes: int,
        pooling: Pooling = "all",
        weighted_sum: bool = False,
        num_layers: int | None = None,
        projector_size: Size | None = None,
        normalize_layers: bool = False,
        layer_adapters: Size | None = None,
        attentive: bool = False,
    ) -> None:
        super().__init__(
            {
                "hidden_size": hidden_size,
                "num_classes": num_classes,
                "pooling": pooling,
                "weighted_sum": weighted_sum,
                "num_layers": num_layers,
                "projector_size": projector_size,
                "normalize_layers": normalize_layers,
                "layer_adapters": layer_adapters,
                "attentive": attentive,
            }
        )
        self.pooling = one_of("pooling", pooling, POOLINGS)
        self.by_time = bool(layer_adapters or attentive)
        if self.by_time and pooling not in ("all", "speech"):
            raise UserError(
                f"pooling={pooling} has no meaning where layer_adapters or attentive "
                "read the sound's tokens by time."
            )

    def read(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The mean of `Tokens`, as one step `(batch, 1, hidden)`, and that number; or
        `Tokens` by time, `(batch, steps, hidden)`, and valid steps `(batch,)`."""
        if self.by_time:
            return tokens.in_time()
        start, stop = self._span(tokens)
        mask = tokens.mask[:, start:stop]
        mean = masked_mean(tokens.hidden[:, start:stop], mask)
        return mean.unsqueeze(1), mean.new_ones(mean.shape[0], dtype=torch.long)

    def predict(self, features: Tensor, counts: Tensor) -> Tensor:
        """Features to logits `(batch, classes)`."""
        return self.linear(self.embedding(features, counts))

    def vector(self, tokens: Tokens) -> Tensor:
        """`Tokens` to what the classifier reads, `(batch, size)`."""
        return self.embedding(*self.features(self.layers(tokens)))

    def embedding(self, features: Tensor, counts: Tensor) -> Tensor:
        """Features to what the classifier reads, `(batch, size)`."""
        steps = self.combine(features)
        if self.attention is not None:
            return self.attention(steps, counts)
        if not self.by_time:  # one step
            return steps.squeeze(1)
        mask = valid(to_device(counts, steps.device), steps.shape[1])
        return masked_mean(steps, mask)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """How likely each class is, `(batch, classes)`: one of them is right."""
        return logits.float().softmax(-1)

    def _span(self, tokens: Tokens) -> tuple[int, int | None]:
        special, prompts = tokens.special, tokens.special + tokens.prompts
        start, stop = {
            "all": (0, None),
            "cls": (0, min(1, special)),
            "prompts": (special, prompts),
            "speech": (prompts, None),
            "prompts+speech": (special, None),
        }[self.pooling]
        if start == stop:
            raise UserError(
                f"pooling={self.pooling} finds no such tokens here: cls needs an AST, "
                "prompts needs method=prompt."
            )
        return start, stop


class TagHead(ClassificationHead):
    """As `ClassificationHead`, for labels of which a clip may have several, or none."""

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """How likely each label is, `(batch, classes)`, by itself."""
        return logits.float().sigmoid()


class Cosines(nn.Linear):
    """The cosines of vectors `(batch, size)` to one learned vector a class, `(batch,
    classes)`."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__(size, classes, bias=False)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """`(batch, size)` to `(batch, classes)`, in float32: between cosines near 1,
        where angles are small, bfloat16 has no numbers."""
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(F.normalize(vectors.float()), F.normalize(self.weight))


class SpeakerHead(ClassificationHead):
    """As `ClassificationHead`, for voices: what the classifier reads tells speakers
    apart that training never heard, by the cosine of two clips."""

    classifier = Cosines

    def predict(self, features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Features to embeddings `(batch, size)`, and their cosines to the speakers of
        training `(batch, classes)`."""
        embedding = self.embedding(features, counts)
        return embedding, self.linear(embedding)

    @staticmethod
    def probabilities(output: tuple[Tensor, Tensor]) -> Tensor:
        """How likely each speaker of training is, `(batch, classes)`."""
        _, cosines = output
        return (COSINE_SCALE * cosines.float()).softmax(-1)


class SlotHead(ClassificationHead):
    """A softmax for each part of a label, such as an intent's action, object and
    location, and the sums of their log-probabilities as scores of all combinations:
    their cross-entropy is the sum of the parts', and the best combination has the best
    of each part.

    Arguments
    ---------
    slots : list of int
        Values of each part; combinations are in the order of `itertools.product`.
    **settings
        Of `ClassificationHead`; classes are the values of all parts.
    """

    def __init__(self, slots: list[int], **settings: Any) -> None:
        settings["num_classes"] = sum(slots)
        super().__init__(**settings)
        del self.settings["num_classes"]  # follows from slots
        self.settings["slots"] = list(slots)

    def predict(self, features: Tensor, counts: Tensor) -> Tensor:
        """Features to scores `(batch, combinations)`."""
        logits = super().predict(features, counts).float()
        scores = logits.new_zeros(logits.shape[0], 1)  # of any batch, when exported
        for part in logits.split(self.settings["slots"], dim=-1):
            scores = scores.unsqueeze(2) + part.log_softmax(-1).unsqueeze(1)
            scores = scores.flatten(1)
        return scores


def intent_head(
    slots: bool,
    hidden_size: int,
    num_classes: int,
    labels: list[str] | None = None,
    pooling: Pooling = "all",
    weighted_sum: bool = False,
    num_layers: int | None = None,
    projector_size: Size | None = None,
    normalize_layers: bool = False,
    layer_adapters: Size | None = None,
    attentive: bool = False,
) -> ClassificationHead:
    """A `ClassificationHead`, or with `slots` a `SlotHead` for labels of several parts;
    where these are not known yet, as in describe, for those of Fluent Speech Commands.

    Arguments
    ---------
    slots : bool
        Whether each part of a label has a softmax of its own.
    hidden_size, num_classes, num_layers : int
        As of `ClassificationHead`.
    pooling : str
        Which valid tokens are averaged: all, cls, prompts, speech (all but cls and
        prompts), prompts+speech.
    weighted_sum : bool
        Whether a softmax-weighted sum of all layers' outputs is learned (as SUPERB
        does), instead of reading the last.
    projector_size : int or None
        Size of a linear projection before the classifier, as in SURE; null for none.
    normalize_layers : bool
        Whether every token of the layers below the last is standardised before
        weighted_sum, which SUPERB does not.
    layer_adapters : int or None
        Width of an adapter of each layer's own, LayerNorm(GELU(Linear)), whose outputs
        are summed by learned weights in the place of the layers themselves, such as
        512 (ELP's L-adapters, arXiv 2407.21066); null for none.
    attentive : bool
        Whether time is pooled by learned attention, to a mean and a standard deviation
        (arXiv 1803.10963), in the place of pooling's plain mean.
    labels : list of str or None
        The classes, whose parts are counted.
    """
    settings = {
        "hidden_size": hidden_size,
        "num_classes": num_classes,
        "pooling": pooling,
        "weighted_sum": weighted_sum,
        "num_layers": num_layers,
        "projector_size": projector_size,
        "normalize_layers": normalize_layers,
        "layer_adapters": layer_adapters,
        "attentive": attentive,
    }
    if not slots:
        return ClassificationHead(**settings)
    if labels is None:
        return SlotHead([6, 14, 4], **settings)
    parts = zip(*(label.split(PARTS) for label in labels), strict=True)
    return SlotHead([len(set(part)) for part in parts], **settings)


class CTCHead(Head):
    """Scores of every symbol at every step of time, from the last layer or a learned
    softmax-weighted sum of all.

    Arguments
    ---------
    hidden_size : int
        Size of the tokens.
    num_classes : int
        Symbols, the blank among them.
    weighted_sum : bool
        Whether a softmax-weighted sum of all layers' outputs is learned, instead of
        reading the last.
    num_layers : int or None
        Transformer layers of the backbone, for `weighted_sum`.
    projector_size : int or None
        Size of a linear projection before the classifier; null for none.
    dropout : float
        Dropout before the classifier.
    normalize_layers : bool
        Whether every token of the layers below the last is standardised before
        weighted_sum, which SUPERB does not.
    layer_adapters : int or None
        Width of an adapter of each layer's own, LayerNorm(GELU(Linear)), whose outputs
        are summed by learned weights in the place of the layers themselves, such as
        512 (ELP's L-adapters, arXiv 2407.21066); null for none.
    """

    pooling, by_time = None, True  # every step is read

    def __init__(
        self,
        hidden_size: int,
        num_classes: int,
        weighted_sum: bool = False,
        num_layers: int | None = None,
        projector_size: Size | None = None,
        dropout: Probability = 0.0,
        normalize_layers: bool = False,
        layer_adapters: Size | None = None,
    ) -> None:
        super().__init__(
            {
                "hidden_size": hidden_size,
                "num_classes": num_classes,
                "weighted_sum": weighted_sum,
                "num_layers": num_layers,
                "projector_size": projector_size,
                "normalize_layers": normalize_layers,
                "layer_adapters": layer_adapters,
                "dropout": dropout,
            }
        )
        self.dropout = nn.Dropout(dropout)

    def read(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """`Tokens` by time, `(batch, steps, hidden)`, and valid steps `(batch,)`."""
        return tokens.in_time()

    def predict(self, features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Features and valid steps `(batch,)` to logits `(batch, steps, symbols)`, and
        these steps."""
        return self.linear(self.dropout(self.combine(features))), counts


class OwnHead(nn.Module):
    """The head of a backbone that writes text itself: no parameters, and how it writes.

    Arguments
    ---------
    language : str or None
        The language of a checkpoint that knows several, such as en.
    speech_task : str
        Whether speech is written in its own language or in English.
    num_beams : int
        Width of the search for the best text; 1 takes the best token of each step.
    """

    weighted_sum = False

    def __init__(
        self,
        language: str | None = None,
        speech_task: SpeechTask = "transcribe",
        num_beams: PositiveInt = 1,
    ) -> None:
        super().__init__()
        one_of("speech_task", speech_task, ("transcribe", "translate"))
        self.settings = {
            "language": language,
            "speech_task": speech_task,
            "num_beams": num_beams,
        }

    def forward(self, written: Any) -> Any:
        """What the backbone gives, as it is."""
        return written


KINDS = (ClassificationHead, TagHead, SpeakerHead, SlotHead, CTCHead, OwnHead)
HEADS = {head.__name__: head for head in KINDS}
