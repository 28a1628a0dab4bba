"""The user's secrets, of which there are none."""


class SecretNotFoundError(Exception):
    """No secret has this name."""


def get(key: str) -> str:
    raise SecretNotFoundError(f"Secret {key} does not exist.")
