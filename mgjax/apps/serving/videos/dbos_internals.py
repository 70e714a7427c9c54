"""All uses of DBOS beyond its public API, in one place: read them again when you update DBOS.

- DBOS unpickles a row that names pickle as its format, whatever its serializer is. Reading a pickle
  can run any code, and there is no option to refuse it: `refuse_pickles` replaces the function.
- It has no public function that lists the formats of stored rows: `_check_stored` reads its tables.
- No public function recovers the jobs of another worker: `recover` calls the private one.
"""

import contextlib
import functools
import logging
from typing import Any, NoReturn

import sqlalchemy
from dbos import DBOS, DBOSPortableJSONSerializer, _serialization

from mgjax.core.errors import ConfigError

SERIALIZER = DBOSPortableJSONSerializer()
_FORMAT = 'serialization'  # the column with the format of a row
_log = logging.getLogger(__name__)


def refuse_pickles(database: str) -> None:
  """Checks that a database has no pickled rows, and makes DBOS refuse them in this process.

  The job of a row that is written later is noted as failed. Raises ConfigError if there is a row in
  another format than JSON.
  """
  _check_stored(database)
  _serialization.DefaultSerializer.deserialize = _refuse_pickle


def recover(worker: str) -> None:
  """Takes over the jobs that another worker left running.

  If several workers call this at once, one of them gets each job.
  """
  DBOS._recover_pending_workflows([worker])


def _check_stored(database: str) -> None:
  url = sqlalchemy.make_url(database)
  schema = None
  if not database.startswith('sqlite'):
    url = url.set(drivername='postgresql+psycopg')
    schema = 'dbos'
  engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
  with contextlib.closing(engine.connect()) as connection:
    inspector = sqlalchemy.inspect(connection)
    for name in inspector.get_table_names(schema=schema):
      columns = inspector.get_columns(name, schema=schema)
      if all(column['name'] != _FORMAT for column in columns):
        continue
      table = sqlalchemy.table(name, sqlalchemy.column(_FORMAT), schema=schema)
      count = sqlalchemy.select(sqlalchemy.func.count()).select_from(table)
      if rows := connection.execute(
        count.where(table.c[_FORMAT] != SERIALIZER.name())
      ).scalar_one():
        raise ConfigError(
          f'--database: {name} has pickled rows ({rows}), as older versions of mgjax wrote them; '
          'expected JSON, because reading a pickle can run any code. Give another --out, and on '
          'Postgres another --database, or delete these rows; finished videos stay in the old --out'
        )


def _refuse_pickle(_: Any, text: str) -> NoReturn:
  del text
  _warn_of_pickle()
  raise ValueError('a pickle, which can run any code, is not read')


@functools.cache
def _warn_of_pickle() -> None:
  _log.warning(
    'a job in the database is a pickle, which is not read: it could run any code; check who can '
    'write to the database'
  )
