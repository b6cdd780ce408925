"""Read ECG records, or pictures of them, into a store that trains fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser

STOPPED = "\nstopped; the same command goes on after the last whole shard"


def options(parser: Parser) -> None:
    """Sources, the store, its shape, how to read, what to reject, labels."""
    parser.add_argument(
        "source",
        nargs="+",
        help="folders, searched to the bottom, or files (.hea, .mat, .tar.xz; of pages .png, .jpg, "
        ".tif, .pdf; of echo DICOM, .avi, .mp4, .gif, .npy)",
    )
    parser.add_argument("store", help="folder to be made")
    parser.add_argument(
        "--modality",
        type=Literal["signal", "page", "echo"],
        default=None,
        help="signal: ECG records, the default; page: pictures of ECGs, as --format image; echo: "
        "videos of hearts",
    )
    parser.add_argument("--fs", type=float, default=250.0, help="rate of the store, Hz")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of its records")
    parser.add_argument("--leads", default="all", help="names with commas; all is the twelve")
    parser.add_argument(
        "--recipe",
        default="",
        help="named preprocessing that records at --fs go through; the store has its rate, and "
        "training names it by --signal.stored_recipe",
    )
    parser.add_argument("--records", default="", help="list of records in SOURCE, one a line")
    reading_options(parser, also=("image",))
    shaping_options(parser)
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=None,
        help="of pages: height and width in pixels; of echo: the side of a frame, else 112",
    )
    parser.add_argument("--like", default="", help="of pages and echo: as this run expects them")
    parser.add_argument("--grey", action="store_true", help="pages without colours")
    page_options(parser)
    echo_options(parser)
    parser.add_argument("--labels", default="", help="csv or parquet with a row a record")
    parser.add_argument("--id-column", default="record_id", help="its column of record ids")
    parser.add_argument(
        "--id-pattern", default="", help="expression whose group is the id: 'exam_(\\d+)'"
    )
    parser.add_argument("--patient-column", default="", help="its column of patient ids")
    parser.add_argument(
        "--study-column", default="", help="of echo: its column of study ids; study_id if there"
    )
    parser.add_argument("--sex-male", default="1", help="what its column sex calls male in numbers")
    parser.add_argument("--workers", type=int, default=-1, help="processes; -1 as many as it pays")
    parser.add_argument("--overwrite", action="store_true", help="replace the store that is there")


def shaping_options(parser: Parser) -> None:
    """What becomes of a record on its way to its shape, for all commands that read files."""
    parser.add_argument(
        "--derive-leads",
        action="store_true",
        help="compute absent III, aVR, aVL, aVF from I and II, exactly",
    )
    parser.add_argument(
        "--fill-gaps", type=float, default=0.0, help="bridge gaps of up to so many ms by lines"
    )
    parser.add_argument(
        "--crop",
        type=Literal["first", "centre"],
        default="first",
        help="what to keep of a longer record; a shorter one is followed by zeros",
    )
    parser.add_argument(
        "--min-seconds", type=float, default=0.0, help="reject records that are shorter"
    )
    parser.add_argument(
        "--policy",
        default="",
        help="ISSUE=keep or ISSUE=reject, with commas; errors are rejected, the rest is kept",
    )


def page_options(parser: Parser) -> None:
    """How pictures become pages, for all commands that read pictures."""
    parser.add_argument(
        "--trim",
        default="",
        help="of pages: none; auto trims borders of one colour; or LEFT,TOP,RIGHT,BOTTOM, shares "
        "of the page or pixels; as the run learned them, else none",
    )
    parser.add_argument(
        "--aspect",
        type=Literal["pad", "stretch", ""],
        default="",
        help="of pages: pad keeps their shape and adds paper, stretch does not; as the run learned "
        "them, else pad",
    )
    parser.add_argument("--page", type=int, default=1, help="which of a PDF or TIFF, from 1")
    parser.add_argument("--dpi", type=float, default=200.0, help="at which a PDF is drawn")


def echo_options(parser: Parser) -> None:
    """How videos become frames."""
    parser.add_argument("--colour", action="store_true", help="of echo: keep colours")
    parser.add_argument(
        "--mask",
        type=Literal["sector", "none"],
        default=None,
        help="of echo: sector, the default, blackens all but the scan; none keeps burnt-in names",
    )
    parser.add_argument(
        "--fps", type=float, default=None, help="of echo: frames a second; else as recorded"
    )
    parser.add_argument(
        "--least-frames", type=int, default=0, help="of echo: reject shorter videos; else 2"
    )
    parser.add_argument(
        "--doppler",
        type=Literal["keep", "reject"],
        default=None,
        help="of echo: colours of flow; else kept with --colour alone",
    )
    parser.add_argument(
        "--salt-file",
        default="",
        help="of echo: its text goes into the pseudonyms of patients and studies in DICOM files",
    )
    parser.add_argument(
        "--keep-ids", action="store_true", help="of echo: ids as the DICOM files have them"
    )


def reading_options(parser: Parser, also: tuple[str, ...] = ()) -> None:
    """How files are read, for all commands that read files."""
    kinds = ("auto", "wfdb", "mat", "text", *also)
    pictures = "; image: pictures of pages" if also else ""
    parser.add_argument(
        "--format",
        type=Literal[kinds],
        default="auto",
        help=f"auto: WFDB headers, or .mat where there are none{pictures}",
    )
    parser.add_argument(
        "--fs-source", type=float, default=0.0, help="rate of files without a header, Hz"
    )
    parser.add_argument("--units", default="", help="mV, uV, V: overrides what headers say")
    parser.add_argument("--gain", type=float, default=0.0, help="units of a sample in a mV")
    parser.add_argument("--leads-source", default="", help="names in the order of the files")
    parser.add_argument("--mat-key", default="", help="variable in .mat files")


def run(words: Namespace) -> None:
    """Converts and says what became of the records."""
    modality = words.modality or ("page" if words.format == "image" else "signal")
    _check_words(words, modality)
    if modality == "page":
        _run_pages(words)
        return
    if modality == "echo":
        _run_clips(words)
        return
    from ecgfast.config import LEADS, Signal
    from ecgfast.data.convert import convert

    leads = LEADS if words.leads == "all" else lead_names(words.leads, "--leads")
    try:
        signal = Signal(leads=leads, fs=words.fs, seconds=words.seconds)
        recipe = _recipe(words.recipe, signal) if words.recipe else None
    except ValueError as error:
        raise Fail(2, f"error: {error}") from None
    plan = planned(words, signal, recipe)
    try:
        outcome = convert(
            words.source, words.store, plan, records=words.records or None, **_shared(words)
        )
    except KeyboardInterrupt:
        raise Fail(1, STOPPED) from None
    _end(words, outcome)


def _check_words(words: Namespace, modality: str) -> None:
    """Refuses words that mean nothing for what is converted."""
    usual = {"fs": 250.0, "seconds": 10.0, "leads": "all", "crop": "first"}
    signal = [*usual, "recipe", "records", "fs_source", "units", "gain", "leads_source"]
    signal += ["derive_leads", "fill_gaps", "min_seconds", "mat_key"]
    page = ["grey", "trim", "aspect"]
    echo = ["colour", "mask", "fps", "least_frames", "doppler", "salt_file", "keep_ids"]
    echo += ["study_column"]
    of_others = {"signal": [*page, *echo, "size", "like"], "page": signal + echo}
    formats = {"signal": ("auto", "wfdb", "mat", "text"), "page": ("auto", "image")}
    if words.format not in formats.get(modality, ("auto",)):
        raise Fail(2, f"error: --format {words.format} is not of --modality {modality}")
    wrong = [
        name
        for name in of_others.get(modality, signal + page)
        if words[name] not in (None, "", 0, False, usual.get(name))
    ]
    if wrong:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        way = "leave out, or name another --modality (signal, page, echo)"
        raise Fail(2, f"error: {names}: not of --modality {modality}; {way}")


def _shared(words: Namespace) -> dict[str, Any]:
    """What converting signals and pictures have in common."""
    return {
        "labels": words.labels or None,
        "id_column": words.id_column,
        "id_pattern": words.id_pattern,
        "patient_column": words.patient_column,
        "sex_male": words.sex_male,
        "workers": words.workers,
        "overwrite": words.overwrite,
        "progress": _bar,
    }


def _end(words: Namespace, outcome: Any, note: str = "") -> None:
    from ecgfast.cli.inspect import report

    if outcome.was_finished:
        print(f"done     {words.store} is finished already, nothing was read")
    elif outcome.resumed_at:
        print(f"resumed  {outcome.resumed_at} of {outcome.total} records were done before")
    report(words.store, outcome.total)
    for joined in outcome.joined:
        print(joined.line())
    if not len(outcome.manifest):
        raise Fail(3, "error[no_records] every record was rejected; see above")
    lost = [joined for joined in outcome.joined if joined.rows and not joined.matched]
    if lost:
        raise Fail(
            3,
            f"error[labels] none of {lost[0].rows} rows of {lost[0].table} met a record, and "
            f"{words.store} has no labels of it: see the first ids above, name the column of ids "
            "with --id-column, and convert again with --overwrite",
        )
    if note:
        print(f"note     {note}")
    scheme = " --scheme ptbxl" if "strat_fold" in outcome.manifest else ""
    print(f"next     ecgfast split {words.store} --by patient{scheme}")


def _run_pages(words: Namespace) -> None:
    from ecgfast.data.page_convert import convert_pages

    plan = page_plan(words, _page_words(words))
    try:
        outcome = convert_pages(words.source, words.store, plan, **_shared(words))
    except KeyboardInterrupt:
        raise Fail(1, STOPPED) from None
    _end(words, outcome)


def _run_clips(words: Namespace) -> None:
    from ecgfast.data.clip_convert import convert_clips

    plan = clip_plan(words)
    shared = {**_shared(words), "study_column": words.study_column}
    try:
        outcome = convert_clips(words.source, words.store, plan, **shared)
    except KeyboardInterrupt:
        raise Fail(1, STOPPED) from None
    bare = plan.reading.pseudonyms and not plan.reading.salt
    note = "ids of patients and studies are pseudonyms without a salt: --salt-file FILE"
    dicom = (outcome.manifest["form_source"] == "DICOM").any()
    _end(words, outcome, note if bare and dicom else "")


def clip_plan(words: Namespace) -> Any:
    """What shall become of videos, from the words."""
    from ecgfast.data.checks import parse_policy
    from ecgfast.data.clip_convert import ClipPlan, read_salt
    from ecgfast.data.film import VideoReading

    asked: dict[str, Any] = {"grey": False} if words.colour else {}
    asked |= {name: words[name] for name in ("mask", "fps") if words[name] is not None}
    if words.size:
        if len(words.size) > 2 or len(set(words.size)) > 1:
            raise Fail(2, "error: frames are square: --size 112")
        asked["size"] = words.size[0]
    salt = read_salt(words.salt_file) if words.salt_file else ""
    doppler = [f"colour_doppler={words.doppler}"] if words.doppler else []
    try:
        reading = VideoReading(
            least_frames=words.least_frames or 2, pseudonyms=not words.keep_ids, salt=salt
        )
        policy = parse_policy([*filter(None, words.policy.split(",")), *doppler])
        return ClipPlan(fit=_fit_like(words, asked), reading=reading, policy=policy)
    except ValueError as error:
        text = str(error)
        raise Fail(2, text if text.startswith("error") else f"error: {text}") from None


def _fit_like(words: Namespace, asked: dict[str, Any]) -> Any:
    from ecgfast.config.clips import ClipFit

    if not words.like:
        return ClipFit(**asked)
    from ecgfast.systems.clips import NO_CLIPS, fit_of_clips
    from ecgfast.train.checkpoint import load_contract

    fit = fit_of_clips(load_contract(words.like), **asked)
    if fit is None:
        raise Fail(3, f"error[no_clips] {words.like}: {NO_CLIPS}")
    return fit


def _page_words(words: Namespace) -> dict[str, Any]:
    """Size and colours of the pages of a store."""
    if bool(words.size) == bool(words.like):
        raise Fail(2, "error: pages need a size: either --size HEIGHT WIDTH, or --like RUN")
    if words.size:
        if len(words.size) != 2:
            raise Fail(2, "error: pages have two sides: --size HEIGHT WIDTH")
        height, width = words.size
        return {"height": height, "width": width, "grey": words.grey}
    from ecgfast.systems.pages import NO_PAGES, fit_of
    from ecgfast.train.checkpoint import load_contract

    fit = fit_of(load_contract(words.like))
    if fit is None:
        raise Fail(3, f"error[no_pages] {words.like}: {NO_PAGES}")
    return {**vars(fit), **({"grey": True} if words.grey else {})}


def page_plan(words: Namespace, page: dict[str, Any]) -> Any:
    """What shall become of pictures, from the words; `page` says what they do not."""
    from ecgfast.config.pages import PageFit
    from ecgfast.data.checks import parse_policy
    from ecgfast.data.images import ImageReading
    from ecgfast.data.page_convert import PagePlan
    from ecgfast.data.page_fit import parse_crop

    asked = {"crop": parse_crop(words.trim)} if words.trim else {}
    asked |= {"aspect": words.aspect} if words.aspect else {}
    try:
        return PagePlan(
            fit=PageFit(**{**page, **asked}),
            reading=ImageReading(page=words.page, dpi=words.dpi),
            policy=parse_policy(filter(None, words.policy.split(","))),
        )
    except ValueError as error:
        text = str(error)
        raise Fail(2, text if text.startswith("error") else f"error: {text}") from None


def _recipe(name: str, signal: Any) -> Any:
    """The recipe of a name, for records of a signal."""
    from ecgfast.transforms.recipes import recipe_named
    from ecgfast.transforms.signal import OneRecord

    recipe = recipe_named(name)
    if recipe.unscaled() != recipe:
        print(f"note     {name}: its scale of a training set is left to training")
        recipe = recipe.unscaled()
    recipe.result(signal.fs, signal.samples)
    return OneRecord(recipe)


def planned(words: Namespace, signal: Any, recipe: Any = None) -> Any:
    """What shall become of records, from the words."""
    from ecgfast.data.checks import parse_policy
    from ecgfast.data.convert import Plan

    return Plan(
        signal=signal,
        recipe=recipe,
        reading=reading(words),
        policy=parse_policy(filter(None, words.policy.split(","))),
        derive=words.derive_leads,
        fill_gaps_ms=words.fill_gaps,
        crop=words.crop,
        min_seconds=words.min_seconds,
    )


def reading(words: Namespace) -> Any:
    """How files are read, from the words."""
    from ecgfast.data.records import millivolts_per
    from ecgfast.data.sources import Reading

    if words.units and millivolts_per(words.units) is None:
        raise Fail(2, f"error: --units {words.units} is no voltage; mV, uV, or V")
    if words.fs_source < 0 or words.gain < 0:
        raise Fail(2, "error: --fs-source and --gain must be positive")
    leads = lead_names(words.leads_source, "--leads-source") if words.leads_source else ()
    return Reading(
        format=words.format,
        fs=words.fs_source,
        units=words.units,
        gain=words.gain,
        leads=leads,
        mat_key=words.mat_key,
    )


def lead_names(text: str, option: str) -> tuple[str, ...]:
    """Canonical names of `I,II,avf`."""
    from ecgfast.data.records import lead_name

    names = [(word.strip(), lead_name(word)) for word in text.split(",")]
    if wrong := [word for word, name in names if name is None]:
        raise Fail(2, f"error: {option}: no lead is called {', '.join(wrong)}")
    if len({name for _, name in names}) < len(names):
        raise Fail(2, f"error: {option}: a lead is named twice")
    return tuple(name for _, name in names if name)


def _bar(results: Iterable[Any], done: int, total: int) -> Iterable[Any]:
    import sys

    from tqdm import tqdm

    return tqdm(
        results,
        desc="convert",
        initial=done,
        total=total,
        unit=" records",
        mininterval=0.5,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
