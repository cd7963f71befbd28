"""A clock that a test sets."""


class Clock:
    """Seconds, as `time.monotonic` gives them."""

    def __init__(self, time: float = 0.0) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time
