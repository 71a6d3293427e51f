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
_SERIES = {"prediction_length": 4, "context_length": 8}
_EFFICIENT = {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640}
_TEXT: dict[str, Any] = {
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
_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
_SAM = {
    "vision_config": {"output_channels": 64, "num_pos_feats": 32, "global_attn_indexes": [1]},
    "prompt_encoder_config": {"image_size": 64, "image_embedding_size": 4},
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "align": {"projection_dim": 160, "vision_config": {**_EFFICIENT, "hidden_dim": 256}},
    "autoformer": _SERIES,
    "blip-2": {"image_token_index": 101},
    "chameleon": {"vocabulary_map": {"<image>": 8}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"], "n_routed_experts": 4}},
    "deepseek_v2": _EXPERTS,
    "depth_anything": {"backbone_config": _FOUR_STAGES},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}},
    "dots1": _EXPERTS,
    "efficientnet": _EFFICIENT,
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "falcon_h1": {"mamba_d_head": 16},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "gemma3": {"mm_tokens_per_image": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm4v_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "index_topk": 16}},
    "informer": _SERIES,
    "instructblip": {"image_token_index": 101},
    "instructblipvideo": {"video_token_index": 101},
    "janus": {"vq_config": {"base_channels": 32}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8},
    "mimi": {"upsample_groups": 64},
    "patchtsmixer": {"context_length": 32},
    "prompt_depth_anything": {"backbone_config": _FOUR_STAGES},
    "sam": _SAM,
    "sam_hq": {**_SAM, "mask_decoder_config": {"vit_dim": 64}},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "time_series_transformer": _SERIES,
    "tipsv2_dpt": {"backbone_config": _FOUR_STAGES},
    "zoedepth": {"backbone_config": _FOUR_STAGES, "bottleneck_features": 64},
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
