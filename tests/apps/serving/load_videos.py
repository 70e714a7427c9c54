r"""Asks a server of /v1/videos for many jobs at once and says how long they took.

  python tests/apps/serving/load_videos.py --url=http://127.0.0.1:8000 --clients=50 --jobs=500

  python tests/apps/serving/load_videos.py --beside=digits/video --jobs=40 \
    --fields='{"num_inference_steps": 100}'

The second asks for one job after another, in turns with the same sampler called directly, here. It
needs mgjax; the first needs Python alone. Each job has an Idempotency-Key, so that what is asked
again after a broken connection is the same job: it may be run while the server is killed and
started again.
"""

import argparse
import concurrent.futures
import json
import pathlib
import time
import urllib.error
import urllib.request

WORDS = [
  'the red digit 7 bounces',
  'the green digit 3 moves left',
  'the blue digit 5 moves up',
  'the white digit 0 stands still',
]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--url', default='http://127.0.0.1:8000', help='Of the server.')
  parser.add_argument('--clients', type=int, default=50, help='At once.')
  parser.add_argument('--jobs', type=int, default=500, help='In all.')
  parser.add_argument('--token_file', default='', help='With a token in its first line.')
  parser.add_argument('--fields', default='{}', help='Of each request: {"num_frames": 16}.')
  parser.add_argument('--beside', default='', help='A model to call directly, in turns.')
  parser.add_argument('--patience', type=float, default=600, help='Seconds for a job.')
  given = parser.parse_args()
  token = pathlib.Path(given.token_file).read_text().split()[0] if given.token_file else ''
  run, fields = f'{time.time():.6f}', json.loads(given.fields)

  def ask(method: str, path: str, body: dict | None = None, key: str = '') -> bytes:
    headers = {'Content-Type': 'application/json', 'Idempotency-Key': key}
    headers |= {'Authorization': f'Bearer {token}'} if token else {}
    data = None if body is None else json.dumps(body).encode()
    end = time.monotonic() + given.patience
    while True:
      wait = 0.5
      try:
        request = urllib.request.Request(f'{given.url}{path}', data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
          return answer.read()
      except urllib.error.HTTPError as error:
        if error.code not in (429, 503) or time.monotonic() > end:
          raise SystemExit(f'{method} {path}: {error.code} {error.read().decode()}') from error
        wait = float(error.headers.get('Retry-After', 0.5))
      except OSError:
        if time.monotonic() > end:
          raise
      time.sleep(wait)

  def one(number: int, expected: float = 0.0) -> tuple[str, str, float]:
    began = time.monotonic()
    asked = {'prompt': WORDS[number % len(WORDS)], 'seed': number, **fields}
    video = json.loads(ask('POST', '/v1/videos', asked, f'{run} {number}'))
    time.sleep(max(0.0, expected + began - time.monotonic()))
    while video['status'] in ('queued', 'in_progress'):
      time.sleep(0.05 if given.beside else max(0.25, given.clients / 50))
      video = json.loads(ask('GET', f'/v1/videos/{video["id"]}'))
    spent = time.monotonic() - began
    if video['status'] == 'completed' and not ask('GET', f'/v1/videos/{video["id"]}/content'):
      raise SystemExit(f'{video["id"]} has no content')
    return video['id'], video['status'], spent

  if given.beside:
    compare(given, fields, one)
    return
  began = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(given.clients) as pool:
    ended = list(pool.map(one, range(given.jobs)))
  spent, times = time.monotonic() - began, sorted(seconds for *_, seconds in ended)
  print(
    json.dumps(
      {
        'jobs': given.jobs,
        'ids': len({id for id, *_ in ended}),
        'completed': sum(status == 'completed' for _, status, _ in ended),
        'seconds': round(spent, 2),
        'jobs_per_second': round(given.jobs / spent, 2),
        'p50': round(times[len(times) // 2], 3),
        'p99': round(times[int(0.99 * (len(times) - 1))], 3),
      }
    )
  )


def compare(given, fields, one) -> None:
  import mgjax

  pipeline = mgjax.load(given.beside, steps=fields.get('num_inference_steps'))
  times: dict[str, list[float]] = {'directly': [], 'job': []}
  for turn in range(given.jobs + 1):
    began = time.monotonic()
    pipeline.generate([WORDS[turn % len(WORDS)]], seed=turn)
    middle = time.monotonic()
    one(turn, middle - began)  # or its questions would take the cores that the job wants
    if turn:  # the first one compiles
      times['directly'].append(middle - began)
      times['job'].append(time.monotonic() - middle)
  found = {name: sorted(each) for name, each in times.items()}
  at = {'p50': 0.5, 'p99': 0.99}
  told = {
    name: {key: round(each[int(share * (len(each) - 1))], 3) for key, share in at.items()}
    for name, each in found.items()
  }
  print(json.dumps(told))


if __name__ == '__main__':
  main()
