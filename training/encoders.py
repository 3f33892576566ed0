"""The text encoders that are trained with the embedded models, all of one width."""

from __future__ import annotations

from typing import Any

from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Tokenizer

WIDTH = 128


def clip(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextModel:
    """CLIP's, with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5(tokenizer: T5Tokenizer) -> dict[str, Any]:
    """What T5's config takes, and UMT5's."""
    return dict(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=2 * WIDTH,
        num_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
