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
    """A page that was left. tab: that was open. values: of each tab's `kept`."""

    model: str | None
    tab: str
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

    def of(self, ticket: str | None) -> Left | None:
        """The page of a ticket, or None where there is none any more."""
        with self._lock:
            return self._pages.get(ticket or "")

    def forget(self, ticket: str | None) -> None:
        """Keep the page of a ticket no longer."""
        with self._lock:
            self._pages.pop(ticket or "", None)


class LanguageChange:
    """The link to the other language, and the arrival from there. model: the choice of the model.

    container: the tabs of the page. tabs: what they hold, by their names. model_facts: the line about the
    model.
    """

    def __init__(
        self,
        page: Page,
        model: gr.Dropdown,
        model_facts: gr.HTML,
        container: gr.Tabs,
        tabs: dict[str, Tab],
        left: LeftPages,
    ):
        self.page, self.model, self.model_facts, self.left = page, model, model_facts, left
        self.container, self.tabs = container, tabs
        # Clicked and filled by the script of the page.
        self.ticket, self.tab = gr.Textbox("", visible=False), gr.Textbox("", visible=False)
        self.leave_button = gr.Button("", elem_id="leave", visible="hidden")
        self._connect()

    def _connect(self) -> None:
        page, model, ticket = self.page, self.model, self.ticket
        each = self.tabs.values()
        kept = [component for tab in each for component in tab.kept]
        views = [component for tab in each for component in (*tab.kept, *tab.views)]
        leaving = self.leave_button.click(
            page.handler(self.leave, self.model_facts),
            [self.tab, model, *kept],
            [ticket, self.model_facts],
            js="(...values) => window.leaving(values)",
            **LIGHT,
        )
        leaving.then(None, ticket, None, js="(ticket) => window.goToLanguage(ticket)")
        # A model is chosen first, so that nothing of it is adapted after the values have come.
        adapted = gr.on(
            [page.blocks.load, model.change],
            page.handler(self.adapt),
            model,
            list({part._id: part for tab in each for part in (*tab.adapted, self.model_facts)}.values()),
            **ONE_AT_A_TIME,
        )
        adapted.then(
            page.handler(self.arrive, self.model_facts),
            [ticket, model],
            list({part._id: part for part in (model, self.model_facts, self.container, *views)}.values()),
            js="(ticket, model) => [sessionStorage.getItem('left') ?? '', model]",
            **ONE_AT_A_TIME,
        )

    def adapt(self, name: str | None) -> Iterator[dict[Any, Any]]:
        """All tabs adapted to the model that was chosen."""
        if name not in self.page.models.models():
            yield {self.model_facts: note(self.page.text("no_model", folder=self.page.models.path))}
            return
        model = self.page.models.load(name)
        updates: dict[Any, Any] = {}
        for tab in self.tabs.values():
            updates |= tab.adapt(model)
        yield updates

    def leave(self, tab: str, name: str | None, *values: Any) -> Iterator[dict[Any, Any]]:
        """A ticket for what is on the page."""
        kept, rest = [], list(values)
        for each in self.tabs.values():
            kept.append(each.keep(rest[: len(each.kept)]))
            del rest[: len(each.kept)]
        yield {self.ticket: self.left.put(Left(name, tab, tuple(kept)))}

    def arrive(self, ticket: str, name: str | None) -> Iterator[dict[Any, Any]]:
        """What was on the page that was left; first its model, for which this is called once more."""
        page, left = self.page, self.left.of(ticket)
        if left is None:
            yield {self.model_facts: gr.skip()}
        elif left.model != name and left.model in page.models.models():
            yield {self.model: left.model}
        else:
            self.left.forget(ticket)
            updates: dict[Any, Any] = {}
            if left.tab in self.tabs:
                updates[self.container] = gr.update(selected=left.tab)
            for tab, values in zip(self.tabs.values(), left.values, strict=True):
                updates |= dict(zip(tab.kept, values, strict=True))
                if left.model == name and name:
                    updates |= tab.show_kept(page.models.load(name), values)
            yield updates
