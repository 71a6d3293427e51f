"""Inputs for a model, from the names in its forward's signature and the sizes in its configuration."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .configs import FIRST_SPECIAL

BATCH, TOKENS, FRAMES, SAMPLES = 2, 12, 32, 4000

Inputs = dict[str, Any]


def candidates(model: nn.Module) -> Iterator[Inputs]:
    """Inputs to be tried in turn: every modality together first, then what the model says is its main one."""
    names = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    required = {n for n, p in names.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    known = [name for name in names if name in _MAKERS or name in _MEDIA]
    media = [name for name in known if name in _MEDIA]
    if "pixel_values" in media and main != "pixel_values_videos":
        media = [name for name in media if name != "pixel_values_videos"]  # a video is one image more
    if "input_values" in media and "input_features" in media:
        media = [name for name in media if name != "input_features"]  # either samples or their spectrogram
    fixed = {name: _MAKERS[name](model) for name in known if name in _MAKERS and (name in _ALWAYS or name in required)}
    tried: list[Inputs] = []
    for chosen in (media, [name for name in media if name == main or name in required], media[:1], []):
        for found in _with_media(model, fixed, chosen):
            signature = {name: getattr(value, "shape", value) for name, value in found.items()}
            if signature not in tried and required <= set(found) | {"kwargs"} and found:
                tried.append(signature)
                yield found | ({"use_cache": False} if "use_cache" in names else {})


def missing(model: nn.Module) -> str:
    """The inputs without a default that this module cannot make, by name."""
    names = inspect.signature(model.forward).parameters
    required = [n for n, p in names.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return ", ".join(name for name in required if name not in _MAKERS and name not in _MEDIA)


def _with_media(model: nn.Module, fixed: Inputs, media: list[str]) -> Iterator[Inputs]:
    if not media:
        yield dict(fixed)
        return
    first, *rest = media
    for made in _MEDIA[first](model):
        aligned = _aligned(model, fixed, first, made)
        for ready in (aligned, fixed) if aligned is not None else (fixed,):
            for found in _with_media(model, ready, rest):
                yield {**made, **found}


def _aligned(model: nn.Module, fixed: Inputs, first: str, made: Inputs) -> Inputs | None:
    """The inputs with as many placeholder tokens as the model makes features of the image or the sound."""
    kind = "image" if "pixel" in first else "audio"
    token = field(model.config, f"{kind}_token_id", f"{kind}_token_index")
    ids = fixed.get("input_ids")
    if not isinstance(token, int) or ids is None:
        return None
    for owner in (model, getattr(model, "model", None)):
        features = getattr(owner, f"get_{kind}_features", None)
        if features is None:
            continue
        takes = inspect.signature(features).parameters
        try:
            with torch.no_grad():
                rows = _rows(features(**{name: value for name, value in made.items() if name in takes}))
        except Exception:  # a candidate that does not fit: the next one may
            return None
        count = rows // BATCH
        placed = torch.cat([ids[:, :2], torch.full((BATCH, count), token), ids[:, 2:]], 1)
        found = {**fixed, "input_ids": placed}
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in inspect.signature(model.forward).parameters:
                found[name] = (placed == token).long()
        return found
    return None


def _rows(found: Any) -> int:
    """How many feature vectors there are in what get_image_features or get_audio_features returns."""
    if isinstance(found, Tensor):
        return found.numel() // found.shape[-1]
    pooled = getattr(found, "pooler_output", None)
    if pooled is not None:
        return _rows(pooled)
    if isinstance(found, list | tuple):
        return sum(_rows(item) for item in found if isinstance(item, Tensor))
    return _rows(found[0])


def field(config: Any, *names: str, within: tuple[str, ...] = ("",), default: Any = None) -> Any:
    """The first of these fields that is set, in the configurations `within` it first, then in itself and all others."""
    parts = [value for key, value in vars(config).items() if hasattr(value, "to_dict")]
    preferred = [getattr(config, part) for part in within if part and hasattr(getattr(config, part, None), "to_dict")]
    for owner in (*preferred, config, *parts):
        for name in names:
            value = getattr(owner, name, None)
            if value is not None:
                return value
    for part in parts:
        value = field(part, *names, within=within)
        if value is not None:
            return value
    return default


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _ids(model: nn.Module, tokens: int = TOKENS, seed: int = 1) -> Tensor:
    vocab = field(model.config, "vocab_size", within=("text_config", "decoder"), default=FIRST_SPECIAL)
    top = min(vocab if isinstance(vocab, int) else FIRST_SPECIAL, FIRST_SPECIAL)
    low = 5 if top > 10 else 0
    return torch.randint(low, top, (BATCH, tokens), generator=torch.Generator().manual_seed(seed))


def _boxes(_model: nn.Module) -> Tensor:
    corner = torch.arange(TOKENS).view(1, -1, 1).expand(BATCH, TOKENS, 2)
    return torch.cat([corner, corner + 3], -1)


def _pair(value: Any) -> tuple[int, int]:
    return (value[-2], value[-1]) if isinstance(value, list | tuple) and len(value) > 1 else (_one(value), _one(value))


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, list | tuple) else int(value)


def _images(model: nn.Module) -> Iterator[Inputs]:
    config, vision = model.config, ("vision_config", "backbone_config", "encoder", "vision_encoder")
    channels = _one(field(config, "num_channels", "in_channels", "in_chans", within=vision, default=3))
    size = field(config, "image_size", "img_size", "input_size", within=vision, default=64)
    height, width = _pair(size) if not isinstance(size, dict) else (size["height"], size["width"])
    names = inspect.signature(model.forward).parameters
    if "image_grid_thw" in names or "grid_thw" in names:
        patch = _one(field(config, "patch_size", "spatial_patch_size", within=vision, default=14))
        merge = _one(field(config, "spatial_merge_size", within=vision, default=2))
        depth = _one(field(config, "temporal_patch_size", within=vision, default=1))
        grid = torch.tensor([[1, 2 * merge, 2 * merge]] * BATCH)
        patches = BATCH * (2 * merge) ** 2
        key = "image_grid_thw" if "image_grid_thw" in names else "grid_thw"
        yield {"pixel_values": _random(patches, channels * depth * patch * patch), key: grid}
        yield {"pixel_values": _random(patches, channels, patch, patch), key: grid}
    if "spatial_shapes" in names:  # patches of images of any size, each a row
        side = _one(field(config, "patch_size", within=vision, default=16))
        shapes = torch.tensor([[4, 4]] * BATCH)
        mask = {"pixel_attention_mask": torch.ones(BATCH, 16, dtype=torch.long)}
        yield {"pixel_values": _random(BATCH, 16, channels * side * side), "spatial_shapes": shapes, **mask}
    frames = _one(field(config, "num_frames", "frames_per_clip", within=vision, default=1))
    sizes = {"image_sizes": torch.tensor([[height, width]] * BATCH)}
    for shape in ((), (frames,), (1, 1)):
        pixels = {"pixel_values": _random(BATCH, *shape, channels, height, width)}
        yield pixels
        if "image_sizes" in names:
            yield pixels | sizes


def _patches(model: nn.Module) -> Iterator[Inputs]:
    """Patches (batch, patches, 2 + pixels), each with its row and its column in front."""
    vision = ("vision_config",)
    side = _one(field(model.config, "patch_size", within=vision, default=16))
    place = torch.cartesian_prod(torch.arange(1.0, 5), torch.arange(1.0, 5)).expand(BATCH, 16, 2)
    yield {"flattened_patches": torch.cat([place, _random(BATCH, 16, 3 * side * side)], -1)}


def _videos(model: nn.Module) -> Iterator[Inputs]:
    for made in _images(model):
        if made["pixel_values"].dim() == 5:
            yield {"pixel_values_videos": made["pixel_values"]}


def _features(model: nn.Module) -> Iterator[Inputs]:
    config, audio = model.config, ("audio_config", "encoder", "speech_encoder")
    bins = _one(
        field(config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim",
              "input_feat_size", "num_features", "mel_bins", within=audio, default=80)
    )  # fmt: skip
    positions = field(config, "max_source_positions", within=audio)
    frames = 2 * positions if isinstance(positions, int) and positions <= 50 else 64
    yield {"input_features": _random(BATCH, bins, frames)}
    yield {"input_features": _random(BATCH, frames, bins)}
    masks = {"attention_mask": torch.ones(BATCH, frames, dtype=torch.long)}
    yield {"input_features": _random(BATCH, frames, bins), **masks}
    yield {"input_features": _random(BATCH, 1, frames, bins)}


def _values(model: nn.Module) -> Iterator[Inputs]:
    config: Any = model.config
    if hasattr(config, "max_length") and hasattr(config, "num_mel_bins"):  # a spectrogram as an image
        yield {"input_values": _random(BATCH, config.max_length, config.num_mel_bins)}
    yield {"input_values": _random(BATCH, SAMPLES)}
    yield {"input_values": _random(BATCH, 1, SAMPLES)}


_MAKERS: dict[str, Any] = {
    "input_ids": _ids,
    "decoder_input_ids": lambda model: _ids(model, 7, 2),
    "qformer_input_ids": lambda model: _ids(model, 6, 3),
    "bbox": _boxes,
    "past_values": lambda model: _series(model, "past"),
    "past_time_features": lambda model: _series(model, "past", True),
    "past_observed_mask": lambda model: torch.ones_like(_series(model, "past")),
    "future_values": lambda model: _series(model, "future"),
    "future_time_features": lambda model: _series(model, "future", True),
    "states": lambda model: _random(BATCH, TOKENS, field(model.config, "state_dim")),
    "actions": lambda model: _random(BATCH, TOKENS, field(model.config, "act_dim")),
    "rewards": lambda model: _random(BATCH, TOKENS, 1),
    "returns_to_go": lambda model: _random(BATCH, TOKENS, 1),
    "timesteps": lambda model: torch.arange(TOKENS).expand(BATCH, TOKENS),
    "visual_feats": lambda model: _random(BATCH, 4, model.config.visual_feat_dim),
    "visual_pos": lambda model: _random(BATCH, 4, model.config.visual_pos_dim),
}
_ALWAYS = {
    "input_ids", "decoder_input_ids", "bbox", "past_values", "past_time_features", "past_observed_mask",
    "future_values", "future_time_features", "states", "actions", "rewards", "returns_to_go", "timesteps",
    "visual_feats", "visual_pos",
}  # fmt: skip
_MEDIA: dict[str, Any] = {
    "pixel_values": _images,
    "pixel_values_videos": _videos,
    "flattened_patches": _patches,
    "input_features": _features,
    "input_values": _values,
}


def _series(model: nn.Module, which: str, features: bool = False) -> Tensor:
    """Values (batch, time, channels) or (batch, time) of a time series, or its time features."""
    config: Any = model.config
    length = config.prediction_length if which == "future" else config.context_length
    if which == "past" and hasattr(config, "lags_sequence"):
        length += max(config.lags_sequence)
    if features:
        return _random(BATCH, length, config.num_time_features)
    if hasattr(config, "num_input_channels"):
        return _random(BATCH, length, config.num_input_channels)
    channels = getattr(config, "input_size", 1)
    return _random(BATCH, length) if channels == 1 else _random(BATCH, length, channels)
