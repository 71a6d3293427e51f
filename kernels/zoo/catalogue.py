"""Which architectures there are, by model_type as in config.json, and which model classes stand for each."""

import difflib
from importlib import import_module
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name

# In the order of preference: the head that people train comes before the bare model.
_HEADS = (
    "IMAGE_TEXT_TO_TEXT", "ZERO_SHOT_IMAGE_CLASSIFICATION", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM",
    "CAUSAL_LM", "CTC", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION", "OBJECT_DETECTION",
    "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "DEPTH_ESTIMATION",
    "MULTIMODAL_LM", "TIME_SERIES_PREDICTION", "QUESTION_ANSWERING", "SEQUENCE_CLASSIFICATION",
)  # fmt: skip
_LANGUAGE = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM")  # a part with one of these is a model of its own


def names() -> list[str]:
    """The architectures of a whole run: every model_type with a model, without those that are parts of another."""
    trained = {name for head in _LANGUAGE for name in _mapping(f"MODEL_FOR_{head}_MAPPING_NAMES")}
    return sorted(
        name
        for name in CONFIG_MAPPING_NAMES
        if _class_names(name) and (name in trained or model_type_to_module_name(name) == name.replace("-", "_"))
    )


def unknown(name: str) -> str | None:
    """What is wrong with a name that a person gave; None where nothing is."""
    if ":" in name:
        try:
            _planted(name)
        except (ImportError, AttributeError, ValueError) as error:
            return f"--model {name!r} names no class of a model: {error}"
        return None
    if name in CONFIG_MAPPING_NAMES and _class_names(name):
        return None
    known = [other for other in CONFIG_MAPPING_NAMES if _class_names(other)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"--model {name!r} is no model_type of transformers, nor package.module:Class.{meant}"


def classes(name: str) -> list[Any]:
    """The model classes that may stand for an architecture, the preferred one first; a planted class alone."""
    if ":" in name:
        return [_planted(name)]
    return [getattr(transformers, found) for found in _class_names(name)]


def config_class(name: str, model_class: Any) -> Any:
    """The class of an architecture's configuration."""
    if ":" in name:
        return model_class.config_class
    return getattr(transformers, CONFIG_MAPPING_NAMES[name])


def _planted(name: str) -> Any:
    module, _, attribute = name.partition(":")
    found = getattr(import_module(module), attribute)
    if not hasattr(found, "config_class"):
        raise ValueError(f"{attribute} has no config_class, expected a subclass of PreTrainedModel")
    return found


def _mapping(name: str) -> dict[str, Any]:
    return getattr(modeling_auto, name, {})


def _class_names(name: str) -> list[str]:
    found: list[str] = []
    for mapping in (*(f"MODEL_FOR_{head}_MAPPING_NAMES" for head in _HEADS), "MODEL_MAPPING_NAMES"):
        entry = _mapping(mapping).get(name, ())
        found += [entry] if isinstance(entry, str) else list(entry)
    return list(dict.fromkeys(found))
