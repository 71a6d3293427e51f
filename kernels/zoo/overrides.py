"""What the rules of configs.py cannot know: fields of single architectures, and configurations made of others."""

from collections.abc import Callable
from typing import Any

from transformers import (
    BertConfig,
    EncoderDecoderConfig,
    SpeechEncoderDecoderConfig,
    VisionEncoderDecoderConfig,
    VisionTextDualEncoderConfig,
    ViTConfig,
    Wav2Vec2Config,
)

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1}
_EFFICIENT = {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640}
_TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 128,
}
_FOUR_STAGES = {
    "num_hidden_layers": 4,
    "out_indices": [1, 2, 3, 4],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_SAM = {
    "vision_config": {"output_channels": 64, "num_pos_feats": 32, "global_attn_indexes": [1]},
    "prompt_encoder_config": {"image_size": 64, "image_embedding_size": 4},
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "align": {"vision_config": {**_EFFICIENT, "hidden_dim": 256}},
    "autoformer": _SERIES,
    "chameleon": {"vocabulary_map": {"<image>": 8}},
    "depth_anything": {"backbone_config": _FOUR_STAGES},
    "prompt_depth_anything": {"backbone_config": _FOUR_STAGES},
    "cvt": {"depth": [1, 2, 3]},
    "sam": _SAM,
    "sam_hq": _SAM,
    "zoedepth": {"backbone_config": _FOUR_STAGES, "bottleneck_features": 64},
    "tipsv2_dpt": {"backbone_config": _FOUR_STAGES},
    "gemma3": {"mm_tokens_per_image": 4},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "deepseek_v2": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}},
    "efficientnet": _EFFICIENT,
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "falcon_h1": {"mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "informer": _SERIES,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8},
    "patchtsmixer": {"context_length": 32},
    "reformer": {"axial_pos_embds_dim": [16, 48], "axial_pos_shape": [4, 4], "attn_layers": ["local", "lsh"]},
    "time_series_transformer": _SERIES,
}

#: Architectures whose configuration class has no default of its own.
MADE: dict[str, Callable[[], Any]] = {
    "encoder-decoder": lambda: EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**_TEXT), BertConfig(**_TEXT)
    ),
    "vision-encoder-decoder": lambda: VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**_TEXT, image_size=64), BertConfig(**_TEXT)
    ),
    "speech-encoder-decoder": lambda: SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**_TEXT, conv_dim=[32] * 7, apply_spec_augment=False), BertConfig(**_TEXT)
    ),
    "vision-text-dual-encoder": lambda: VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**_TEXT, image_size=64), BertConfig(**_TEXT)
    ),
}
