"""What only a GPU can show; skipped where there is none."""

import pytest
import torch
from test_invariants import CASES, build
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from petl_modules.core.layers import compile_layers, compute_layers_again
from petl_modules.core.measure import host_waits
from petl_modules.core.precision import hold_base
from petl_modules.core.quantised import KINDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
PADDED = torch.tensor([1.0, 0.7, 0.4])


def on_gpu(folder, case, base="fp32", device="cuda"):
    model, head = build(folder, case)
    model.to(device), head.to(device)
    hold_base(model, base)
    model.train(), head.train()
    torch.manual_seed(0)
    wavs = (torch.randn(3, 9600) * 0.1).to(device)
    labels = torch.arange(3, device=device)

    def loss(lens=PADDED):
        with torch.autocast(device, torch.bfloat16, enabled=base != "fp32"):
            logits = head(model(wavs, lens))
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    trained = [*model.trained_parameters().values(), *head.parameters()]
    return model, loss, torch.optim.AdamW(trained, lr=1e-3, fused=True)


@pytest.mark.parametrize("lens", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("base", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["ast", "wav2vec2", "xlsr", "wavlm", "whisper"])
def test_no_step_waits(checkpoints, family, base, lens):
    for case in CASES:
        _, loss, optimizer = on_gpu(checkpoints[family], case, base)
        for _ in range(2):  # the first steps set libraries up
            loss(lens).backward()
            optimizer.step()
        torch.cuda.synchronize()
        with host_waits("cuda") as waits:
            loss(lens).backward()
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 5.0)
            optimizer.step()
        assert waits == [], case


def test_gpu_and_cpu_agree(checkpoints):
    torch.backends.cuda.matmul.allow_tf32 = False
    for case in ("lora", "conformer", "soft_moa"):
        losses = []
        for base, device in (("fp32", "cpu"), ("fp32", "cuda"), ("bf16", "cuda")):
            model, loss, _ = on_gpu(checkpoints["ast"], case, base, device)
            model.eval()
            losses.append(loss().item())
        assert losses[1] == pytest.approx(losses[0], abs=1e-3)
        assert losses[2] == pytest.approx(losses[0], abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["ast", "wavlm"])
def test_a_packed_base_trains_without_waits(checkpoints, family, kind):
    pytest.importorskip("bitsandbytes")
    _, plain, _ = on_gpu(checkpoints[family], "lora")
    model, loss, optimizer = on_gpu(checkpoints[family], "lora", kind)
    for _ in range(2):
        loss().backward()
    torch.cuda.synchronize()
    with host_waits("cuda") as waits:
        loss().backward()
        optimizer.step()
    assert waits == []
    hold_base(model, "fp32")
    assert plain().item() == pytest.approx(loss().item(), abs=0.3)


def test_compiled_layers_give_the_same(checkpoints):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, loss, _ = on_gpu(checkpoints["ast"], "bottleneck")
    expected = [loss(lens).item() for lens in (None, PADDED)]
    compile_layers(model)
    found = [loss(lens).item() for lens in (None, PADDED)]
    assert found == pytest.approx(expected, abs=1e-3)
    assert not torch._dynamo.utils.counters["graph_break"]


def test_computing_again_takes_less_memory(tmp_path):
    wide = tmp_path / "ast"  # enough for its layers to take more than the filterbank
    sizes = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6}
    ASTModel(ASTConfig(**sizes, intermediate_size=1536)).save_pretrained(wide)
    ASTFeatureExtractor().save_pretrained(wide)
    peaks = []
    for again in (False, True):
        model, loss, _ = on_gpu(wide, "lora")
        if again:
            compute_layers_again(model)
        loss().backward()  # libraries take what they need
        model.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del model, loss
    assert peaks[1] < peaks[0]
