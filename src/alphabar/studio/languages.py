"""What is on the page stays when the page is loaded in the other language.

The two languages are two pages of Gradio, which share nothing. Both are built by the same code: the values of
their controls and states go from one to the other in the same order, through the server and by a ticket that
only the browser's tab knows.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gradio as gr

from alphabar.studio.elements import note
from alphabar.studio.page import LIGHT, ONE_AT_A_TIME, Page, Tab

MOST_KEPT = 32  # pages that are left and not yet loaded again


class Left(NamedTuple):
    """A page that was left. values: of each tab's `kept`."""

    model: str | None
    values: tuple[Sequence[Any], ...]


class LeftPages:
    """The pages that were left, each until it is loaded again, and at most `MOST_KEPT`."""

    def __init__(self) -> None:
        self._pages: dict[str, Left] = {}
        self._lock = threading.Lock()

    def put(self, page: Left) -> str:
        """The ticket of a page."""
        ticket = secrets.token_urlsafe(16)
        with self._lock:
            self._pages[ticket] = page
            while len(self._pages) > MOST_KEPT:
                del self._pages[next(iter(self._pages))]
        return ticket

    def take(self, ticket: str | None) -> Left | None:
        """The page of a ticket, once, or None where there is none any more."""
        with self._lock:
            return self._pages.pop(ticket or "", None)


class LanguageChange:
    """What a page shows when it appears, the link to the other language, and the choice of another model.

    model: the choice of the model. model_facts: the line about it. tabs: of the page.

    Everything that a page shows when it appears comes in one answer, so that no event can overtake another.
    The script of the page opens the tab that was open, and holds the controls until that answer is there.
    """

    def __init__(
        self, page: Page, model: gr.Dropdown, model_facts: gr.HTML, tabs: Sequence[Tab], left: LeftPages
    ):
        self.page, self.model, self.model_facts, self.left, self.tabs = page, model, model_facts, left, tabs
        self.adapted = gr.State(None)  # the name of the model that the controls are adapted to
        # Clicked and read by the script of the page.
        self.ticket = gr.Textbox("", visible=False)
        self.leave_button = gr.Button("", elem_id="leave", visible="hidden")
        self._connect()

    def _connect(self) -> None:
        page, model, ticket = self.page, self.model, self.ticket
        kept = [component for tab in self.tabs for component in tab.kept]
        adapted = [self.adapted, self.model_facts, *(part for tab in self.tabs for part in tab.adapted)]
        shown = [model, *adapted, *kept, *(part for tab in self.tabs for part in tab.views)]
        leaving = self.leave_button.click(
            page.handler(self.leave, self.model_facts), [model, *kept], [ticket, self.model_facts], **LIGHT
        )
        leaving.then(None, ticket, None, js="(ticket) => window.goToLanguage(ticket)")
        appearing = page.blocks.load(
            page.handler(self.appear, self.model_facts),
            [ticket, model],
            _each_once(shown),
            js="(ticket, model) => [window.arriving(), model]",
            **ONE_AT_A_TIME,
        )
        appearing.then(None, None, None, js="() => window.arrived()")
        model.change(page.handler(self.adapt), [model, self.adapted], _each_once(adapted), **ONE_AT_A_TIME)

    def adapt(self, name: str | None, adapted: str | None) -> Iterator[dict[Any, Any]]:
        """All tabs adapted to another model. adapted: the one that they are adapted to already."""
        if name == adapted:  # the change came with the page itself
            yield {self.adapted: name}
        else:
            yield self._adaptation(name)

    def _adaptation(self, name: str | None) -> dict[Any, Any]:
        if name not in self.page.models.models():
            text = self.page.text("no_model", folder=self.page.models.path)
            return {self.adapted: name, self.model_facts: note(text)}
        model = self.page.models.load(name)
        updates: dict[Any, Any] = {self.adapted: name}
        for tab in self.tabs:
            updates |= tab.adapt(model)
        return updates

    def leave(self, name: str | None, *values: Any) -> Iterator[dict[Any, Any]]:
        """A ticket for what is on the page."""
        kept, rest = [], list(values)
        for tab in self.tabs:
            kept.append(tab.keep(rest[: len(tab.kept)]))
            del rest[: len(tab.kept)]
        yield {self.ticket: self.left.put(Left(name, tuple(kept)))}

    def appear(self, ticket: str | None, name: str | None) -> Iterator[dict[Any, Any]]:
        """The tabs adapted to the model, with what was on the page that was left."""
        left, known = self.left.take(ticket), self.page.models.models()
        if left is not None and left.model in known:
            name = left.model
        elif name not in known:
            name = next(iter(known), None)
        updates = {self.model: gr.update(choices=known, value=name), **self._adaptation(name)}
        if left is not None:
            for tab, values in zip(self.tabs, left.values, strict=True):
                shown = dict(zip(tab.kept, values, strict=True))
                if name and name == left.model:
                    shown |= tab.show_kept(self.page.models.load(name), values)
                updates |= {part: _merged(updates.get(part), update) for part, update in shown.items()}
        yield updates


def _each_once(components: Sequence[Any]) -> list[Any]:
    return list({component._id: component for component in components}.values())


def _merged(first: Any, second: Any) -> Any:
    """An update with which a component is as after both. second: an update or a value."""
    if not _is_update(first):
        return second
    return {**first, **(second if _is_update(second) else gr.update(value=second))}


def _is_update(value: Any) -> bool:
    """Whether this is Gradio's update of a component, rather than the component's value."""
    return isinstance(value, dict) and value.get("__type__") == "update"
