"""Tiny random checkpoints of every family, saved in transformers' layout."""

import json

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    ASTConfig,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    GenerationConfig,
    HubertConfig,
    HubertModel,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineModel,
    ParakeetCTCConfig,
    ParakeetForCTC,
    PreTrainedTokenizerFast,
    SEWConfig,
    SEWModel,
    SpeechT5Config,
    SpeechT5ForSpeechToText,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from petl_modules.tts.backbone import FastSpeech2Backbone
from petl_modules.tts.config import FastSpeech2Config

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (8, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
DATA2VEC = {
    **SIZES,
    **{n: CONVOLUTIONS[n] for n in ("conv_dim", "conv_kernel", "conv_stride")},
    "num_conv_pos_embeddings": 3,
    "conv_pos_kernel_size": 5,
}
MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 1,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
    "vocab_size": 50,
}
CONFORMER = {**SIZES, "conv_depthwise_kernel_size": 5, "hidden_act": "gelu"}
PARAKEET = {
    **SIZES,
    "conv_kernel_size": 5,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 24,
}
SPEECHT5 = {
    **{n: CONVOLUTIONS[n] for n in CONVOLUTIONS},
    "hidden_size": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "encoder_max_relative_position": 8,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 20,
    "max_speech_positions": 50,
}
HTSAT = {
    "spec_size": 32,  # 8 x 8 patches, and 4 x 4 in the second stage
    "num_mel_bins": 16,
    "window_size": 2,
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "depths": (2, 1),
    "num_attention_heads": (2, 4),
    "mlp_ratio": 1.5,
}
STABLE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}


def whisper():
    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=20,
        max_source_positions=100,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    return WhisperForConditionalGeneration(config)


BUILD = {
    "ast": lambda: ASTModel(ASTConfig(**SIZES, num_mel_bins=48, max_length=128)),
    "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**SIZES, **CONVOLUTIONS)),
    "xlsr": lambda: Wav2Vec2Model(Wav2Vec2Config(**SIZES, **CONVOLUTIONS, **STABLE)),
    "hubert": lambda: HubertModel(HubertConfig(**SIZES, **CONVOLUTIONS)),
    "data2vec": lambda: Data2VecAudioModel(
        Data2VecAudioConfig(**DATA2VEC, num_conv_pos_embedding_groups=4)
    ),
    "unispeech_sat": lambda: UniSpeechSatModel(
        UniSpeechSatConfig(**SIZES, **CONVOLUTIONS)
    ),
    "wavlm": lambda: WavLMModel(WavLMConfig(**SIZES, **CONVOLUTIONS)),
    "wav2vec2_conformer": lambda: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(
            **CONFORMER, **CONVOLUTIONS, position_embeddings_type="relative"
        )
    ),
    "w2v_bert": lambda: Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            **CONFORMER, feature_projection_input_dim=48, left_max_position_embeddings=6
        )
    ),
    "parakeet": lambda: ParakeetForCTC(
        ParakeetCTCConfig(encoder_config=PARAKEET, vocab_size=20, pad_token_id=19)
    ),
    "speecht5": lambda: SpeechT5ForSpeechToText(SpeechT5Config(**SPEECHT5)),
    "sew": lambda: SEWModel(SEWConfig(**SIZES, **CONVOLUTIONS)),
    "htsat": lambda: ClapAudioModel(ClapAudioConfig(**HTSAT)),
    "moonshine": lambda: MoonshineModel(MoonshineConfig(**MOONSHINE)),
    "whisper": whisper,
}
PREPROCESSORS = {
    "ast": {
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": 16000,
        "num_mel_bins": 48,
        "max_length": 128,
        "mean": -4.2,
        "std": 4.5,
        "do_normalize": True,
    },
    "htsat": {
        "feature_extractor_type": "ClapFeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 16,
        "max_length_s": 2,
        "fft_window_size": 512,
        "hop_length": 512,
        "frequency_min": 50,
        "frequency_max": 7000,
        "truncation": "rand_trunc",
        "padding": "repeatpad",
    },
    "parakeet": {
        "feature_extractor_type": "ParakeetFeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 24,
    },
    "speecht5": {
        "feature_extractor_type": "SpeechT5FeatureExtractor",
        "sampling_rate": 16000,
        "do_normalize": False,
    },
    "w2v_bert": {
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 24,
        "num_mel_bins": 24,
        "stride": 2,
        "padding_value": 1,
    },
    "whisper": {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 20,
        "n_fft": 400,
        "hop_length": 160,
    },
}
WAVEFORM = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "sampling_rate": 16000,
    "do_normalize": True,
}
FAMILIES = tuple(BUILD)
IN_TIME = tuple(name for name in BUILD if name != "htsat")  # which repeats clips


def tiny_checkpoint(family, folder, seed=0):
    """Save a random checkpoint of `family` and return its folder.

    The weights are larger than transformers draws them, and none is zero, so that
    every part of the network matters for its output.
    """
    torch.manual_seed(seed)
    model = BUILD[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # of features in decibels
                module.running_mean.uniform_(-30, 10)
                module.running_var.uniform_(50, 200)
    return save(model, family, folder)


def tiny_writer(folder, language=None, seed=0):
    """Save a random Whisper with a tokenizer of single bytes; of English alone, or of
    several languages if one is given."""
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>"]
    names += ["<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
    byte_names = list(bytes_to_unicode().values())
    number = {name: i for i, name in enumerate(byte_names + names)}
    tokenizer = WhisperTokenizer(vocab=number, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": names[1:]})
    tokenizer.save_pretrained(folder)
    end, start = number["<|endoftext|>"], number["<|startoftranscript|>"]
    special = {
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
        "decoder_start_token_id": start,
    }
    torch.manual_seed(seed)
    config = whisper().config
    config.update({**special, "vocab_size": len(number), "decoder_layers": 2})
    config.update({"max_target_positions": 60})
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config = GenerationConfig(
        **special,
        no_timestamps_token_id=number["<|notimestamps|>"],
        is_multilingual=language is not None,
        lang_to_id={name: number[name] for name in ("<|en|>", "<|zh|>")},
        task_to_id={
            name: number[f"<|{name}|>"] for name in ("translate", "transcribe")
        },
        suppress_tokens=[5, 6],
        begin_suppress_tokens=[number["\u0120"], end],
        return_timestamps=False,
        max_length=60,
    )
    return save(model, "whisper", folder)


def tiny_moonshine_writer(folder, seed=0):
    """Save a random Moonshine with a tokenizer of single bytes."""
    letters = list(bytes_to_unicode().values())
    number = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(BPE(vocab=number, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {**MOONSHINE, "vocab_size": len(number), "max_position_embeddings": 60}
    config = MoonshineConfig(**sizes, pad_token_id=2)
    model = MoonshineForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return save(model, "moonshine", folder)


def save(model, family, folder):
    """Save a model and what its preprocessor says; returns the folder."""
    model.save_pretrained(folder)
    preprocessor = PREPROCESSORS.get(family, WAVEFORM)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


SPEAKERS = ["ann", "bob"]


def tiny_speech_base(folder, seed=0, **sizes):
    """Save a random FastSpeech 2 of two speakers and return its folder."""
    torch.manual_seed(seed)
    sizes = {
        "text": "graphemes",
        "hidden_size": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "ffn_size": 48,
        "kernel_sizes": (5, 1),
        "postnet_size": 24,
    } | sizes
    backbone = FastSpeech2Backbone(FastSpeech2Config(**sizes), "tiny")
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    backbone.save(folder, SPEAKERS, {"table": torch.randn(2, 32)})
    return folder


def epochs_logged(folder):
    """The lines of a run's log that are of epochs."""
    log = folder / "train_log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.startswith("epoch: ")]


def few_steps(parameters, loss, steps=3, lr=0.02):
    """Train `{name: parameter}` on `loss()`; returns which ever got a gradient: other
    than zero, but for a bias that a BatchNorm takes off again, whose gradient is what
    rounding leaves of zero."""
    optimizer = torch.optim.Adam(parameters.values(), lr=lr)
    reached = set()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        reached |= {
            name
            for name, parameter in parameters.items()
            if parameter.grad is not None
            and (parameter.grad.abs().max() > 0 or name.endswith("conformer.conv.bias"))
        }
        optimizer.step()
    return reached
