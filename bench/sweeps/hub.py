"""From what people call a model to what the axis model holds; what the Hub alone has is fetched."""

import os
from pathlib import Path

from bench.case.shapes import config_file, config_of_hub, known_name, looks_like_hub_id, named_models
from bench.errors import UserError, did_you_mean
from bench.train.hub import offline_without_network


def resolved(model: str, folder: Path) -> str:
    """A name of models.yaml for whatever it is called by; the path of a config.json, where it is relative seen from
    `folder`; or an id on the Hub, whose config.json is then on this machine. Raises UserError."""
    if name := known_name(model):
        return name
    path = os.path.normpath(folder / model)
    if file := config_file(path):
        bare = path in (".", "config.json") or path.startswith("..")
        return str(file.resolve()) if bare else path
    if "/" in model and looks_like_hub_id(model):
        fetch(model)
        return model
    names = list(named_models())
    raise UserError(
        f"model: {model!r} is neither a known model ({', '.join(names)}), nor the path of a config.json or of its"
        f" folder, nor an id on the Hugging Face Hub (owner/name).{did_you_mean(model.casefold(), names)}"
    )


def fetch(model: str) -> Path:
    """The config.json of a Hub id, fetched alone where it is not on this machine yet; kept where huggingface_hub keeps
    files, so that nobody asks the network again. Raises UserError."""
    if found := config_of_hub(model):
        return found
    given = os.environ.get("HF_HUB_OFFLINE")
    offline_without_network()
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its tries are told in the end
    try:
        return Path(hf_hub_download(model, "config.json"))
    except GatedRepoError:
        why = f"it is gated: ask for access at {constants.ENDPOINT}/{model}, then set HF_TOKEN or run: hf auth login"
    except RepositoryNotFoundError:
        why = f"{constants.ENDPOINT} knows no such model, or shows it to nobody without HF_TOKEN"
    except LocalEntryNotFoundError:
        failed = "HF_HUB_OFFLINE forbids to ask" if given else f"{constants.ENDPOINT} does not answer"
        why = f"its config.json was not fetched before, and {failed}"
    except EntryNotFoundError:
        why = "it has no config.json"
    except Exception as e:  # the library raises a dozen kinds
        told = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        why = f"{constants.ENDPOINT} did not give its config.json ({told})"
    raise UserError(
        f"model: {model!r} is no folder here, and as an id on the Hub: {why}. Valid without the Hub: a folder with"
        f" config.json, or {', '.join(named_models())}."
    )
