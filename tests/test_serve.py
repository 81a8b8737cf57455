"""The server answers each request by its own adapter, and says what it refuses."""

import io

import pytest
from conftest import tone
from test_inference import MIXING, saved

from petl_modules.use.inference import load_adapter

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from fastapi.testclient import TestClient
from load_serve import load

from petl_modules.use.serve import Busy, Limits, make_app


@pytest.fixture(scope="module")
def adapters(checkpoints, tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    folder = saved(checkpoints["wav2vec2"], root / "mood", *MIXING["emotion"], cut=1.0)
    return load_adapter(folder, "mood")


def upload(path):
    return {"file": (path.name, path.read_bytes())}


def test_answers_and_refusals(adapters, tmp_path):
    tone(tmp_path / "a.wav", 300, 2.5, rate=22050)
    (tmp_path / "b.wav").write_text("no sound")
    limits = Limits(mebibytes=1, seconds=20.0)
    with TestClient(make_app(adapters, limits)) as client:
        (facts,) = client.get("/adapters").json()
        assert facts["name"] == "mood" and facts["labels"] == ["glad", "sad"]
        found = client.post("/answer", files=upload(tmp_path / "a.wav")).json()
        expected = adapters.classify_file(tmp_path / "a.wav")
        assert found["label"] == expected["label"]
        assert found["probability"] == pytest.approx(expected["probability"], abs=1e-4)
        assert (found["duration"], found["heard"]) == (2.5, 1.0)
        refused = client.post("/answer", files=upload(tmp_path / "b.wav"))
        assert refused.status_code == 422
        assert "b.wav cannot be read" in refused.json()["detail"]
        assert "/tmp" not in refused.json()["detail"]
        url = "/answer?adapter=none"
        assert client.post(url, files=upload(tmp_path / "a.wav")).status_code == 404
        large = {"file": ("c.wav", io.BytesIO(b"0" * 2**21))}
        assert client.post("/answer", files=large).status_code == 413
        assert client.post("/answer").status_code == 422
        schema = client.get("/openapi.json").json()
        assert set(schema["paths"]) == {"/adapters", "/answer"}


def test_a_full_queue_is_said(adapters, tmp_path, monkeypatch):
    tone(tmp_path / "a.wav", 300, 0.5)
    app = make_app(adapters)

    def full(*_):
        raise Busy

    monkeypatch.setattr(app.state.batches, "ask", full)
    with TestClient(app) as client:
        answer = client.post("/answer", files=upload(tmp_path / "a.wav"))
        assert answer.status_code == 503


def test_no_answer_is_anothers_under_load(tmp_path):
    wrong, _, _, sizes = load(tmp_path, requests=40, at_once=10)
    assert wrong == 0 and sum(sizes) == 80
    assert max(sizes) > 1  # requests were computed together
