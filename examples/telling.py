"""How the examples print what they do."""


def say(*lines: str) -> None:
    """Print at once, so that a log has the lines in their order."""
    for line in lines:
        print(f"  {line}" if line else "", flush=True)


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)
