"""A Whisper that writes, as ONNX files: an encoder, a decoder that keeps what it has
read, and a script that transcribes with onnxruntime alone."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.convert_slow_tokenizer import bytes_to_unicode

from petl_modules.core.adapted import AdaptedModel
from petl_modules.errors import UserError
from petl_modules.files import whole_folder, write_json, write_text
from petl_modules.use import onnx_transcribe
from petl_modules.use.adapter_file import Adapter

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
FACTS, SCRIPT = "whisper.json", "transcribe.py"
TOLERANCE = 1e-3  # of logits, which are some tens large


class Hearing(nn.Module):
    """Clips `(batch, samples)` of 30 s to what each decoder layer attends to, keys and
    values `(layers, batch, heads, tokens, size)`.

    Arguments
    ---------
    model : AdaptedModel
        A Whisper with its decoder.
    """

    def __init__(self, model: AdaptedModel) -> None:
        super().__init__()
        self.model = model
        self.layers = model.backbone.model.model.decoder.layers

    def forward(self, wavs: Tensor) -> tuple[Tensor, Tensor]:
        """As of the class."""
        sound, _ = self.model(wavs).in_time()
        keys, values = [], []
        for layer in self.layers:
            attention: Any = layer.encoder_attn
            shape = (sound.shape[0], -1, attention.num_heads, attention.head_dim)
            keys.append(attention.k_proj(sound).view(shape).transpose(1, 2))
            values.append(attention.v_proj(sound).view(shape).transpose(1, 2))
        return torch.stack(keys), torch.stack(values)


class Writing(nn.Module):
    """One token more: logits `(batch, vocabulary)` of the next one, and the keys and
    values of all so far.

    Arguments
    ---------
    model : AdaptedModel
        As of `Hearing`.
    """

    def __init__(self, model: AdaptedModel) -> None:
        super().__init__()
        self.model, self.whisper = model, model.backbone.model

    def forward(
        self,
        token: Tensor,
        keys: Tensor,
        values: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A token `(batch, 1)`; keys and values of those before, and of the sound."""
        own, heard = DynamicCache(), DynamicCache()
        for i in range(keys.shape[0]):
            own.update(keys[i], values[i], i)
            heard.update(cross_keys[i], cross_values[i], i)
        cache = EncoderDecoderCache(own, heard)
        for i in range(keys.shape[0]):
            cache.is_updated[i] = True
        states = self.whisper.model.decoder(
            input_ids=token,
            # of which nothing is read, since its keys and values are known
            encoder_hidden_states=cross_keys[0].transpose(1, 2).flatten(2),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        layers = cache.self_attention_cache.layers
        new_keys = torch.stack([layer.keys for layer in layers])
        new_values = torch.stack([layer.values for layer in layers])
        return self.whisper.proj_out(states[:, -1]), new_keys, new_values


@torch.no_grad()
def export_writer(adapter: Adapter, folder: str | Path) -> float:
    """Write encoder.onnx, decoder.onnx, whisper.json and transcribe.py.

    Arguments
    ---------
    adapter : Adapter
        Of a Whisper with its decoder.
    folder : str or Path
        New or empty.

    Returns
    -------
    float
        The largest difference of a logit between ONNX Runtime and PyTorch.

    Raises
    ------
    UserError
        For a folder that holds something, another writer, or outputs that are not
        equal.
    """
    backbone: Any = adapter.model.backbone
    if backbone.family != "whisper":
        raise UserError(
            f"{backbone.source} is a {backbone.family} model: of those that write, "
            "Whispers alone are exported."
        )
    with whole_folder(folder) as partial:
        return write_both(adapter, partial)


def write_both(adapter: Adapter, folder: Path) -> float:
    """Write encoder and decoder, and what is beside them."""
    backbone: Any = adapter.model.backbone
    hearing, writing = Hearing(adapter.model).eval(), Writing(adapter.model).eval()
    samples = backbone.capacity()
    wavs = torch.randn(2, samples) * 0.1
    sound = hearing(wavs)
    state = sound[0][:, :, :, :3]
    inputs = (torch.tensor([[5], [6]]), state, state * 0.5, *sound)
    batch = torch.export.Dim("batch", min=1, max=256)
    past = torch.export.Dim("past", min=1, max=backbone.longest_text)
    names = ("cross_keys", "cross_values")
    save_onnx(folder / ENCODER, hearing, {"wavs": wavs}, names, {"wavs": {0: batch}})
    names = ("token", "keys", "values", "cross_keys", "cross_values")
    grown = {1: batch, 3: past}
    sizes = ({0: batch}, grown, grown, {1: batch}, {1: batch})
    save_onnx(
        folder / DECODER,
        writing,
        dict(zip(names, inputs, strict=True)),
        ("logits", "new_keys", "new_values"),
        dict(zip(names, sizes, strict=True)),
    )
    write_json(folder / FACTS, facts(adapter, state))
    script = Path(onnx_transcribe.__file__).read_text(encoding="utf-8")
    write_text(folder / SCRIPT, script)
    found = difference(folder, hearing, writing)
    if found > TOLERANCE:
        raise UserError(
            f"ONNX Runtime's logits differ from PyTorch's by {found:.1e}: nothing is "
            "written."
        )
    return found


def facts(adapter: Adapter, state: Tensor) -> dict[str, Any]:
    """What transcribe.py must know: how a text begins and ends, what is never written,
    and the bytes of every token."""
    backbone: Any = adapter.model.backbone
    said, settings = adapter.head.settings, backbone.model.generation_config
    tokenizer = backbone.tokenizer
    spoken = {key: said.get(key) for key in ("language", "speech_task")}
    spoken = {key: value for key, value in spoken.items() if value is not None}
    backbone.numbers("", **spoken)  # tells the tokenizer how a text begins
    end = settings.eos_token_id  # after which all numbers are no text
    byte_of = {c: b for b, c in bytes_to_unicode().items()}
    words = tokenizer.convert_ids_to_tokens(range(backbone.model.config.vocab_size))
    pieces = [
        "" if word is None or i >= end else bytes(map(byte_of.get, word)).hex()
        for i, word in enumerate(words)
    ]
    return {
        "samples": backbone.capacity(),
        "sample_rate": backbone.sample_rate,
        "begin": list(tokenizer.prefix_tokens),
        "end": end,
        "longest": backbone.longest_text,
        "never": settings.suppress_tokens or [],
        "not_first": settings.begin_suppress_tokens or [],
        "state": [state.shape[0], state.shape[2], state.shape[4]],
        "pieces": pieces,
    }


# Helpers


def save_onnx(
    path: Path,
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: tuple[str, ...],
    sizes: dict[str, dict],
) -> None:
    """Write a module's graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=sizes,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
        if program is None:
            raise UserError("torch made no graph of this adapter.")
        program.save(str(path))


def difference(folder: Path, hearing: nn.Module, writing: nn.Module) -> float:
    """Between PyTorch's logits and ONNX Runtime's, of the first tokens of a clip."""
    write = onnx_transcribe.Transcriber(folder)
    wavs = torch.randn(1, write.samples) * 0.1
    sound = hearing(wavs)
    theirs_sound = write.encoder.run(None, {"wavs": wavs.numpy()})
    layers, heads, size = write.state
    ours: Any = [torch.zeros(layers, 1, heads, 0, size)] * 2
    theirs: Any = [state.numpy() for state in ours]
    names = ("keys", "values", "cross_keys", "cross_values")
    found = 0.0
    for token in (*write.begin, write.end):
        given = dict(zip(names, (*theirs, *theirs_sound), strict=True))
        given["token"] = np.array([[token]])
        logits, *theirs = write.decoder.run(None, given)
        expected, *ours = writing(torch.tensor([[token]]), *ours, *sound)
        gap = (expected - torch.from_numpy(logits)).abs().max()
        found = max(found, float(gap))
    return found
