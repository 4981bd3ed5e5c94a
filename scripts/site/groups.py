"""A page for each group of the configuration, made from the rules and from conf/, whose comments stay English."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from languages import said

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.comments import Option, read_group, read_option
from fmnist_lit.config.rules import RULES

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
    "study": ("Studies", "研究"),
    "debug": ("Debugging", "排查问题"),
}
WHOLE = ("experiment", "study", "debug")  # groups whose files set keys of all groups, and begin with their command
SEVERAL = ("callbacks", "logger")  # groups of which several options may be chosen at once
INTRODUCTION = (
    """\
Each group is a folder in `conf/`, and each option a file in it: `GROUP=OPTION` chooses one, `KEY=VALUE` changes a key.
A key that does not exist and a value that is not allowed are refused before anything is written. These pages are made
from the files and from the rules that values are checked by.

[Editors](../editor.md) complete all this with [a JSON Schema](../fmnist_lit.schema.json).""",
    """\
每个配置组是 `conf/` 里的一个文件夹，每个选项是其中的一个文件：`GROUP=OPTION` 选择一个选项，`KEY=VALUE` 修改一个键。
键不存在，或者取值不允许，都会在写入任何文件之前被拒绝。这些页面由这些文件和检查取值的规则生成，其中的注释是英文。

借助 [JSON Schema](../fmnist_lit.schema.json)，[编辑器](../editor.md)可以补全这一切。""",
)
GROUPS = ("Groups", "配置组")
OTHER_KEYS = ("Keys of no group", "不属于任何组的键")
CHOOSE = (
    "`{0}=NAME` chooses one of `conf/{0}/`. Each key has its value, the comment beside it and *what it may be*.",
    "`{0}=NAME` 选择 `conf/{0}/` 中的一个。每个键都列出它的值、文件中的注释，以及*允许的取值*。",
)
CHOOSE_WHOLE = (
    "`{0}=NAME` chooses one of `conf/{0}/`, whose keys count less than those on the command line.",
    "`{0}=NAME` 选择 `conf/{0}/` 中的一个；命令行上的键优先于其中的键。",
)
IS_DEFAULT = ("The default.", "默认选项。")
BUILDS_ON = ("Builds on {}, and changes:", "以 {} 为基础，修改：")
COLUMNS_OF_GROUPS = (("group", "default", "options"), ("配置组", "默认", "选项"))


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
    chosen = defaults()
    groups = [
        (
            f"[`{group}`]({group}.md)",
            f"`{chosen[group]}`" if chosen[group] != "null" else "",
            " ".join(f"[`{name}`]({group}.md#{anchor(name)})" for name, _ in options(group)),
        )
        for group in TITLES
    ]
    return "\n\n".join(
        [
            f"# {said(TITLE, language)}",
            said(INTRODUCTION, language),
            f"## {said(GROUPS, language)}",
            table(said(COLUMNS_OF_GROUPS, language), groups),
            f"## {said(OTHER_KEYS, language)}",
            keys_of("", read_option(CONF / "config.yaml")),
            "",
        ]
    )


def page(group: str, language: str) -> str:
    """The page about a group."""
    told = [f"# {said(TITLES[group], language)}"]
    told.append(said(CHOOSE_WHOLE if group in WHOLE else CHOOSE, language).format(group))
    for name, option in options(group):
        told += [f"## {name}", *(of_all_groups(option) if group in WHOLE else of_group(group, option, language))]
    return "\n\n".join([*told, ""])


def of_group(group: str, option: Option, language: str) -> Iterator[str]:
    """What is said of an option that sets keys of its own group."""
    yield escaped(" ".join(option.comment))
    if defaults()[group] == option.name:
        yield said(IS_DEFAULT, language)
    yield f"```\npython -m fmnist_lit {choice(group, option)}\n```"
    if option.builds_on:
        names = ", ".join(f"[{name}](#{anchor(name)})" for name in option.builds_on)
        yield said(BUILDS_ON, language).format(names)
    yield keys_of(group, option)


def choice(group: str, option: Option) -> str:
    """What to type to choose an option; what is not one of the usual callbacks or loggers comes beside them."""
    if group in SEVERAL:
        usual = ["default", *read_option(CONF / group / "default.yaml").builds_on]
        if option.name not in usual and "default" not in option.builds_on:
            return f"'{group}=[default,{option.name}]'"
    return f"{group}={option.name}"


def of_all_groups(option: Option) -> Iterator[str]:
    """What is said of a file that sets keys of all groups: its command, its comment, all of it."""
    command, *comment = option.comment
    yield f"```\n{command}\n```"
    # a paragraph for what it asks, for how, and for what came out
    yield re.sub(r" (?=(Varies|Measured)\b)", "\n\n", escaped(" ".join(comment)))
    yield f"```yaml\n{option.body.strip()}\n```"


def keys_of(group: str, option: Option) -> str:
    """A list of the keys: each with its value, or the class that it is made of, its comment, and what it may be."""
    classes = {entry.path[:-1]: entry.value for entry in option.entries if entry.path[-1] == "_target_"}
    items = []
    for entry in option.entries:
        if entry.path[0] in ("defaults", "hydra") or entry.path[-1] == "_partial_" or entry.path[1:] == ("_target_",):
            continue
        key = ".".join(entry.path if not group else (group, *entry.path))
        value = entry.value or classes.get(entry.path)
        allowed = f"*{escaped(RULES[key].allowed)}*" if key in RULES else ""
        told = [f"`{key}`" + (f" = `{value}`" if value else ""), escaped(entry.comment), allowed]
        items.append(f"- {'<br>'.join(filter(None, told))}")
    return "\n".join(items)


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
