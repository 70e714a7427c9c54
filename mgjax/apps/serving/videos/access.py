"""Who may use the service, from which pages, and how often."""

import collections
import hashlib
import hmac
import re
import time
from collections.abc import Sequence

from starlette.requests import Request

from mgjax.apps.serving.videos.schema import ApiError, told

_GUESSES = 30  # wrong tokens of an address in a minute
_PEOPLE = 10_000  # of whom is known what they spent
_HERE = re.compile(r'(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?', re.ASCII | re.IGNORECASE)


class Access:
  """Tokens of those who may ask, and what each has spent.

  Without tokens whoever reaches this machine may ask, and a page of another site does so through
  the browser of somebody here. A browser says which site a page is of, and by which name it found
  this server: both have to be this machine, or the site one of `origins`.
  """

  def __init__(self, tokens: Sequence[str], origins: Sequence[str]):
    """Lets in those who have a token or, where there are none, everybody."""
    self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]
    self._origins = origins
    self._spent: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

  def check_site(self, request: Request) -> None:
    """Raises ApiError for a request that another site's page may have sent."""
    if self._tokens:  # which no browser adds by itself
      return
    host = request.headers.get('host', '')
    if not _HERE.fullmatch(host):
      raise ApiError(
        f'Host {told(host)} is not this machine; ask for localhost, or start the server with '
        '--token_file',
        None,
        403,
      )
    origin = request.headers.get('origin')
    here = (f'http://{host}', f'https://{host}')
    if origin is not None and origin not in (*here, *self._origins):
      raise ApiError(
        f'Origin {told(origin)} is another site; start the server with --cors_origin for it',
        None,
        403,
      )

  def check(self, request: Request) -> str:
    """Returns who asks. Raises ApiError for one who may not, or guesses."""
    address = request.client.host if request.client else ''
    if not self._tokens:
      return address
    given = request.headers.get('authorization', '').removeprefix('Bearer ').strip()
    digest = hashlib.sha256(given.encode()).digest()
    same = [hmac.compare_digest(digest, token) for token in self._tokens]  # all, whichever fits
    if not any(same):
      self.spend(f'guess {address}', _GUESSES)
      raise ApiError('The token is missing or wrong; send Authorization: Bearer TOKEN.', None, 401)
    return f'token {same.index(True)}'

  def spend(self, who: str, most: float, count: int = 1) -> None:
    """Counts what somebody asks for. Raises ApiError if that is too often in a minute."""
    now = time.monotonic()
    left, since = self._spent.pop(who, (most, now))
    left = min(most, left + (now - since) * most / 60)
    self._spent[who] = (left - count if left >= count else left, now)
    while len(self._spent) > _PEOPLE:
      self._spent.popitem(last=False)
    if left < count:
      wait = (count - left) * 60 / most
      raise ApiError(f'Too many requests; wait {wait:.0f} s.', None, 429, wait)
