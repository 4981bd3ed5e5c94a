"""What MkDocs calls to build the site: pages of the repository's documents, menus, formulas, the other language."""

import json
from pathlib import Path
from typing import Any

import formulas
import pages
from languages import CHINESE, ENGLISH, with_switch
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.structure.files import File

from fmnist_lit.schema import schema

STYLE = Path(__file__).with_name("site.css")


def language_of(config: Any) -> str:
    return CHINESE if config.theme["language"] == "zh" else ENGLISH


def on_config(config: Any) -> Any:
    config.nav = pages.navigation(language_of(config))
    return config


def on_files(files: Any, config: Any) -> Any:
    for file in [file for file in files if file.src_dir == config.docs_dir and file.src_uri.endswith((".md", ".json"))]:
        files.remove(file)
    made = {
        **pages.all_pages(language_of(config), config.repo_url),
        "fmnist_lit.schema.json": json.dumps(schema(), indent=1),
        "formulas.woff": formulas.font(),
        "site.css": STYLE.read_text(encoding="utf-8"),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(content: str, **_: Any) -> str:
    return formulas.with_mathml(content)


def on_post_page(output: str, page: Any, config: Any) -> str:
    to_root = "../" * (page.url.count("/") + (language_of(config) == CHINESE))
    return with_switch(output, to_root or "./", page.url)


def on_post_template(output: str, **_: Any) -> str:
    return with_switch(output, "/", "")  # the page for what is not there is shown anywhere


def on_post_build(config: Any) -> None:
    """After the English site, build the Chinese one into a folder of it."""
    if language_of(config) == ENGLISH:
        other = Path(config.config_file_path).with_name("mkdocs.zh-CN.yml")
        build(load_config(str(other), site_dir=str(Path(config.site_dir) / CHINESE), strict=config.strict))
