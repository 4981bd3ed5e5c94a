"""The two languages of the site."""

ENGLISH, CHINESE = "en", "zh-CN"
LANGUAGES = (ENGLISH, CHINESE)
SWITCH = "#language-"  # what the menu of mkdocs.yml leads to, before the language


def said(pair: tuple[str, str], language: str) -> str:
    """What is said in a language, of what is said in both."""
    return pair[LANGUAGES.index(language)]


def with_switch(output: str, to_root: str, url: str) -> str:
    """A page's HTML, in which the menu of languages leads to the page at ``url`` in each, from the root of the site."""
    for language, folder in ((ENGLISH, ""), (CHINESE, f"{CHINESE}/")):
        output = output.replace(f'href="{SWITCH}{language}"', f'href="{to_root}{folder}{url}"')
    return output
