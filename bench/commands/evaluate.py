"""python -m bench evaluate, from its flags to accuracy.json."""

import json
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.accuracy.partial import Count, Partial
from bench.accuracy.progress import Watch
from bench.accuracy.question import MakeScorer, Piece, Scorer, fingerprint, read_pieces
from bench.accuracy.result import summary, table_row
from bench.again import to_go_on
from bench.errors import UserError, install, one_of
from bench.files import replace_file
from bench.folder import hold, usable
from bench.locks import Taken
from bench.process import output_failure, terminate_as_interrupt
from bench.reading import is_there
from bench.record.environment import version
from bench.record.store import now
from bench.terminal import output, say
from bench.train.adapter import adapter_in
from bench.train.folder import ACCURACY, BOARD, RESULT, SETTINGS
from bench.train.hub import offline_where_all_is_here
from bench.train.load import load_trained_model, stands_on
from bench.train.plan import called, device_word
from bench.train.result import read_result

DEVICES = ("auto", "cpu", "cuda")
PACKAGES = ("torch", "transformers", "peft", "lm_eval", "datasets")
SIZE = 256  # items of a piece: what a cut-off costs at most, and how often the bar moves


def evaluate(
    source: str,
    data: str,
    shots: int,
    batch: int,
    limit: int | None,
    device: str,
    out: Path | None,
    make_scorer: MakeScorer | None = None,
    size: int = SIZE,
) -> int:
    """Evaluates a folder of `bench train`, a checkpoint folder or a Hub id on MMLU; prints Table 2's row.

    Writes accuracy.json into `out`, by default the folder of `bench train`. Returns the exit status: 0, or 130 where
    it was interrupted; the same command then goes on. make_scorer: what answers, by default lm-evaluation-harness;
    size: items answered between two writes to disk. Raises UserError before anything is changed.
    """
    if device not in DEVICES:
        raise UserError(one_of("--device", device, DEVICES))
    trained = _trained(source)
    folder = out or (Path(source) if trained else None)
    if folder is None:
        raise UserError(f"{source}: {_why_not_trained(Path(source))}; say with --out where accuracy.json goes")
    usable("--out", folder)
    if make_scorer is None and find_spec("lm_eval") is None:
        raise UserError(
            f"evaluate needs lm-evaluation-harness, which is not installed. Install it: {install('accuracy')}"
        )
    offline_where_all_is_here(source, data, trained.get("model_path") or stands_on(source))
    say(f"{called(source)}: {shots}-shot, {device_word(device)}; reading {called(data)}")
    pieces = read_pieces(data, shots, limit, max(size, batch))

    say(f"{sum(len(p.items) for p in pieces):,} items; loading the model")
    place = _device(device)
    model, tokenizer = _load(source, place)
    if make_scorer is None:
        say("loading lm-evaluation-harness")
    scorer = (make_scorer or _harness())(model, tokenizer, batch)
    settings = {
        "source": _identity(source, model),
        "data": fingerprint(pieces),
        "shots": shots,
        "size": max(size, batch),
        "device": place,
        "dtype": str(model.dtype),
        "versions": {p: version(p) for p in PACKAGES},
    }
    try:
        with terminate_as_interrupt() as came, hold(folder):
            partial = Partial(folder / "accuracy.partial.jsonl", settings, pieces)
            if not _answer(pieces, scorer, partial, batch, size):
                return 128 + (came[0] if came else signal.SIGINT)
            result = {
                "strategy": trained.get("strategy") or _strategy(source),
                "model": trained.get("model", source),
                "source": source,
                "data": data,
                "shots": shots,
                "limit": limit,
                "by": "lm-eval",
                "device": place,
                "dtype": str(model.dtype).removeprefix("torch."),
                **summary(partial.counts.values()),
                "finished": now(),
                "versions": settings["versions"],
            }
            replace_file(folder / ACCURACY, json.dumps(result, indent=1) + "\n")
            partial.remove()
            if trained:
                _write_board(folder)
    except Taken as e:
        raise UserError(f"--out {folder}: another process is at work in it ({e.process}).") from None
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror}; accuracy.json was not written") from None
    _show(result, folder)
    return 0


def _answer(pieces: list[Piece], score: Scorer, partial: Partial, batch: int, size: int) -> bool:
    """Lets the model answer what is still open. Returns whether it came to the end."""
    open_pieces = [p for p in pieces if p.key not in partial.counts]
    last = {p.subject: p for p in open_pieces}
    total, left = (sum(len(p.items) for p in group) for group in (pieces, open_pieces))
    with Watch(total, total - left) as watch:
        if left < total:
            watch.say(f"{total - left} of {total} items were answered before; going on")
        try:
            for piece in open_pieces:
                watch.begin(piece.subject)
                outcomes = score(piece)
                right, cut = sum(o.right for o in outcomes), sum(o.cut for o in outcomes)
                partial.add(piece, Count(piece.subject, len(outcomes), right, cut))
                watch.finish(len(outcomes))
                if piece is last[piece.subject]:
                    mine = [c for c in partial.counts.values() if c.subject == piece.subject]
                    watch.subject(piece.subject, sum(c.correct for c in mine), sum(c.items for c in mine))
        except KeyboardInterrupt:
            watch.say(f"interrupted; finished pieces are on disk. To go on: {to_go_on()}")
            return False
        except Exception as e:
            if not _is_out_of_memory(e):
                raise
            kept = "" if batch > size else ", finished pieces are kept"  # the size of pieces may not change
            raise UserError(f"--batch {batch}: out of memory; pass a smaller one{kept}") from None
    return True


def _trained(source: str) -> dict[str, Any]:
    """train.json of a folder that bench train wrote; empty for any other checkpoint."""
    return read_result(Path(source)) if is_there((Path(source) / RESULT).is_file) else {}


def _why_not_trained(folder: Path) -> str:
    if not is_there(folder.is_dir):
        return "no folder here (a Hub id?)"
    if (folder / SETTINGS).is_file():
        return "its training is not finished; give the same bench train again. To evaluate another checkpoint"
    return "no train.json in it, so no folder of bench train"


def _strategy(source: str) -> str | None:
    """What a checkpoint without train.json stands for in Table 2: a plain one is the row No tuning."""
    return None if adapter_in(Path(source)) else "no-tuning"


def _device(flag: str) -> str:
    import torch

    here = "cuda" if torch.cuda.is_available() else "cpu"
    if flag == "cuda" and here == "cpu":
        raise UserError("--device cuda: torch finds no GPU here. Pass --device cpu, or auto.")
    return here if flag == "auto" else flag


def _load(source: str, device: str) -> tuple[Any, Any]:
    try:
        model, tokenizer = load_trained_model(source, device)
    except Exception as e:
        if not _is_out_of_memory(e):
            raise
        other = ", or --device cpu" if device == "cuda" else ""
        raise UserError(f"{source}: the model does not fit into the memory here; use a larger machine{other}") from None
    return model.eval(), tokenizer


def _harness() -> MakeScorer:
    from bench.accuracy.harness import harness_scorer

    return harness_scorer


def _identity(source: str, model: Any) -> dict[str, Any]:
    """What tells these weights from others: a folder's files with size and time, or the Hub's commit."""
    kinds = (".safetensors", ".bin", ".json")
    files = sorted(p for p in Path(source).rglob("*") if p.suffix in kinds and p.is_file())
    listed = {str(p.relative_to(source)): (s.st_size, s.st_mtime_ns) for p in files for s in (p.stat(),)}
    own = {k: list(v) for k, v in listed.items() if not k.startswith("accuracy.")}
    return {"name": source, "files": own, "commit": getattr(model.config, "_commit_hash", None)}


def _write_board(folder: Path) -> None:
    """Accuracy beside the curves of a trained folder. accuracy.json is there: that TensorBoard is not is no failure."""
    if (folder / RESULT).is_file() and version("tensorboard"):
        from bench.train.board import write_board

        try:
            write_board(folder)
        except OSError as e:
            say(f"{folder / BOARD}: {e.strerror or e}; TensorBoard does not show this accuracy")


def _is_out_of_memory(e: Exception) -> bool:
    import torch

    return isinstance(e, torch.OutOfMemoryError) or "not enough memory" in str(e)


def _show(result: dict[str, Any], folder: Path) -> None:
    output().print(table_row(result))
    output_failure(spare=True)
    how = f"{result['shots']}-shot, by {result['by']}"
    part = f", the first {result['limit']} of each subject" if result["limit"] else ""
    say(
        f"{result['correct']} of {result['items']} items right{part} ({how}; percent ± standard error; the average is"
        f" over items, the mean of the categories is {result['category_mean']:.2f}): {folder / 'accuracy.json'}"
    )
    if result["cut"]:
        say(f"{result['cut']} prompts were longer than the model's window and lost their beginning")
