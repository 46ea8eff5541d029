"""What the server keeps of each browser's page: its values, and little else."""

from types import SimpleNamespace
from typing import Any

from gradio.state_holder import SessionState, StateHolder


class Session(SessionState):
    """The state of one browser's page, without Gradio's copy of the settings of every control.

    Only links to a saved state of the page would read that copy, and this page has none. To make it took
    about 60 ms in which the server answered nobody, and it kept a megabyte for each browser.
    """

    def __init__(self, blocks: Any):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))  # type: ignore[arg-type]

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        """Gradio calls this where an answer changes a control's settings."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Gradio calls this with each value that is sent or answered."""


class Sessions(StateHolder):
    """The sessions of a server; the least recently used go where there are too many."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)
