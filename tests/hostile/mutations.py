"""Right bytes made wrong."""

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """``original`` with a few places cut out, overwritten, doubled or made longer."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.integers(0, 12)), len(data))
        match draw(st.sampled_from(["cut", "overwrite", "insert", "double", "truncate"])):
            case "cut":
                del data[start:end]
            case "overwrite":
                data[start:end] = draw(st.binary(min_size=end - start, max_size=end - start))
            case "insert":
                data[start:start] = draw(st.binary(max_size=12))
            case "double":
                data[start:start] = data[start:end]
            case "truncate":
                del data[start:]
    return bytes(data)
