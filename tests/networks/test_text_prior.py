"""One interface over ModernBERT, BERT and CLIP text; prompts are embedded once, whole, and as plain words."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedTokenizerFast,
)

from bundle.networks import TensorStore, WeightsError, count_parameters
from bundle.networks.text_prior import EMBEDDED, TEXT_LAYOUTS, TextPrior

FAMILIES = ("modernbert", "bert", "clip")
WIDTH = 32
LIMITS = {"modernbert": 8192, "bert": 512, "clip": 77}
SPECIAL = {"[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"}
PROMPTS = ["segment the liver", "", "left upper and middle, right lower", "liver"]


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["segment the liver, left and right, upper middle lower"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{role}_token": token for role, token in names.items()}
    )


def _small_model(family: str) -> nn.Module:
    common: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    if family == "modernbert":
        own = {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 8}
        return ModernBertForMaskedLM(ModernBertConfig(**common, **own))
    if family == "bert":
        return BertForMaskedLM(BertConfig(**common, type_vocab_size=2))
    return CLIPTextModel(CLIPTextConfig(**common))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> folder as it is published, two of them with heads for masked-language modelling."""
    made = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        made[family] = tmp_path_factory.mktemp(family)
        model: Any = _small_model(family)
        for (
            parameter
        ) in model.parameters():  # random weights of transformers are too small to tell words apart
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(made[family])
        _tokenizer().save_pretrained(made[family])
    return made


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy_of(family: str) -> Path:
        return Path(shutil.copytree(folders[family], tmp_path / family))

    return copy_of


def _count_calls(prior: TextPrior) -> list[int]:
    """Grows by the batch size of each pass of the encoder."""
    calls: list[int] = []
    module = getattr(prior.encoder, "module", prior.encoder)
    module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("training", ["frozen", "finetuned", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_interface_over_all_families(folders: dict[str, Path], family: str, training: Any) -> None:
    prior = TextPrior(folders[family], training=training).eval()
    features = prior(PROMPTS)
    lengths = features.mask.sum(1)
    assert prior.width == WIDTH and prior.max_tokens == LIMITS[family] and prior.attention == "sdpa"
    assert features.tokens.shape == (4, int(lengths.max()), WIDTH)
    assert features.pooled.shape == (4, WIDTH)
    assert features.tokens.dtype == features.pooled.dtype == torch.float32
    assert features.mask.dtype == torch.bool and lengths[1] == 2  # special tokens alone
    assert torch.isfinite(features.tokens).all()
    for tokens, mask, pooled in zip(features.tokens, features.mask, features.pooled, strict=True):
        torch.testing.assert_close(pooled, tokens[mask].mean(0))
        assert (tokens[~mask] == 0).all()
    assert (features.pooled[0] - features.pooled[3]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", ["frozen", "finetuned"])
def test_features_do_not_depend_on_the_rest_of_the_batch(
    folders: dict[str, Path], family: str, training: Any
) -> None:
    together = TextPrior(folders[family], training=training).eval()(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        alone = TextPrior(folders[family], training=training).eval()([prompt])
        same = together.tokens[i][together.mask[i]]
        torch.testing.assert_close(
            same,
            alone.tokens[0],
            atol=0 if training == "frozen" else 1e-5,
            rtol=0 if training == "frozen" else 1e-5,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_published_model(folders: dict[str, Path], family: str) -> None:
    with torch.no_grad():
        prior = TextPrior(folders[family], attention="eager")
        ids = torch.tensor([_tokenizer()("segment the liver")["input_ids"]])
        torch.manual_seed(0)
        reference: Any = _small_model(family)
        state = load_file(folders[family] / "model.safetensors")
        reference.load_state_dict(state, strict=False)
        expected = reference.eval().base_model(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(prior(["segment the liver"]).tokens[0], expected, atol=1e-5, rtol=1e-5)


def test_text_half_of_a_whole_clip_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {"vocab_size": 320, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(tmp_path)
    _tokenizer().save_pretrained(tmp_path)
    assert TextPrior(tmp_path)(["liver"]).pooled.shape == (1, WIDTH)


def test_a_prompt_is_embedded_once(folders: dict[str, Path]) -> None:
    prior = TextPrior(folders["modernbert"], store=TensorStore())
    calls = _count_calls(prior)
    first = prior(["liver", "spleen", "liver"])
    again = prior(["spleen", "liver"])
    assert calls == [1, 1]
    assert torch.equal(first.tokens[0], first.tokens[2])
    assert torch.equal(first.pooled[0], again.pooled[1])


def test_copies_share_encoder_and_embeddings(folders: dict[str, Path]) -> None:
    prior = TextPrior(folders["modernbert"], store=TensorStore())
    calls = _count_calls(prior)
    prior(["liver"])
    averaged = copy.deepcopy(prior)
    averaged(["liver"])
    assert calls == [1]
    assert list(averaged.state_dict()) == ["encoder.fingerprint"]


def test_without_a_store_every_call_embeds(folders: dict[str, Path]) -> None:
    prior = TextPrior(folders["modernbert"])
    calls = _count_calls(prior)
    prior(["liver", "liver"])
    prior(["liver"])
    assert calls == [1, 1]


def test_embeddings_on_disk_are_read_by_another_process(folders: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = TextPrior(folders["bert"], store=TensorStore(cache))(["liver", "name of the patient"])
    files = sorted(cache.rglob("*.*"))
    assert len(files) == 2 and all(file.suffix == ".safetensors" for file in files)
    assert not any(b"patient" in file.read_bytes() for file in files)
    other = TextPrior(folders["bert"], store=TensorStore(cache))
    calls = _count_calls(other)
    assert torch.equal(other(["liver", "name of the patient"]).tokens, first.tokens)
    assert calls == []


def test_damaged_and_foreign_embeddings_on_disk_are_computed_again(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    expected = TextPrior(folders["bert"], store=TensorStore(tmp_path))(["liver"]).tokens
    (file,) = tmp_path.rglob("*.*")
    for damage in (lambda: file.write_bytes(b"no tensors"), lambda: save_file({"x": torch.ones(1)}, file)):
        damage()
        prior = TextPrior(folders["bert"], store=TensorStore(tmp_path))
        assert torch.equal(prior(["liver"]).tokens, expected)
        assert torch.equal(load_file(file)["tokens"], expected[0])
    prior = TextPrior(folders["modernbert"], store=TensorStore(tmp_path))
    prior(["liver"])
    TextPrior(folders["bert"], store=TensorStore(tmp_path), max_tokens=3)(["liver"])
    assert len(list(tmp_path.rglob("*.*"))) == 3  # other weights and limits have files of their own


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained(folders: dict[str, Path], family: str) -> None:
    def trainable(training: Any) -> list[str]:
        prior = TextPrior(folders[family], training=training)
        return [name for name, parameter in prior.named_parameters() if parameter.requires_grad]

    assert trainable("frozen") == []
    assert any("embedding" in name for name in trainable("finetuned"))
    adapters = trainable("lora")
    assert adapters and all("lora_" in name for name in adapters)
    assert {"0", "1"} <= {part for name in adapters for part in name.split(".")}  # in both layers
    assert not any("mlp" in name or "intermediate" in name for name in adapters)


@pytest.mark.parametrize("training", ["finetuned", "lora"])
def test_gradients_reach_what_is_trained(folders: dict[str, Path], training: Any) -> None:
    prior = TextPrior(folders["modernbert"], training=training)
    calls = _count_calls(prior)
    prior(["liver", "spleen", "liver"]).pooled.square().sum().backward()
    prior(["liver"])
    assert calls == [2, 1]  # distinct prompts in one pass; nothing is kept
    trained = [parameter for parameter in prior.parameters() if parameter.requires_grad]
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained)


def test_weights_remember_their_text_encoder(folders: dict[str, Path], copied: Callable[[str], Path]) -> None:
    state = TextPrior(folders["modernbert"]).state_dict()
    TextPrior(folders["modernbert"]).load_state_dict(state)
    other = copied("modernbert")
    weights = load_file(other / "model.safetensors")
    weights["model.final_norm.weight"] += 0.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="trained beside another text encoder"):
        TextPrior(other).load_state_dict(state)


@pytest.mark.parametrize("training", ["finetuned", "lora"])
def test_trained_encoders_remember_their_tokenizer(
    folders: dict[str, Path], copied: Callable[[str], Path], training: Any
) -> None:
    state = TextPrior(folders["modernbert"], training=training).state_dict()
    other = copied("modernbert")
    TextPrior(other, training=training).load_state_dict(state)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    pieces = tokenizer["model"]["vocab"]
    first, second = list(pieces)[-2:]
    pieces[first], pieces[second] = pieces[second], pieces[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(WeightsError, match="trained beside another tokenizer"):
        TextPrior(other, training=training).load_state_dict(state)


@pytest.mark.parametrize(
    "text",
    [
        "[SEP]",
        "[MASK] liver [CLS]",
        "[PAD][UNK]",
        "</s> <|endoftext|>",
        "$import os",
        "@image",
        "%x",
        "#1",
        "ひ 肝脏 печень",
    ],
)
def test_words_in_a_prompt_are_never_special_tokens(folders: dict[str, Path], text: str) -> None:
    prior = TextPrior(folders["modernbert"])
    ids = prior.prompt_tokens.ids(text).tolist()
    tokens = prior.prompt_tokens.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
    assert not SPECIAL & set(tokens[1:-1])
    assert prior.prompt_tokens.tokenizer.decode(ids[1:-1]).strip() == text
    assert prior([text]).mask.sum() == len(ids)


def test_halves_of_characters_are_no_reason_to_fail(folders: dict[str, Path], tmp_path: Path) -> None:
    assert TextPrior(folders["bert"], store=TensorStore(tmp_path))(["liver \udcff"]).pooled.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_are_cut_at_the_limit_and_say_so(folders: dict[str, Path], family: str) -> None:
    prior = TextPrior(folders[family], max_tokens=100)
    limit = min(100, LIMITS[family])
    word = len(prior.prompt_tokens.ids("liver")) - 2
    text = " ".join(["liver"] * 300)
    assert prior.max_tokens == limit
    assert prior.cut_tokens(text) == 300 * word + 2 - limit
    assert prior.cut_tokens("liver") == 0
    ids = prior.prompt_tokens.ids(text)
    assert len(ids) == limit and ids[0] == 2 and ids[-1] == 3
    assert prior([text]).tokens.shape == (1, limit, WIDTH)


def test_8192_tokens_are_read_to_the_last(folders: dict[str, Path]) -> None:
    prior = TextPrior(folders["modernbert"])
    word = len(prior.prompt_tokens.ids("liver")) - 2
    text = " ".join(["liver"] * (8190 // word - 8)) + " right"
    assert prior.cut_tokens(text) == 0
    tokens = prior([text]).tokens[0]
    assert 8100 < len(tokens) <= 8192
    assert (tokens[-2] - tokens[-2 - word]).abs().max() > 1e-2  # the last word is another one


def test_an_absent_limit_is_that_of_the_architecture(folders: dict[str, Path]) -> None:
    assert TextPrior(folders["bert"], max_tokens=None).max_tokens == 512


def test_weights_in_half_precision_are_computed_in_full(copied: Callable[[str], Path]) -> None:
    folder = copied("modernbert")
    ModernBertModel.from_pretrained(folder).half().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    prior = TextPrior(folder, training="finetuned")
    assert {parameter.dtype for parameter in prior.parameters()} == {torch.float32}


def test_features_are_the_same_inside_reduced_precision(folders: dict[str, Path]) -> None:
    expected = TextPrior(folders["bert"])(["liver"]).tokens
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(TextPrior(folders["bert"])(["liver"]).tokens, expected)


def test_missing_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing", str(tmp_path / "nothing")):
        with pytest.raises(
            FileNotFoundError, match="nothing: no such folder with a text encoder; download one"
        ):
            TextPrior(source)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_incomplete_folders_are_refused(copied: Callable[[str], Path], name: str, damage: str) -> None:
    folder = copied("modernbert")
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_text("{no tensors")
    what = {"tokenizer.json": "tokenizer", "model.safetensors": "weights"}.get(name, name)
    with pytest.raises(WeightsError, match=f"modernbert: its {what} cannot be read .*needs config.json"):
        TextPrior(folder)


def test_weights_in_pytorchs_own_format_are_read_and_nothing_in_them_is_run(
    copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied("bert")
    expected = TextPrior(folder)(["liver"]).tokens
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    torch.testing.assert_close(TextPrior(folder)(["liver"]).tokens, expected)

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save({**weights, "x": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="its weights cannot be read"):
        TextPrior(folder)
    assert not (tmp_path / "run").exists()


def test_tensors_that_are_missing_or_of_another_shape_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "layer.1.attention.self.query" not in key},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(
        WeightsError, match="bert: 2 tensors are missing or of another shape, first .*query.bias"
    ):
        TextPrior(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 321}))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match="bert: 1 tensors are missing or of another shape, first .*word_embed"
    ):
        TextPrior(folder)


def test_other_architectures_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(
        WeightsError, match="is a gpt2, no text encoder that can be used; give one of modernbert"
    ):
        TextPrior(folder)


def test_attention_that_cannot_be_used_is_refused_in_one_sentence(folders: dict[str, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("FlashAttention may be there")
    with pytest.raises(ValueError, match="^flash_attention_2 needs .* a CUDA device; use attention=auto.$"):
        TextPrior(folders["modernbert"], attention="flash_attention_2")
    with pytest.raises(ValueError, match="^attention of the text prior must be auto"):
        TextPrior(folders["modernbert"], attention="fast")  # type: ignore[arg-type]


def test_a_network_moved_off_the_gpu_leaves_flash_attention(folders: dict[str, Path]) -> None:
    expected = TextPrior(folders["modernbert"])(["liver"]).tokens
    prior = TextPrior(folders["modernbert"], attention="auto")
    prior.attention = "flash_attention_2"  # as chosen beside a GPU
    assert torch.equal(prior(["liver"]).tokens, expected)
    assert prior.attention == "sdpa"
    asked_for = TextPrior(folders["modernbert"], attention="eager")
    asked_for.attention = "flash_attention_2"
    with pytest.raises(ValueError, match="^flash_attention_2 needs a CUDA device; use attention=sdpa.$"):
        asked_for(["liver"])


@pytest.mark.parametrize("family", FAMILIES)
def test_ways_of_attention_agree(folders: dict[str, Path], family: str) -> None:
    prompts = [*PROMPTS, "left right " * 20]  # longer than the local window
    eager = TextPrior(folders[family], attention="eager")(prompts)
    sdpa = TextPrior(folders[family], attention="sdpa")(prompts)
    torch.testing.assert_close(eager.tokens, sdpa.tokens, atol=1e-5, rtol=1e-5)


def test_bad_arguments_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="must be frozen, finetuned or lora, not 'half'"):
        TextPrior(folders["bert"], training="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tokens must be above 2, not 2"):
        TextPrior(folders["bert"], max_tokens=2)
    with pytest.raises(ValueError, match="a source or a layout, not both"):
        TextPrior(folders["bert"], layout="bert_base")
    with pytest.raises(TypeError, match="a sequence of prompts, not a single string"):
        TextPrior(folders["bert"])("liver")
    with pytest.raises(ValueError, match="at least one prompt"):
        TextPrior(folders["bert"])([])


#: Of the published encoders without heads.
PUBLISHED = {
    "bert_base": 107_719_680,
    "modernbert_base": 149_014_272,
    "modernbert_large": 394_781_696,
    "clip_text_b32": 63_165_952,
    "clip_text_l14": 123_060_480,
}


@pytest.mark.parametrize("layout", TEXT_LAYOUTS)
def test_layouts_have_the_published_sizes(layout: str) -> None:
    with torch.device("meta"):
        prior = TextPrior(layout=layout, training="finetuned")
    assert count_parameters(prior) == PUBLISHED[layout]


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of bert_base, .*not 'bert_huge'"):
        TextPrior(layout="bert_huge")


@pytest.mark.parametrize("folder", [EMBEDDED, EMBEDDED.with_name("text_prior_bert")])
def test_encoders_of_the_bundle_tell_words_apart(folder: Path) -> None:
    pooled = nn.functional.normalize(
        TextPrior(folder)(
            ["liver", "hepar", "spleen", "left kidney", "right kidney", "kidney on the left"]
        ).pooled,
        dim=1,
    )
    similarity = pooled @ pooled.T
    assert similarity[0, 1] > similarity[0, 2]
    assert similarity[3, 5] > similarity[4, 5]
