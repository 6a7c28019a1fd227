"""Jinja: the environment, its filters and globals, and how a page is rendered."""

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import latex2mathml.converter
from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from app.compression import compress

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).resolve().parents[1]  # templates and static stand beside app, here as in the installed package
STATIC = ROOT / "static"
EMPTY = "Type something, and see which tokens each token attends to."


def format_value(value: float | str | None) -> str:
    """A value as a page shows it: whole numbers in full, others in four digits.

    >>> format_value(1048576.0), format_value(0.123456), format_value("2 × 3"), format_value(None)
    ('1,048,576', '0.1235', '2 × 3', 'none')
    """
    if value is None or isinstance(value, str):
        return value or "none"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def address(state: Mapping[str, object], path: str = "/", **change: object) -> str:
    """The address of a page in this state, with some fields changed.

    >>> address({"text": "a b", "layer": 3, "query": None}, layer=4)
    '/?text=a+b&layer=4'
    """
    return f"{path}?" + urlencode({key: value for key, value in {**state, **change}.items() if value is not None})


def mathml(formula: str) -> Markup:
    """A formula in LaTeX as MathML, which browsers draw without a script."""
    return Markup(latex2mathml.converter.convert(formula, display="block"))


@cache
def modules(script: str) -> list[str]:
    """A script of static/ and every module that it imports, directly or through others.

    A page names them all in its head: otherwise a browser learns of a module only from the one that imports it.

    >>> modules("drag.js"), "store.js" in modules("home.js")
    (['drag.js'], True)
    """
    names = [script]
    for name in names:  # which grows on the way
        imports = re.findall(r'^(?:import|export)\b[^;"]*from "\./([\w.]+)";', (STATIC / name).read_text(), re.M)
        names += [module for module in dict.fromkeys(imports) if module not in names]
    return names


@cache
def templates() -> Jinja2Templates:
    """The templates; a name that a page does not have is an error."""
    environment = Environment(loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=True)
    environment.filters["mathml"] = mathml
    environment.filters["format_value"] = format_value
    environment.globals["address"] = address
    environment.globals["when_empty"] = EMPTY
    environment.globals["modules"] = modules
    return Jinja2Templates(env=environment)


def render(request: Request, template: str, page: "DataclassInstance", status: int = 200) -> Response:
    """A page: its template may use the fields of its dataclass, and nothing else."""
    context = {field.name: getattr(page, field.name) for field in fields(page)}
    return compress(request, templates().TemplateResponse(request, template, context, status_code=status))
