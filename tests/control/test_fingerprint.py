"""What tells that the files of a version have changed."""

from gateway.control.repository import Repository, fingerprint
from tests.repository import ModelDirectory, rows


def test_files_that_say_how_a_model_is_watched_do_not_have_it_loaded_again(tmp_path):
    ModelDirectory(tmp_path).add("rows", rows)
    source = Repository(tmp_path).scan()["rows"]
    path = source.found["1"]
    before = fingerprint(source, path)
    (path.parent / "profile.json").write_text("{}")
    (tmp_path / "rows" / "monitor.toml").write_text("")
    assert fingerprint(source, path) == before
    (path.parent / "warmup.npz").write_bytes(b"rows")
    assert fingerprint(source, path) != before
