"""Videos on their way into a model: which clips it takes, which stores hold such."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ecgfast.config.clips import ClipFit
from ecgfast.train.contract import Contract, ContractError

NO_CLIPS = (
    "the run's encoder takes no videos: name a run whose encoder sees clips (ecgfast pretrain "
    "echoclr, then ecgfast finetune --init)"
)
HERE = "they are for an encoder that sees clips (ecgfast pretrain echoclr); here others are needed"
ONLY_CLIPS = (
    "the run's encoder sees clips of echocardiograms and nothing else: name a store of videos "
    "(ecgfast convert VIDEOS STORE --modality echo), or a run that was trained on these"
)


def clip_of(model: dict[str, Any] | None) -> tuple[int, bool] | None:
    """Pixels of a side, and whether in grey, of the frames that an encoder sees; none if it cannot.

    Args:
        model: As a contract describes it.
    """
    if model is None or model["class"] != "ClipEncoder":
        return None
    arguments = model["arguments"]
    return int(arguments.get("size", 112)), bool(arguments.get("grey", True))


def fit_of_clips(contract: Contract, **other: Any) -> ClipFit | None:
    """What a video is brought to for a run; none if it takes no videos.

    As the videos that it has learned from, if it has.

    Args:
        contract: Of the run.
        **other: Words of ``ClipFit`` that shall be others.
    """
    clip = clip_of(contract.model)
    if clip is None:
        return None
    usual = contract.clips or ClipFit(size=clip[0], grey=clip[1])
    return ClipFit(**{**vars(usual), **other})


def check_clips(
    found: dict[str, ClipFit],
    model: dict[str, Any] | None,
    learned: ClipFit | None = None,
    others: Iterable[str] = (),
) -> None:
    """Refuses stores of videos that an encoder cannot take, or has not learned from.

    Args:
        found: Of each store of videos by its name.
        model: How a contract describes the encoder; none takes signals.
        learned: The frames that it has learned from, if from any.
        others: Names of stores that hold something else.

    Raises:
        ContractError: Names what differs and what to do.
    """
    clip = clip_of(model)
    for what in others:
        if clip is not None or learned is not None:
            raise ContractError(f"error[contract] {what} holds no videos: {ONLY_CLIPS}")
    for what, fit in found.items():
        if clip is None:
            why = NO_CLIPS if model is not None else HERE
            raise ContractError(f"error[contract] {what} holds videos: {why}")
        mine = {} if learned is None else learned.plain()
        mine |= {"size": clip[0], "grey": clip[1]}
        theirs = fit.plain()
        differ = [name for name in mine if mine[name] != theirs[name]]
        if differ:
            lines = [
                f"  {name}: encoder expects {mine[name]}, {what} has {theirs[name]}"
                for name in differ
            ]
            wanted = ClipFit(**{**theirs, **mine})
            raise ContractError(
                f"error[contract] encoder and {what} differ in {', '.join(differ)}:\n"
                + "\n".join(lines)
                + "\n  do: convert the videos again (ecgfast convert VIDEOS STORE --modality echo "
                f"{words_of_clips(wanted)})"
            )


def words_of_clips(fit: ClipFit) -> str:
    """The options of ``ecgfast convert`` that make such frames."""
    words = f"--size {fit.size} --mask {fit.mask}"
    words += "" if fit.grey else " --colour"
    return words + (f" --fps {fit.fps:g}" if fit.fps else "")
