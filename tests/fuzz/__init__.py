"""The core's codecs under libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer.

A target is one file ``fuzz_<name>.py`` with two functions:

- ``one_input(data: bytes)`` feeds the codec anything at all, and asserts whatever must hold. An
  exception that gets out of it is a finding, as a sanitizer's report is. Only the end of ``data``
  itself is guarded to the byte: hand a codec ``data`` or a memoryview of it rather than a slice.
- ``seeds()`` yields ``(name, bytes)``: inputs worth starting from, well-formed ones above all.

Where the input is a whole connection it is read as a script, see ``script.py``: bytes at random are
then what a client does and what the server does meanwhile, and seldom end at the first octet.

``corpus/<name>/`` keeps the seeds, written by ``python -m tests.fuzz.seeds``, and under names of
hexadecimal digits inputs that fuzzing found, written by ``python -m tests.fuzz --keep``.
"""
