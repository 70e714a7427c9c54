"""Actions wait for an import, which they do not bring about."""

import sys

from mgjax.runtime.when_imported import when_imported


def test_actions_run_once_after_the_first_import(tmp_path, monkeypatch):
  (tmp_path / 'imported_late.py').write_text('value = 1')
  (tmp_path / 'imported_else.py').write_text('')
  monkeypatch.syspath_prepend(tmp_path)
  finders, seen = list(sys.meta_path), []
  when_imported('imported_late', lambda: seen.append(sys.modules['imported_late'].value))
  import imported_else  # noqa: F401

  assert seen == []
  import imported_late  # noqa: F401

  assert seen == [1]
  assert sys.meta_path == finders
  when_imported('imported_late', lambda: seen.append('at once'))
  assert seen == [1, 'at once']
  del sys.modules['imported_late'], sys.modules['imported_else']
