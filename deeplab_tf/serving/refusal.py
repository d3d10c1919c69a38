"""The error a client gets when its request is refused."""


class Refused(Exception):
    """A request that is refused.

    Attributes:
      status: of HTTP.
      reason: one line for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
