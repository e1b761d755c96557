"""Configuration: checks, presets, YAML, overrides, and that no key is idle."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from bitmar_core import config as module
from bitmar_core.config import BitMarConfig, TextConfig, TrainingConfig, apply_overrides, base, from_dict, load_config, preset, small, tiny
from bitmar_core.errors import ConfigError, MissingError
from bitmar_core.safe_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "assets" / "configs" / "bitmar_coco.yaml"
SECTIONS = {item.name: type(getattr(base(), item.name)) for item in dataclasses.fields(BitMarConfig) if dataclasses.is_dataclass(getattr(base(), item.name))}
KEYS = [f"{section}.{item.name}" for section, kind in SECTIONS.items() for item in dataclasses.fields(kind)]


def docstrings() -> dict[str, str]:
    """The docstring under each field, by `section.key`, on one line."""
    found = {}
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        section = module.SECTION_NAMES.get(getattr(node, "name", ""))
        if isinstance(node, ast.ClassDef) and section is not None:
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[f"{section}.{field.target.id}"] = " ".join(text.value.value.split())
    return found


def test_every_key_has_a_docstring():
    assert [key for key in KEYS if key not in docstrings()] == []


# --- values ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"text": {"width": 15}}, ["text.width", "15", "between 16 and 8192"]),
        ({"text": {"width": 20.5}}, ["text.width", "whole number", "20.5"]),
        ({"text": {"width": True}}, ["text.width", "whole number", "True"]),
        ({"text": {"threshold": float("nan")}}, ["text.threshold", "nan", "finite"]),
        ({"text": {"threshold": float("inf")}}, ["text.threshold", "inf"]),
        ({"text": {"layout": "bret"}}, ["text.layout", "bret", "did you mean 'bert'"]),
        ({"text": {"heads": 7}}, ["text.width", "768", "text.heads", "7"]),
        ({"text": {"width": 60, "heads": 12}}, ["rotary positions need an even number"]),
        ({"decoder": {"heads": 7}}, ["text.width", "decoder.heads", "7"]),
        ({"fusion": {"heads": 7}}, ["fusion.heads"]),
        ({"reasoning": {"heads": 7}}, ["reasoning.heads"]),
        ({"vision": {"freeze": "yes"}}, ["vision.freeze", "true or false"]),
        ({"vision": {"name": 3}}, ["vision.name", "text"]),
        ({"grpo_reasoning": {"reasoning_steps": 4}}, ["grpo_reasoning.reasoning_steps", "4"]),
        ({"grpo_reasoning": {"loss": "dapoo"}}, ["did you mean 'dapo'"]),
        ({"text": 5}, ["`text` must be a mapping"]),
        ({"text": None}, ["`text` must be a mapping"]),
        ([], ["a configuration is a mapping"]),
        ({"preset": "smal"}, ["smal", "did you mean 'small'"]),
        ({"preset": ["small"]}, ["no preset"]),
    ],
)
def test_refused_values_name_file_field_and_value(data: object, words: list[str]):
    with pytest.raises(ConfigError) as caught:
        from_dict(data, where="my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("data", "nearest"),
    [
        ({"txt": {}}, "did you mean `text`?"),
        ({"training": {"learning_rat": 1e-4}}, "did you mean `training.learning_rate`?"),
        ({"grpo_reasoning": {"clip_lo": 0.1}}, "did you mean `grpo_reasoning.clip_low`?"),
        ({"memory": {"slotz": 3}}, "did you mean `memory.slots`?"),
        ({"zzzz": 1}, "known: decoder, fusion"),
        ({3: 1}, "unknown key `3`"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(data: dict, nearest: str):
    with pytest.raises(ConfigError, match="my.yaml: unknown key") as caught:
        from_dict(data, where="my.yaml")
    assert nearest in str(caught.value)


def test_whole_numbers_do_for_fractions():
    config = from_dict({"training": {"weight_decay": 0, "max_grad_norm": 2}})
    assert config.training.weight_decay == 0.0 and isinstance(config.training.max_grad_norm, float)


def test_configs_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        base().text.width = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        TextConfig("tokenizer.json")  # type: ignore[misc]


# --- presets and files ---


def test_presets_say_their_name_and_are_found_by_it():
    assert [preset(name).preset for name in ("tiny", "small", "base")] == ["tiny", "small", "base"]
    assert (preset("tiny"), preset("small"), preset("base")) == (tiny(), small(), base())


@pytest.mark.parametrize("make", [tiny, small, base])
def test_to_dict_and_back(make):
    assert from_dict(make().to_dict()) == make()


def test_left_out_keys_keep_the_preset():
    config = from_dict({"preset": "small", "text": {"max_tokens": 64}})
    assert config.text == dataclasses.replace(small().text, max_tokens=64) and config.decoder == small().decoder


def test_shipped_file_equals_base_key_by_key():
    data = read_yaml(SHIPPED, error=ConfigError)
    assert list(data) == ["preset", *SECTIONS]
    for section, kind in SECTIONS.items():
        assert list(data[section]) == [item.name for item in dataclasses.fields(kind)], section
        for key, value in data[section].items():
            assert value == getattr(getattr(base(), section), key), f"{section}.{key}"
    assert load_config(SHIPPED) == base()


def test_shipped_file_explains_every_key_as_the_code_does():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    section, known = "config", docstrings()
    for above, line in zip(lines, lines[1:], strict=False):
        key = re.match(r"( *)(\w+):", line)
        if key and not key[1]:
            section = key[2] if key[2] in SECTIONS else "config"
        if key and (key[1] or key[2] == "preset"):
            assert above.strip() == "# " + known[f"{section}.{key[2]}"], f"{section}.{key[2]}"


def test_load_config_names_file_and_mend(tmp_path: Path):
    with pytest.raises(MissingError, match="check the path"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("text:\n  widht: 64\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: unknown key `text.widht`; did you mean `text.width`?")):
        load_config(path)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("training.epochs=2", 2),
        ("training.learning_rate=1e-4", 1e-4),
        ("training.bfloat16=false", False),
        ("text.tokenizer=a=b.json", "a=b.json"),
        ("training.seed= 7", 7),
    ],
)
def test_overrides(pair: str, value: object):
    section, key = pair.split("=")[0].split(".")
    assert getattr(getattr(apply_overrides(tiny(), [pair]), section), key) == value


def test_later_overrides_win():
    assert apply_overrides(tiny(), ["training.epochs=2", "training.epochs=3"]).training == dataclasses.replace(TrainingConfig(), epochs=3)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("training.epochs", "write key=value"), ("training.epoch=2", "did you mean `training.epochs`"), ("training.epochs=-1", "between 1 and"),
        ("training.epochs=[", "--set training.epochs"), ("training=3", "must be a mapping"), ("training.epochs.x=3", "--set"), ("=3", "unknown key"),
    ],
)  # fmt: skip
def test_refused_overrides(pair: str, words: str):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(tiny(), [pair])
    assert words in str(caught.value) and "\n" not in str(caught.value)


# --- no key is idle ---


class Reads(ast.NodeVisitor):
    """Collects `section.key` for every attribute read whose left side is a section of the configuration.

    A section is recognised behind a configuration (`config.text.width`, `self.config.text.width`), by an assignment (`vision = config.vision`,
    `self.config = config.decoder`) or by an annotation (`config: TextConfig`), which hold for the class or function they stand in.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.found: set[str] = set()

    def section(self, node: ast.AST) -> str | None:
        text = ast.unparse(node)
        if text in self.names:
            return self.names[text]
        if isinstance(node, ast.Attribute) and node.attr in SECTIONS and ast.unparse(node.value).split(".")[-1] == "config":
            return node.attr
        return None

    def scope(self, node: ast.AST) -> None:
        outer = dict(self.names)
        self.generic_visit(node)
        self.names = outer

    visit_ClassDef = scope

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            kind = ast.unparse(argument.annotation).split(".")[-1] if argument.annotation else ""
            section = next((s for s, k in SECTIONS.items() if k.__name__ == kind), None)
            if section:
                self.names[argument.arg] = section
            else:
                self.names.pop(argument.arg, None)
        # Names that `__init__` gives to `self` hold for the methods after it, all others end with the function.
        outer = dict(self.names)
        self.generic_visit(node)
        self.names = outer | {name: section for name, section in self.names.items() if name.startswith("self.")}

    def visit_Assign(self, node: ast.Assign) -> None:
        targets, values = [node.targets[0]], [node.value]
        if isinstance(targets[0], ast.Tuple) and isinstance(values[0], ast.Tuple):
            targets, values = targets[0].elts, values[0].elts
        for target, value in zip(targets, values, strict=True):
            section = self.section(value) if isinstance(value, (ast.Attribute, ast.Name)) else None
            if section:
                self.names[ast.unparse(target)] = section
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        section = self.section(node.value)
        if section and node.attr in {item.name for item in dataclasses.fields(SECTIONS[section])}:
            self.found.add(f"{section}.{node.attr}")
        self.generic_visit(node)


def keys_read(source: str) -> set[str]:
    reads = Reads()
    reads.visit(ast.parse(source))
    return reads.found


def test_the_scan_tells_reads_from_namesakes():
    assert keys_read("config.text.width\nself.config.memory.slots") == {"text.width", "memory.slots"}
    assert keys_read("def f(config: TextConfig): return config.layers") == {"text.layers"}
    assert keys_read("class A:\n def __init__(self, config):\n  self.config = config.decoder\n def g(self):\n  return self.config.window") == {"decoder.window"}
    assert keys_read("seen = a.config.vision\nseen.name") == {"vision.name"}
    assert keys_read("def f(config: DecoderConfig): pass\ndef g(config): return config.layers") == set()
    assert keys_read("a, b = x.config.text, 3\na.heads") == {"text.heads"}
    assert keys_read("self.memory.write(1)\nmemory.slots\nx.width\nself.text.layers") == set()


def test_every_key_is_read_somewhere():
    found: set[str] = set()
    for package in ("bitmar_core", "bitmar_cli"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "config.py" or path.parent.name == "commands":
                found |= keys_read(path.read_text(encoding="utf-8"))
    idle = [key for key in KEYS if key not in found]
    assert idle == [], f"configuration keys that nothing reads: {', '.join(idle)}"
