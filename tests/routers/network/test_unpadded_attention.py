"""Attention that runs without a mask, because each text attends only to its own tokens."""

from typing import TYPE_CHECKING, Any

import pytest
import torch

from batch.routers.network.unpadded_attention import attend_to_own_tokens, end_at_first_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
LENGTHS = (9, 6, 6, 1)
KINDS = ("bert", "roberta", "xlm-roberta")


def encoder(kind: str, **more: Any) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModel

    network: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(kind, **SIZES, **more))
    return network.eval()


def classifier_of(kind: str, **more: Any) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(kind, **SIZES, num_labels=3, **more)
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return network.eval()


def batch() -> dict[str, torch.Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(3, 50, mask.shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.where(mask, ids, 1), "attention_mask": mask.long()}


def hidden(network: "PreTrainedModel") -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = network(**batch()).last_hidden_state
    return states


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_gets_what_the_mask_gives_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text's states equal those computed with a mask, and torch's kernel gets no mask."""
    torch.manual_seed(0)
    network = encoder(kind)
    masked = hidden(network)
    attend_to_own_tokens(network)
    shapes: list[tuple[int, ...]] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def seen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        shapes.append(tuple(query.shape))
        return kernel(query, key, value, scale=scale)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    own = hidden(network)
    assert shapes == [(1, 4, 9, 8), (2, 4, 6, 8), (1, 4, 1, 8)] * 2
    for row, tokens in enumerate(LENGTHS):
        torch.testing.assert_close(own[row, :tokens], masked[row, :tokens], rtol=0, atol=1e-5)
    assert own.isfinite().all()


def logits(classifier: "PreTrainedModel") -> torch.Tensor:
    with torch.inference_mode():
        given: torch.Tensor = classifier(**batch()).logits
    return given


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_computes_what_the_head_reads(kind: str) -> None:
    """The logits equal those of the whole network, but the last layer's products cover only the first tokens."""
    torch.manual_seed(0)
    classifier = classifier_of(kind, initializer_range=0.5)
    whole = logits(classifier)
    attend_to_own_tokens(classifier)
    end_at_first_token(classifier)
    rows: list[int] = []
    for layer in classifier.base_model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _, states, __: rows.append(states[0][..., 0].numel()))
    torch.testing.assert_close(logits(classifier), whole, rtol=0, atol=1e-5)
    assert whole.std(0).min() > 0.01
    assert rows == [len(LENGTHS) * max(LENGTHS), len(LENGTHS)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_keeps_its_last_layer(kind: str) -> None:
    """In a decoder tokens see only those before them, so the mask is more than padding and the scores stay."""
    torch.manual_seed(0)
    classifier = classifier_of(kind, is_decoder=True)
    whole = logits(classifier)
    attend_to_own_tokens(classifier)
    end_at_first_token(classifier)
    torch.testing.assert_close(logits(classifier), whole, rtol=0, atol=1e-5)


def test_a_network_that_masks_more_than_padding_is_left_alone() -> None:
    """ModernBERT attends to a window of tokens in some layers, so its masks stay."""
    network = encoder("modernbert", local_attention=4, pad_token_id=0)
    before = network.config._attn_implementation
    attend_to_own_tokens(network)
    assert network.config._attn_implementation == before
