"""Who may use the service, from which pages, and how often."""

import collections
import hashlib
import hmac
import re
import time
from collections.abc import Sequence

from starlette.requests import Request

from mgjax.apps.serving.videos.schema import ApiError, quoted

_GUESSES = 30  # wrong tokens of an address in a minute
_PEOPLE = 10_000  # of whom is known what they spent
_HERE = re.compile(r'(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?', re.ASCII | re.IGNORECASE)


class Access:
  """The tokens of clients, and the rate limit of each.

  Without tokens every client on this machine has access. That includes a browser here that shows a
  page of another site, so the headers Host and Origin must name this machine, or Origin one of
  `origins`.
  """

  def __init__(self, tokens: Sequence[str], origins: Sequence[str]):
    """Gives access to clients with one of the tokens; to all if there are no tokens."""
    self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]
    self._origins = origins
    self._spent: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

  def check_site(self, request: Request) -> None:
    """Raises ApiError for a request that another site's page may have sent."""
    if self._tokens:  # a browser does not add a token by itself
      return
    host = request.headers.get('host', '')
    if not _HERE.fullmatch(host):
      raise ApiError(
        f'Host {quoted(host)} is not this machine; ask for localhost, or start the server with '
        '--token_file',
        None,
        403,
      )
    origin = request.headers.get('origin')
    here = (f'http://{host}', f'https://{host}')
    if origin is not None and origin not in (*here, *self._origins):
      raise ApiError(
        f'Origin {quoted(origin)} is another site; start the server with --cors_origin for it',
        None,
        403,
      )

  def check(self, request: Request) -> str:
    """Returns the name of the client. Raises ApiError if its token is missing or wrong."""
    address = request.client.host if request.client else ''
    if not self._tokens:
      return address
    token = request.headers.get('authorization', '').removeprefix('Bearer ').strip()
    digest = hashlib.sha256(token.encode()).digest()
    # All are compared, so that the time does not tell which one is equal.
    same = [hmac.compare_digest(digest, known) for known in self._tokens]
    if not any(same):
      self.spend(f'guess {address}', _GUESSES)
      raise ApiError('The token is missing or wrong; send Authorization: Bearer TOKEN.', None, 401)
    return f'token {same.index(True)}'

  def spend(self, who: str, most: float, count: int = 1) -> None:
    """Counts requests of a client. Raises ApiError if they exceed `most` a minute."""
    now = time.monotonic()
    remaining, since = self._spent.pop(who, (most, now))
    remaining = min(most, remaining + (now - since) * most / 60)
    self._spent[who] = (remaining - count if remaining >= count else remaining, now)
    while len(self._spent) > _PEOPLE:
      self._spent.popitem(last=False)
    if remaining < count:
      wait = (count - remaining) * 60 / most
      raise ApiError(f'Too many requests; wait {wait:.0f} s.', None, 429, wait)
