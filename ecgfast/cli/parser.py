"""A strict parser: a wrong key is an error that names the file, the key and its nearest kin."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from ecgfast.cli.errors import nearest

RECIPES = Path(__file__).parent.parent / "recipes"


class Parser(ArgumentParser):
    """jsonargparse's parser, with our words for errors."""

    words: list[str]  # what is still to be parsed

    def take_word(self, name: str, known: dict[str, str]) -> str:
        """Takes the first word, which chooses what options there are.

        Args:
            name: What it is, for the help.
            known: The choices, each with a line of help.
        """
        if not self.words or self.words[0].startswith("-"):
            lines = [f"usage: {self.prog} {name.upper()} ...", ""]
            lines += [f"  {word:<12}{what}" for word, what in known.items()]
            asked = bool({"-h", "--help"} & set(self.words[:1]))
            print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
            raise SystemExit(0 if asked else 2)
        word = self.words.pop(0)
        if word not in known:
            self.error(f"no {name} is called {word}{nearest(word, known)}")
        self.prog += f" {word}"
        self.description = known[word]
        return word

    def add_config(self, system: str, config: type[Any]) -> None:
        """One option for each field of a dataclass, and files that hold the same.

        Args:
            system: Folder of packaged recipes, which `--config` knows by name.
            config: The dataclass.
        """
        self.recipes = RECIPES / system
        names = sorted(path.stem for path in self.recipes.glob("*.yaml"))
        self.add_argument(
            "--config",
            action="config",
            help=f"a YAML file, or a packaged recipe: {', '.join(names)}",
        )
        self.add_class_arguments(config, as_group=False)
        self.config_type = config

    def parse(self) -> Namespace:
        """Parses the words, or leaves with exit code 2 and a sentence."""
        words = self.words
        if hasattr(self, "config_type"):
            words = ["--fit.profile=true" if word == "--profile" else word for word in words]
        words = self._join_lists(self._resolve_recipes(words))
        known = {action.dest for action in self._actions}
        for word in words:
            key = word[2:].partition("=")[0].removesuffix("+")
            if word.startswith("--") and key and not self._knows(key, known):
                self.error(f"no option is called --{key}{nearest(key, known)}")
        options = self.parse_args(words)
        if hasattr(self, "config_type"):
            try:
                fields = {f.name for f in dataclasses.fields(self.config_type)}
                built = self.instantiate(options)
                options.built = self.config_type(
                    **{name: value for name, value in vars(built).items() if name in fields}
                )
            except ValueError as error:
                self.error(str(error))
        return options

    def _knows(self, key: str, known: set[str]) -> bool:
        return key in known or key.replace("-", "_") in known or key in ("help", "print_config")

    def _resolve_recipes(self, words: list[str]) -> list[str]:
        """`--config debug` means the packaged recipe; a file's keys are checked before use."""
        if not hasattr(self, "recipes"):
            return words
        words = [part for word in words for part in _halves(word)]
        for i in range(1, len(words)):
            if words[i - 1] != "--config":
                continue
            packaged = self.recipes / f"{words[i]}.yaml"
            if packaged.exists() and not Path(words[i]).is_file():  # a folder is no recipe
                words[i] = str(packaged)
            self._check_file(Path(words[i]))
        return words

    def _join_lists(self, words: list[str]) -> list[str]:
        """Lists as one types them, for tuples alone, become the one form that is parsed.

        ``--data.paths a b``, ``a,b``, ``[a,b]``, ``=a`` and then ``--data.paths+=b``.
        """
        tuples = {a.dest for a in self._actions if "tuple" in str(getattr(a, "_typehint", ""))}
        joined: list[str] = []
        lists: dict[str, int] = {}  # where the list of an option stands in joined
        i = 0
        while i < len(words):
            option, equals, value = words[i].partition("=")
            key = option[2:].removesuffix("+")
            i += 1
            if not (option.startswith("--") and key in tuples):
                joined.append(words[i - 1])
                continue
            values = [value] if equals else []
            while not equals and i < len(words) and not words[i].startswith("--"):
                values.append(words[i])
                i += 1
            text = _as_list(values)
            if option.endswith("+"):
                if key not in lists or not text.startswith("["):
                    self.error(f"{option}= adds to a --{key} that stands before it")
                joined[lists[key]] = f"{joined[lists[key]][:-1]}, {text[1:]}"
            else:
                joined += [option, text] if text else [option]
                lists[key] = len(joined) - 1
        return joined

    def _check_file(self, path: Path) -> None:
        if not path.is_file():
            names = sorted(p.stem for p in self.recipes.glob("*.yaml"))
            self.error(
                f"--config {path}: there is no such file, and the packaged recipes are "
                f"{', '.join(names)}{nearest(str(path), names)}"
            )
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.error(f"{path} is not YAML: {error}")
        known = {action.dest for action in self._actions}
        if content is not None and not isinstance(content, dict):
            self.error(f"{path} must hold keys and values, got a {type(content).__name__}")
        for key in _flat(content or {}):
            if key not in known:
                self.error(f"{path}: no key is called {key}{nearest(key, known)}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says what is wrong, without the page of usage."""
        sys.stderr.write(f"error: {message}\n{self.prog} --help lists what there is.\n")
        raise SystemExit(2)


def _halves(word: str) -> list[str]:
    return ["--config", word[9:]] if word.startswith("--config=") else [word]


def _as_list(values: list[str]) -> str:
    """YAML of the words after an option; what is YAML already, and null, stay as they are."""
    if len(values) == 1 and (values[0].startswith("[") or values[0] == "null"):
        return values[0]
    parts = [part for value in values for part in value.split(",")]
    return f"[{', '.join(map(_quoted, parts))}]" if values else ""


def _quoted(word: str) -> str:
    """A word that YAML cannot take for anything but a text, unless it is a number."""
    try:
        float(word)
    except ValueError:
        return json.dumps(word)
    return word


def _flat(content: dict[str, Any], before: str = "") -> list[str]:
    """Dotted names of all leaves."""
    names = []
    for key, value in content.items():
        inside = isinstance(value, dict) and value
        names += _flat(value, f"{before}{key}.") if inside else [f"{before}{key}"]
    return names
