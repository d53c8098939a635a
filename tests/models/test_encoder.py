import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from models import encoder, flat_bert

TEXTS = [
    "a quiet coffee shop by the river",
    "espresso bar",
    "the tyres of my bicycle are flat again and the repair shop in the next street is closed until Monday, so I walked",
    "Ünïcode, punctuation & digits: 42!",
    "bike",
    "x",
]
TOLERANCE = 1e-5  # how far a vector may move with the batch it is in; text_semantics says so too


@pytest.fixture(scope="module")
def packaged():
    return encoder.load(threads=1)


@pytest.fixture
def copy(tmp_path):
    """The packaged encoder in a folder of its own."""
    folder = tmp_path / "my-encoder"
    shutil.copytree(encoder.find().folder, folder)
    return folder


def test_vectors_are_those_of_sentence_transformers(packaged):
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(encoder.find().folder), device="cpu")
    assert np.abs(packaged.encode(TEXTS) - peer.encode(TEXTS)).max() < TOLERANCE


def test_vectors_mean_something(packaged):
    coffee, espresso, tyres, _, bike, _ = packaged.encode(TEXTS)
    assert coffee.shape == (384,)
    assert coffee @ espresso > 0.3 > coffee @ bike
    assert tyres @ bike > tyres @ espresso + 0.2


def test_the_batch_does_not_matter(packaged):
    alone = np.concatenate([packaged.encode([text]) for text in TEXTS])
    together = packaged.encode(TEXTS * 30)
    for copy in range(30):
        assert np.abs(together[copy * len(TEXTS) : (copy + 1) * len(TEXTS)] - alone).max() < TOLERANCE
    assert np.abs(packaged.encode(TEXTS[::-1])[::-1] - alone).max() < TOLERANCE
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("precision", "apart"), [("bf16", 1e-4), ("int8", 0.01)])
def test_rounded_a_text_has_one_vector_whatever_is_beside_it_and_nearly_that_of_fp32(packaged, precision, apart):
    rough = encoder.load(precision=precision, threads=1)
    alone = np.concatenate([rough.encode([text]) for text in TEXTS])
    others = ["another one of some words " * number for number in range(1, 30, 4)]
    together = rough.encode((TEXTS + others) * 3)
    for copy in range(3):
        start = copy * (len(TEXTS) + len(others))
        assert (together[start : start + len(TEXTS)] == alone).all()
    exact = packaged.encode(TEXTS)
    assert 0 < (1 - (alone * exact).sum(axis=1)).max() < apart


def test_whole_numbers_are_added_up_without_loss():
    """What stands in a product is rounded to so many steps, and that is all: the largest factors together stay exact."""
    generator = torch.Generator().manual_seed(0)
    x_TK, matrix_NK = (torch.randn(shape, generator=generator) for shape in ((1024, 384), (96, 384)))
    x_TK[0], matrix_NK[0] = 3.0, 2.0  # all but one at the end of their range, where sixteen bits would be too few
    x_TK[0, 0] = -3.0
    x_TK[1], bias_N = 0.0, torch.randn(96, generator=generator)
    found_TN = torch.empty(1024, 96)
    flat_bert._WholeProduct(matrix_NK, bias_N)(x_TK, found_TN)
    least_T1, steps_N1 = x_TK.amin(1, keepdim=True), matrix_NK.abs().amax(1, keepdim=True) / 63
    steps_T1 = ((x_TK.amax(1, keepdim=True) - least_T1) / 255).clamp(min=1e-12)
    rounded_TK = ((x_TK - least_T1) / steps_T1).round() * steps_T1 + least_T1
    wanted_TN = rounded_TK.double() @ ((matrix_NK / steps_N1).round() * steps_N1).double().T + bias_N
    torch.testing.assert_close(found_TN.double(), wanted_TN, rtol=1e-4, atol=1e-3)


def test_texts_without_known_words_have_no_vector(packaged):
    vectors = packaged.encode(["", "coffee", "\U0001f600\U0001f680", " \n "])
    assert np.isnan(vectors).all(axis=1).tolist() == [True, False, True, True]
    assert packaged.encode([]).shape == (0, 384)


def test_long_texts_are_cut_at_the_tokens_asked_for():
    short = encoder.load(max_tokens=8, threads=1)
    words = "one two three four five six"
    assert np.abs(short.encode([words])[0] - short.encode([words + " seven eight"])[0]).max() < TOLERANCE
    assert np.abs(short.encode([words])[0] - short.encode(["one two three four five"])[0]).max() > 1e-3


def test_the_version_names_the_weights(copy):
    version = encoder.find(str(copy)).version
    assert version.startswith("my-encoder@") and version.split("@")[1] == encoder.find().version.split("@")[1]
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert encoder.find(str(copy)).version != version


def _cut(folder):
    weights = folder / "model.safetensors"
    with weights.open("r+b") as stream:
        stream.truncate(weights.stat().st_size - 1)


def _no_pooling(folder):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))


def _another_pooling(folder):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))


DAMAGE = {
    r"does not exist": shutil.rmtree,
    r"lacks config\.json, tokenizer\.json, \*\.safetensors": lambda folder: [
        (folder / name).unlink() for name in ("config.json", "tokenizer.json", "vocab.txt", "model.safetensors")
    ],
    r"config\.json cannot be read as JSON": lambda folder: (folder / "config.json").write_text("{"),
    r"tokenizer\.json cannot be read as JSON": lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"),
    r"not a whole safetensors file \(90868375 bytes instead of 90868376\)": _cut,
    r"not a whole safetensors file \(no header\)": lambda folder: (folder / "model.safetensors").write_bytes(
        b"version https://git-lfs"
    ),
    r"not a whole safetensors file": lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]"),
    r"pools by pooling_mode_max_tokens, not the mean": _another_pooling,
    r"pools by nothing, not the mean": _no_pooling,
}


@pytest.mark.parametrize(("said", "damage"), DAMAGE.items(), ids=range(len(DAMAGE)))
def test_a_damaged_folder_is_refused_in_one_line_before_torch_is_needed(copy, said, damage):
    damage(copy)
    with pytest.raises(ValueError, match=said) as caught:
        encoder.find(str(copy))
    assert len(str(caught.value).splitlines()) == 1 and "text.encoder" in str(caught.value)


def test_what_only_the_library_finds_wrong_is_a_one_line_error_too(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "no such model"}))
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        encoder.load(str(copy))
    assert len(str(caught.value).splitlines()) == 1


def test_absent_weights_are_not_made_up(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    with pytest.raises(ValueError, match=r"lacks the weights encoder\.layer\.6\."):
        encoder.load(str(copy))


def test_finding_an_encoder_does_not_import_torch():
    code = "import sys; from models import encoder; encoder.find(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_encoders_are_read_as_transformers_reads_them(copy, kind, pooling):
    """Small ones of random weights, whose reference takes each text alone and pads nothing."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    tokenizer = AutoTokenizer.from_pretrained(copy)
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=80, pad_token_id=0, **sizes)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(copy)
    (copy / "1_Pooling" / "config.json").write_text(
        json.dumps({f"pooling_mode_{pooling}_token{'s' * (pooling == 'mean')}": True})
    )
    found = encoder.load(str(copy), max_tokens=40, threads=1).encode(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=40)).last_hidden_state[0]
        wanted = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        assert np.abs(vector - (wanted / wanted.norm()).numpy()).max() < TOLERANCE
