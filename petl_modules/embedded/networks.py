"""Teacher and student of the pretraining."""

from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel, WhisperFeatureExtractor, WhisperModel

from petl_modules.backbones.features import WhisperLogMel
from petl_modules.errors import UserError

RATE = 16000
STEP = 16  # frames of 10 ms from one token to the next
TEACHER_STEP = 2  # frames per teacher token


class Teacher(nn.Module):
    """Whisper's encoder on short clips: its hidden states, averaged over each of the
    student's time steps.

    Arguments
    ---------
    source : str
        Checkpoint: folder or hub id.
    layers : list of int
        Which layers' outputs to take, from 1; the last one after the final norm.
    """

    def __init__(self, source: str, layers: list[int]) -> None:
        super().__init__()
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(source)
            encoder = WhisperModel.from_pretrained(source).encoder
        except (OSError, ValueError) as error:
            raise UserError(
                f"No Whisper checkpoint can be loaded from {source}: give --teacher a "
                "folder in transformers' layout or a hub id that can be reached."
            ) from error
        self.log_mel = WhisperLogMel(
            torch.tensor(extractor.mel_filters, dtype=torch.float32),
            extractor.n_fft,
            extractor.hop_length,
        )
        self.encoder = encoder.float().eval()
        self.layers = layers
        if not set(layers) <= set(range(1, len(self.encoder.layers) + 1)):
            raise UserError(
                f"--teacher_layers {layers}: the teacher has the layers 1 to "
                f"{len(self.encoder.layers)}."
            )

    def forward(self, wavs: Tensor, frames: int) -> Tensor:
        """`(clips, samples)` to `(clips, steps, layers * width)`."""
        encoder = self.encoder
        with torch.autocast(wavs.device.type, torch.bfloat16):
            hidden = F.gelu(encoder.conv1(self.log_mel(wavs, frames)))
            hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
            hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
            outputs = []
            for index, layer in enumerate(encoder.layers, 1):
                hidden = layer(hidden, None)
                last = index == len(encoder.layers)
                outputs.append(encoder.layer_norm(hidden) if last else hidden)
        taken = torch.cat([outputs[index - 1] for index in self.layers], -1).float()
        steps = taken.unfold(1, STEP // TEACHER_STEP, STEP // TEACHER_STEP)
        return steps.mean(-1)


class Student(nn.Module):
    """The AST and the predictors that training needs.

    Arguments
    ---------
    config : transformers.ASTConfig
    target_size, sources, second_size : int
        Width of the teacher's targets; number of kinds of sources; width of a second
        teacher's targets, or 0.
    """

    def __init__(
        self, config: ASTConfig, target_size: int, sources: int, second_size: int
    ) -> None:
        super().__init__()
        self.ast = ASTModel(config)
        # on the CPU, 1.6 times as fast as sdpa for these few tokens
        self.ast.set_attn_implementation("eager")
        # transformers leaves these at zero
        for table in (
            self.ast.embeddings.position_embeddings,
            self.ast.embeddings.cls_token,
            self.ast.embeddings.distillation_token,
        ):
            nn.init.normal_(table, std=0.02)
        self.steps = nn.Linear(config.hidden_size, target_size)
        self.clip = nn.Linear(config.hidden_size, target_size)
        self.sources = nn.Linear(config.hidden_size, sources)
        # of each token, of the special tokens, and of the mean token, which is probed
        seconds = range(3 if second_size else 0)
        self.second = nn.ModuleList(
            nn.Linear(config.hidden_size, second_size) for _ in seconds
        )

    def forward(self, features: Tensor, offset: int) -> list[Tensor]:
        """Features `(clips, frames, mel bins)` that begin at place `offset` of the
        position table; gives predictions for tokens, clips and sources, and of a second
        teacher's targets for tokens, and for clips twice."""
        embeddings = self.ast.embeddings
        patches = embeddings.patch_embeddings.projection(
            features.transpose(1, 2).unsqueeze(1)
        )
        places = embeddings.position_embeddings
        patches = patches.flatten(2).transpose(1, 2)
        table = places[:, 2 + offset : 2 + offset + patches.shape[1]]
        special = torch.cat([embeddings.cls_token, embeddings.distillation_token], 1)
        special = (special + places[:, :2]).expand(len(patches), -1, -1)
        hidden = torch.cat([special, patches + table], 1)
        for layer in self.ast.layers:
            hidden = layer(hidden)
        hidden = self.ast.layernorm(hidden)
        tokens, special, mean = hidden[:, 2:], hidden[:, :2].mean(1), hidden.mean(1)
        seconds = zip(self.second, (tokens, special, mean), strict=False)
        return [
            *(self.steps(tokens), self.clip(special), self.sources(mean)),
            *[predictor(part) for predictor, part in seconds],
        ]


def make_student(
    options: Namespace, target_size: int, sources: int, second_size: int
) -> Student:
    """The network with random weights."""
    config = ASTConfig(
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.hidden_size,
        num_mel_bins=options.mel_bins,
        max_length=options.max_length,
        patch_size=options.mel_bins,
        frequency_stride=options.mel_bins,
        time_stride=STEP,
    )
    return Student(config, target_size, sources, second_size)
