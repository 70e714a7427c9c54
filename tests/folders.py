"""What lies below a folder."""


def files_of(folder, within='*', kept=lambda path: True):
  """Path below the folder -> the bytes of each file there, of those that are to be kept."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob(within))
    if path.is_file() and not path.is_symlink() and kept(path)
  }
