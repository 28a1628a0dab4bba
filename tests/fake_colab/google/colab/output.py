"""The page under a cell, which here nobody sees."""


def clear() -> None:
    """Remove what the cell has shown."""


def enable_custom_widget_manager() -> None:
    """Allow widgets of other packages."""


def eval_js(script: str, ignore_result: bool = False) -> None:
    """There is no browser to run it."""
    raise RuntimeError("no browser is listening")
