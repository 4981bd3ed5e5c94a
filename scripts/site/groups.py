"""A page for each group of the configuration, made from the files in conf/ and the rules; their comments are English."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from fmnist_lit.command_line.prepare import CONF
from fmnist_lit.config.comments import Option, read_group, read_option
from fmnist_lit.config.rules import RULES

ENGLISH, CHINESE = "en", "zh-CN"
TITLE = ("Configuration", "配置")
TITLES = {
    "data": ("Data", "数据"),
    "model": ("Models", "模型"),
    "loss": ("Losses", "损失函数"),
    "optimizer": ("Optimisers", "优化器"),
    "scheduler": ("Schedules", "学习率调度"),
    "trainer": ("Trainer", "训练器"),
    "callbacks": ("Callbacks", "回调"),
    "logger": ("Loggers", "日志"),
    "experiment": ("Experiments", "实验"),
    "study": ("Studies", "对比研究"),
    "debug": ("Debugging", "调试"),
}
WHOLE = ("experiment", "study", "debug")  # groups whose files set keys of all groups, and begin with their command
WORDS = {
    ENGLISH: {
        "index": "Each group is a folder in `conf/`, and each option a file in it: `GROUP=OPTION` chooses one, `KEY=VALUE`"
        " changes a key. A key that does not exist and a value that is not allowed are refused before anything is written."
        " These pages are made from the files and from the rules that values are checked by.",
        "groups": "Groups",
        "group": ("group", "default", "options"),
        "keys": "Keys of no group",
        "columns": ("key", "value", "may be", "comment"),
        "editor": "[Editors](../editor.md) complete all this with [a JSON Schema](../fmnist_lit.schema.json).",
        "is_default": "The default.",
        "builds_on": "Builds on {}, and changes:",
        "choose": "`{0}=NAME` chooses one of `conf/{0}/`.",
        "whole": "`{0}=NAME` chooses one of `conf/{0}/`; a key on the command line counts more than one in the file.",
    },
    CHINESE: {
        "index": "每个配置组是 `conf/` 里的一个文件夹，每个选项是其中的一个文件：`GROUP=OPTION` 选择选项，`KEY=VALUE` 修改一个键。"
        "不存在的键和不允许的取值，在写入任何文件之前就会被拒绝。本页和各配置组的页面由这些文件以及检查取值的规则生成，"
        "其中的注释是英文。",
        "groups": "配置组",
        "group": ("配置组", "默认", "选项"),
        "keys": "不属于任何组的键",
        "columns": ("键", "值", "允许的取值", "注释"),
        "editor": "借助 [JSON Schema](../fmnist_lit.schema.json)，[编辑器](../editor.md)可以补全这一切。",
        "is_default": "默认选项。",
        "builds_on": "以 {} 为基础，修改：",
        "choose": "`{0}=NAME` 选择 `conf/{0}/` 中的一个。",
        "whole": "`{0}=NAME` 选择 `conf/{0}/` 中的一个；命令行上的键优先于文件中的键。",
    },
}


def pages(language: str) -> dict[str, str]:
    """The Markdown of each page by its place on the site."""
    made = {"configuration/index.md": index(language)}
    for group in TITLES:
        made[f"configuration/{group}.md"] = page(group, language)
    return made


def place(path: str) -> str | None:
    """Where a path of conf/ is on the site, if it is."""
    group, *option = PurePosixPath(path.removesuffix(".yaml")).parts or ("config",)
    if group in TITLES:
        return f"configuration/{group}.md" + (f"#{anchor('/'.join(option))}" if option else "")
    return "configuration/index.md" if group == "config" else None


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def index(language: str) -> str:
    """The page about all groups, and the keys of none."""
    words, chosen = WORDS[language], defaults()
    rows = [
        (
            f"[`{group}`]({group}.md)",
            f"`{chosen[group]}`" if chosen.get(group, "null") != "null" else "",
            " ".join(f"[`{name}`]({group}.md#{anchor(name)})" for name, _ in options(group)),
        )
        for group in TITLES
    ]
    config = read_option(CONF / "config.yaml")
    config.entries[:] = [entry for entry in config.entries if entry.path[0] not in ("defaults", "hydra")]
    return "\n\n".join(
        [
            f"# {TITLE[which(language)]}",
            words["index"],
            words["editor"],
            f"## {words['groups']}",
            table(words["group"], rows),
            f"## {words['keys']}",
            table(words["columns"], rows_of("", config)),
            "",
        ]
    )


def page(group: str, language: str) -> str:
    """The page about a group."""
    words = WORDS[language]
    told = [f"# {TITLES[group][which(language)]}", words["whole" if group in WHOLE else "choose"].format(group)]
    for name, option in options(group):
        told += [f"## {name}", *(of_all_groups(option) if group in WHOLE else of_group(group, option, words))]
    return "\n\n".join([*told, ""])


def of_group(group: str, option: Option, words: dict) -> Iterator[str]:
    """What is said of an option that sets keys of its own group."""
    is_default = defaults()[group] == option.name
    yield " ".join([escaped(" ".join(option.comment)), *([words["is_default"]] if is_default else [])]).strip()
    joined = group == "logger" and option.name not in ("default", *read_option(CONF / group / "default.yaml").builds_on)
    value = f"'{group}=[default,{option.name}]'" if joined else f"{group}={option.name}"
    yield f"```\npython -m fmnist_lit {value}\n```"
    if option.builds_on:
        yield words["builds_on"].format(", ".join(f"[{name}](#{anchor(name)})" for name in option.builds_on))
    rows = rows_of(group, option)
    if rows:
        yield table(words["columns"], rows)


def of_all_groups(option: Option) -> Iterator[str]:
    """What is said of a file that sets keys of all groups: its command, its comment, all of it."""
    command, *comment = option.comment
    yield f"```\n{command}\n```"
    # a paragraph for what it asks, for how, and for what came out
    yield re.sub(r" (?=(Varies|Measured)\b)", "\n\n", escaped(" ".join(comment)))
    yield f"```yaml\n{option.body.strip()}\n```"


def rows_of(group: str, option: Option) -> list[tuple[str, ...]]:
    """A row for each key: its name, its value, what it may be, its comment."""
    rows = []
    for entry in option.entries:
        key = ".".join([*([group] if group else []), *entry.path])
        if entry.path[0] != "defaults" and entry.path[-1] != "_partial_":
            allowed = escaped(RULES[key].allowed) if key in RULES else ""
            rows.append((f"`{key}`", f"`{entry.value}`" if entry.value else "", allowed, escaped(entry.comment)))
    return rows


def options(group: str) -> list[tuple[str, Option]]:
    """The options of a group with their names; of those that begin with their command, also in sub-folders."""
    if group not in WHOLE:
        return [(option.name, option) for option in read_group(CONF / group)]
    folder = CONF / group
    found = [
        (file.relative_to(folder).with_suffix("").as_posix(), read_option(file)) for file in folder.rglob("*.yaml")
    ]
    return sorted((name, option) for name, option in found if option.comment[0].startswith("python "))


def defaults() -> dict[str, str]:
    """The option of each group that is chosen where nobody says anything."""
    return dict(re.findall(r"^  - (\w+): (\w+)", read_option(CONF / "config.yaml").body, re.MULTILINE))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def escaped(text: str) -> str:
    """A comment as Markdown that shows it as it is, but for what is in backticks; documents that it names are links."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]|$])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return re.sub(r"docs/(\w+)\.md", r"[\g<0>](../\1.md)", "`".join(parts))


def which(language: str) -> int:
    """The place of a language in pairs."""
    return (ENGLISH, CHINESE).index(language)
