"""Pages on their way into a model: which it takes, how pictures are brought to that."""

from __future__ import annotations

from typing import Any

from ecgfast.config.pages import PageFit
from ecgfast.train.contract import Contract, ContractError

NO_PAGES = (
    "the run's encoder takes signals, no pictures: name the file of the recording itself, or a run "
    "whose encoder sees pages (ecgfast pretrain bcl, then ecgfast finetune --init)"
)
HERE = (
    "they are for finetune, evaluate, embed and predict with an encoder that sees pages (--init of "
    "ecgfast pretrain bcl, or --page.net); here signals are needed"
)
DRAW = (
    "the run was fine-tuned on pictures of pages, not on signals: draw a record first (ecgfast "
    "render RECORD --out page.png) and name the picture, or name a run that was fine-tuned on "
    "signals"
)


def page_of(model: dict[str, Any] | None) -> tuple[int, bool] | None:
    """Pixels of a side, and whether in grey, of the pages that an encoder sees; none if it cannot.

    Args:
        model: As a contract describes it.
    """
    if model is None or model["class"] != "PageEncoder":
        return None
    arguments = model["arguments"]
    return int(arguments.get("size", 300)), bool(arguments.get("grey", False))


def fit_of(contract: Contract, **other: Any) -> PageFit | None:
    """How a picture is brought to what a run expects; none if it takes no pages.

    As the pages that it has learned from, if it has; as drawn pages are otherwise: their shape
    kept, nothing cut.

    Args:
        contract: Of the run.
        **other: Words of ``PageFit`` that shall be others.
    """
    page = page_of(contract.model)
    if page is None:
        return None
    usual = contract.pages or PageFit(height=page[0], width=page[0], grey=page[1])
    return PageFit(**{**vars(usual), **other})


def check_pages(
    found: dict[str, PageFit], model: dict[str, Any] | None, learned: PageFit | None = None
) -> None:
    """Refuses stores of pages that an encoder cannot take, or has not learned from.

    Args:
        found: Of each store by its name.
        model: How a contract describes the encoder.
        learned: The pages that a head was fitted to, if it was.

    Raises:
        ContractError: Names what differs and what to do.
    """
    page = page_of(model)
    for what, fit in found.items():
        if page is None:
            why = NO_PAGES if model is not None else HERE
            raise ContractError(f"error[contract] {what} holds pages: {why}")
        size, grey = page
        mine = {"height": size, "width": size}
        if not grey:  # an encoder that sees grey makes it of colours itself
            mine["grey"] = False
        if learned is not None:
            mine |= learned.plain()
        theirs = fit.plain()
        differ = [name for name in mine if mine[name] != theirs[name]]
        if differ:
            lines = [
                f"  {name}: encoder expects {mine[name]}, {what} has {theirs[name]}"
                for name in differ
            ]
            wanted = PageFit(**{**vars(fit), **({} if learned is None else vars(learned))})
            wanted = PageFit(**{**vars(wanted), "height": size, "width": size, "grey": grey})
            raise ContractError(
                f"error[contract] encoder and {what} differ in {', '.join(differ)}:\n"
                + "\n".join(lines)
                + "\n  do: convert the pictures again (ecgfast convert PICTURES STORE --format "
                f"image {words_of(wanted)})"
            )


def words_of(fit: PageFit) -> str:
    """The options of ``ecgfast convert`` that make such pages."""
    crop = fit.crop if isinstance(fit.crop, str) else ",".join(f"{n:g}" for n in fit.crop)
    words = f"--size {fit.height} {fit.width} --aspect {fit.aspect} --trim {crop}"
    return words + (" --grey" if fit.grey else "")
