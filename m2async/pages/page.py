"""From a template to a page that holds all it needs: the only file that knows jinja2."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m2async.texts import moment, number, percent, plural, seconds, visible

_HERE = "m2async.pages"
_STYLE, _THEME = "style.css", "theme.js"
_CUT = 80  # characters that are shown of a text from elsewhere, unless told


class Pages:
    """The pages of a package, whose folder `templates` has them: they extend `base.html` and import `parts.html`.

    `filters` are the templates' own. Every value is escaped, and what a screen would not show, or would obey, is made
    visible.
    """

    def __init__(self, package: str, **filters: Callable[..., object]) -> None:
        self._loader = ChoiceLoader([PackageLoader(package), PackageLoader(_HERE)])
        self._environment = Environment(
            loader=self._loader,
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
        self._environment.filters.update({**_FILTERS, **filters})

    def render(
        self,
        template: str,
        *,
        styles: Sequence[str] = (),
        scripts: Sequence[str] = (),
        live: bool = False,
        **values: object,
    ) -> str:
        """Make a page.

        Arguments:
            template: its file.
            styles: the files of its own styles, behind the one that all pages have.
            scripts: the files of its scripts, which run behind its last line.
            live: whether the scripts may talk to the server that the page came from; else nothing leaves the page.
            values: what the template shows.
        """
        return self._environment.get_template(template).render(
            policy=self.policy(styles, scripts, live=live),
            style=Markup(self._style(styles)),  # noqa: S704 - files of ours
            scripts=[Markup(self._source(name)) for name in (_THEME, *scripts)],  # noqa: S704 - files of ours
            **values,
        )

    def policy(self, styles: Sequence[str] = (), scripts: Sequence[str] = (), *, live: bool = False) -> str:
        """Give the Content-Security-Policy of such a page, for a server to say in a header as well."""
        return policy([self._style(styles)], [self._source(name) for name in (_THEME, *scripts)], live=live)

    def part(self, template: str, **values: object) -> str:
        """Make a part of a page."""
        return self._environment.get_template(template).render(**values)

    def _style(self, styles: Sequence[str]) -> str:
        return "".join(map(self._source, (_STYLE, *styles)))

    def _source(self, name: str) -> str:
        return self._loader.get_source(self._environment, name)[0]


def policy(styles: Sequence[str], scripts: Sequence[str], *, live: bool = False) -> str:
    """Give the Content-Security-Policy under which these inline styles and scripts work, and nothing else.

    Source: W3C, Content Security Policy Level 3.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {' '.join(map(_hash, styles))}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            *(["connect-src 'self'"] if live else []),
        ]
    )


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def data(text: object, limit: int = _CUT) -> Markup:
    """Show a text from elsewhere: cut, visible, and apart from the text direction around it."""
    shown = str(text)
    if len(shown) > limit:
        shown = f"{shown[:limit]}…"
    return Markup("<bdi>{}</bdi>").format(visible(shown))


def _finalize(value: object) -> object:
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_FILTERS: dict[str, Callable[..., str]] = {
    each.__name__: each for each in (data, number, seconds, moment, percent, plural)
}
