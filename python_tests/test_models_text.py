"""Text encoders: hashed letters, a model from a local folder, a file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ecgfast.models.text import FileText, FolderText, HashedText, TextError

TEXTS = ["sinus rhythm", "atrial fibrillation, inferior infarct", "sinus rhythm normal ecg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of random weights with a tokenizer of its own, as save_pretrained writes it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS, trainer)
    path = tmp_path_factory.mktemp("bert")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(path)
    return path


def test_hashed_letters_repeat_and_bring_like_texts_together():
    encoder = HashedText()
    one, other, like = encoder(TEXTS)
    torch.testing.assert_close(torch.stack([one, other, like]).norm(dim=1), torch.ones(3))
    assert one @ like > 0.5 > one @ other
    assert torch.equal(HashedText()(TEXTS[:1])[0], one)
    assert encoder([]).shape == (0, 768)
    assert not encoder([""]).any()
    with pytest.raises(ValueError, match="dim must be 1"):
        HashedText(0)


def test_a_folder_gives_the_mean_over_real_tokens(folder):
    encoder = FolderText(folder, max_tokens=24, batch_size=2)
    found = encoder(TEXTS)
    assert found.shape == (3, 16)
    for text, vector in zip(TEXTS, found, strict=True):  # alone there is no padding
        tokens = encoder._tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            hidden = encoder._model(**tokens).last_hidden_state[0]
        torch.testing.assert_close(vector, hidden.mean(dim=0), atol=1e-5, rtol=1e-5)


def test_published_pooling_takes_padding_in(folder):
    encoder = FolderText(folder, pooling="padded", max_tokens=24)
    tokens = encoder._tokenizer(TEXTS[0], padding="max_length", max_length=24, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder._model(**tokens).last_hidden_state[0]
    torch.testing.assert_close(encoder(TEXTS[:1])[0], hidden.mean(dim=0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(encoder(TEXTS), FolderText(folder, max_tokens=24)(TEXTS))
    assert encoder.name != FolderText(folder, max_tokens=24).name


def test_long_texts_are_cut(folder):
    encoder = FolderText(folder, max_tokens=8)
    assert torch.equal(encoder(["sinus " * 50])[0], encoder(["sinus " * 8])[0])


def test_a_folder_that_lacks_a_part_says_so(folder, tmp_path):
    with pytest.raises(TextError, match="there is no folder"):
        FolderText(tmp_path / "absent")
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(TextError, match=r"has no config\.json"):
        FolderText(bare)
    (bare / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(TextError, match="has no tokenizer"):
        FolderText(bare)
    (bare / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    with pytest.raises(TextError, match="cannot be loaded"):
        FolderText(bare)


def test_a_file_knows_its_texts_alone(tmp_path):
    path = tmp_path / "texts.safetensors"
    vectors = torch.randn(3, 5)
    save_file({"embeddings": vectors}, str(path), {"texts": json.dumps(TEXTS), "name": "made"})
    encoder = FileText(path)
    assert (encoder.dim, encoder.name) == (5, "made")
    assert torch.equal(encoder([TEXTS[2], TEXTS[0]]), vectors[[2, 0]])
    with pytest.raises(TextError, match="1 of 2 texts are not in"):
        encoder([TEXTS[0], "another"])


@pytest.mark.parametrize(
    ("tensors", "about", "words"),
    [
        ({"weights": torch.zeros(3)}, {"texts": "[]"}, "holds no embeddings"),
        ({"embeddings": torch.zeros(3, 2)}, {}, "holds no embeddings"),
        ({"embeddings": torch.zeros(3, 2)}, {"texts": "{"}, "holds no embeddings"),
        ({"embeddings": torch.zeros(3, 2)}, {"texts": '["a"]'}, "do not belong together"),
        ({"embeddings": torch.full((1, 2), torch.nan)}, {"texts": '["a"]'}, "not finite"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, about, words):
    path = tmp_path / "texts.safetensors"
    save_file(tensors, str(path), about)
    with pytest.raises(TextError, match=words):
        FileText(path)
    with pytest.raises(TextError, match="there is no file"):
        FileText(tmp_path / "absent.safetensors")
