"""What a client is told whose request is not answered."""


class Refused(Exception):
    """A request that is not answered: its HTTP status, and one line that says why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason
