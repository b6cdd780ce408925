"""Write the embeddings of what is written about ECGs, once, for training to read."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser
from ecgfast.cli.predict import check_device


def options(parser: Parser) -> None:
    """Which texts, what turns them into vectors, where to."""
    parser.add_argument("stores", nargs="+", help="folders that ecgfast convert made")
    parser.add_argument("--out", required=True, help="file to write, ending in .safetensors")
    parser.add_argument(
        "--column", default="report", help="of reports, or scp_codes (default: report)"
    )
    parser.add_argument(
        "--statements", default="", help="csv that puts scp_codes into words: scp_statements.csv"
    )
    parser.add_argument(
        "--unlikely",
        type=float,
        default=0.0,
        help="percent that a likelihood of 0 counts as; PTB-XL's rhythms have 0 (default: 0, such "
        "codes are dropped)",
    )
    parser.add_argument(
        "--texts", default="", help="file of more texts, one a line: prompts for zero-shot"
    )
    parser.add_argument(
        "--model",
        default="",
        help="local folder of a transformers model, with its tokenizer; none: hashed letters",
    )
    parser.add_argument(
        "--pooling",
        choices=["tokens", "padded", "first"],
        default="tokens",
        help="mean over a text's tokens; over all places, padding included, as published; or the "
        "first token (default: tokens)",
    )
    parser.add_argument("--max_tokens", type=int, default=100, help="longer texts are cut (100)")
    parser.add_argument("--device", default="cpu", help="of the model (default: cpu)")


def run(words: Namespace) -> None:
    """Writes the file, and says how many texts it holds and what had none."""
    if Path(words.out).suffix != ".safetensors":
        raise Fail(2, f"error: --out {words.out} must end in .safetensors")
    if not 0 <= words.unlikely <= 100:
        raise Fail(2, f"error: --unlikely must lie in [0, 100], got {words.unlikely:g}")
    if words.max_tokens < 2:
        raise Fail(2, f"error: --max_tokens must be 2 or more, got {words.max_tokens}")
    check_device(words.device)
    from ecgfast.systems.texts import embed_texts, text_encoder

    encoder = text_encoder(
        words.model, pooling=words.pooling, max_tokens=words.max_tokens, device=words.device
    )
    found = embed_texts(
        words.stores,
        words.out,
        encoder,
        column=words.column,
        statements=words.statements,
        unlikely=words.unlikely,
        prompts=words.texts,
    )
    if not words.model:
        print("note     hashed letters know no meanings: --model FOLDER takes a language model")
    print(
        f"wrote    {words.out}: {found.texts} texts, {found.dim} numbers each, by {found.name}; "
        f"{found.made} of them are new"
    )
    if found.silent:
        print(f"note     nothing is written of {found.silent} of {found.records} records")
    if found.unknown:
        most = sorted(found.unknown.items(), key=lambda item: -item[1])
        some = ", ".join(f"{code} ({count})" for code, count in most[:5])
        print(f"note     {len(found.unknown)} codes are in no statement: {some}")
