"""Where a family of Transformers keeps its parts: one table a family."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROJECTIONS = ("q", "k", "v", "o", "fc1", "fc2")
CROSS_PROJECTIONS = ("cross_q", "cross_k", "cross_v", "cross_o")


@dataclass(frozen=True)
class Part:
    """One of the projections that a Linear computes together.

    Attributes
    ----------
    path : str
        The Linear, within a layer.
    index, of : int
        Which of how many equal parts of its output: for queries, keys and values in one
        `qkv` 0, 1 and 2 of 3.
    """

    path: str
    index: int
    of: int = 3


@dataclass(frozen=True)
class Block:
    """A block of a layer beside self-attention and the last feed-forward block.

    Attributes
    ----------
    entry, exit : str
        Its first and last module.
    norm : str
        The LayerNorm before it.
    gain : float
        What the layer multiplies its output by before adding it to the tokens.
    """

    entry: str
    exit: str
    norm: str
    gain: float = 1.0


@dataclass(frozen=True)
class Family:
    """Where a family of models keeps its parts; paths within a layer, but for `layers`
    and `last_norm`, which are paths within the model.

    Attributes
    ----------
    layers : str or tuple of str
        The list of Transformer layers, or several that follow one another.
    mhsa : str or tuple of str
        Self-attention, or its first and last module; and in `mhsa_norm` its LayerNorm.
    ffn : str or tuple of str
        The (last) feed-forward block, or its first and last module; and in `ffn_norm`
        its LayerNorm.
    q, k, v, o : str or Part or None
        The projections of self-attention.
    fc1, fc2 : str or Part or None
        Those of the feed-forward block; None where it is no pair of Linears.
    last_norm : str or None
        The LayerNorm after the last layer; None where there is none beyond
        `block_norm`.
    block_norm : str or None
        The LayerNorm that ends every layer, where one does: in post-norm layers that of
        the feed-forward block, in a Conformer one of its own.
    ffn_gain : float
        What the layer multiplies the feed-forward block's output by before adding it to
        the tokens: 0.5 for the half steps of a Conformer.
    blocks : dict
        Further blocks by name, each a `Block`: sites like mhsa and ffn.
    first : str or None
        The one of them that the tokens pass before self-attention, if any.
    cross : tuple of str
        Of a decoder: the projections q, k, v, o of its attention to the encoder.
    time_first : bool
        Whether its layers work on `(time, batch, hidden)`.
    special : int
        Number of tokens before the sound (or image, or text), such as CLS.
    mask : str or None
        For `petl_modules.adapt`: the argument of the model's forward function that says
        which tokens are valid; with `~` before it, which are padding. None where there
        is none.
    """

    layers: str | tuple[str, ...]
    mhsa: str | tuple[str, str]
    mhsa_norm: str
    ffn: str | tuple[str, str]
    ffn_norm: str
    q: str | Part | None = None
    k: str | Part | None = None
    v: str | Part | None = None
    o: str | Part | None = None
    fc1: str | Part | None = None
    fc2: str | Part | None = None
    last_norm: str | None = None
    block_norm: str | None = None
    ffn_gain: float = 1.0
    blocks: Mapping[str, Block] = field(default_factory=dict)
    first: str | None = None
    cross: tuple[str, ...] = ()
    time_first: bool = False
    special: int = 0
    mask: str | None = None

    @property
    def sites(self) -> dict[str, Block]:
        """Every block of a layer by the name of its site."""
        blocks = {}
        for name, ends, norm, gain in (
            ("mhsa", self.mhsa, self.mhsa_norm, 1.0),
            ("ffn", self.ffn, self.ffn_norm, self.ffn_gain),
        ):
            entry, exit_ = (ends, ends) if isinstance(ends, str) else ends
            blocks[name] = Block(entry, exit_, norm, gain)
        return {**blocks, **self.blocks}

    @property
    def projections(self) -> dict[str, Part]:
        """Every projection of a layer by name."""
        paths = {name: getattr(self, name) for name in PROJECTIONS}
        paths |= zip(CROSS_PROJECTIONS, self.cross, strict=False)
        return {
            name: path if isinstance(path, Part) else Part(path, 0, 1)
            for name, path in paths.items()
            if path is not None
        }
